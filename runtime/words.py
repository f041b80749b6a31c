"""Words: which tokens make one, and when it was said."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

UNSPACED_LANGUAGES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Written without spaces: each character that tokens complete counts as a word, as in openai-whisper."""
OPENING_SIGNS = frozenset("\"'“¿([{-")
"""They belong to the word behind them, as in openai-whisper; all other signs to the word before."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word with its signs. `text` begins with a space where the language has spaces: texts are joined as they are."""

    text: str
    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.start_s <= self.end_s:
            raise ValueError(f"0 <= start_s <= end_s must hold, but got start_s={self.start_s}, end_s={self.end_s}")


def is_said(spelling: bytes) -> bool:
    """Whether a letter or digit is among the bytes, so that they are heard. Parts of a character count too."""
    return any(byte >= 0x80 or chr(byte).isalnum() for byte in spelling)


def word_slices(spellings: Sequence[bytes], *, language: str) -> list[slice]:
    """Which tokens make each word, in order and without gaps.

    A word begins at a space, and takes the signs behind it and the opening signs before it. In languages without spaces
    every whole character begins one.
    """
    spaced = language not in UNSPACED_LANGUAGES
    words: list[slice] = []
    has_word = False
    for part in _whole_characters(spellings):
        text = b"".join(spellings[part]).decode("utf-8", errors="replace")
        said = any(character.isalnum() for character in text)
        opens = text.strip()[:1] in OPENING_SIGNS if text.strip() else False
        begins = (text.startswith(" ") or not spaced) and (said or opens)
        if words and not (begins and has_word):
            words[-1] = slice(words[-1].start, part.stop)
            has_word = has_word or said
        else:
            words.append(part)
            has_word = said
    return words


def _whole_characters(spellings: Sequence[bytes]) -> Iterator[slice]:
    """Tokens that together are whole UTF-8 characters; at the end perhaps some that are not."""
    start = 0
    for stop in range(1, len(spellings) + 1):
        try:
            b"".join(spellings[start:stop]).decode("utf-8")
        except UnicodeDecodeError:
            if stop < len(spellings):
                continue
        yield slice(start, stop)
        start = stop
