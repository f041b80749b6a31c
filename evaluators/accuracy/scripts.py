"""Whether references and transcripts are written in the same script: if not, every word is an error."""

import unicodedata
from collections import Counter
from collections.abc import Iterable

_ONE_WRITING = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK", "BOPOMOFO": "CJK"}
"""Japanese mixes them. Traditional and simplified characters are no two scripts here."""


def script_of(text: str) -> str | None:
    """The script of most letters, by the first word of their Unicode names, such as `CYRILLIC`; None without any."""
    letters = Counter(
        _ONE_WRITING.get(word := unicodedata.name(character, "?").partition(" ")[0], word)
        for character in unicodedata.normalize("NFKC", text)
        if unicodedata.category(character)[0] == "L"
    )
    return letters.most_common(1)[0][0] if letters else None


def script_note(pairs: Iterable[tuple[str, str]]) -> str:
    """A sentence where most references and their transcripts differ in script, pair by pair; else empty.

    Pairs of which one has no letters do not count.
    """
    known = [(script_of(reference), script_of(transcript)) for reference, transcript in pairs]
    scripts = Counter((ours, theirs) for ours, theirs in known if ours and theirs)
    differing = Counter({pair: count for pair, count in scripts.items() if pair[0] != pair[1]})
    if 2 * differing.total() <= scripts.total():
        return ""
    (reference, transcript), _ = differing.most_common(1)[0]
    return (
        f"in {differing.total()} of {scripts.total()} utterances reference and transcript are in different scripts "
        f"({reference.capitalize()} against {transcript.capitalize()}): errors are hardly of the model; "
        "mend the references"
    )
