"""The words of a segment with their times."""

from collections.abc import Sequence

from runtime.decoding import Decoded, PromptedWindow, timed_words
from runtime.tokens import Vocabulary
from runtime.words import Word, word_slices


def segment_words(  # noqa: PLR0913 - a text, its audio and what tells the times
    opening: PromptedWindow,
    said: Decoded,
    vocabulary: Vocabulary,
    *,
    start_s: float,
    end_s: float,
    heads: Sequence[int],
) -> tuple[Word, ...]:
    """The words of `said`, a window's text, between the times of its segment; none overlap.

    By cross-attention. Spread evenly where that does not tell: artifacts from before it was asked, texts that loop.
    """
    spellings = [vocabulary.spelling(token) for token in said.tokens]
    slices = word_slices(spellings, language=opening.language)
    words = timed_words(opening, vocabulary, said.tokens, slices, audio_s=end_s - start_s, heads=heads)
    if words is None or "".join(word.text for word in words).strip() != said.text:
        return spread(said.text, start_s, end_s)
    limited = ((word, min(start_s + word.start_s, end_s), min(start_s + word.end_s, end_s)) for word in words)
    return tuple(Word(text=word.text, start_s=first_s, end_s=last_s) for word, first_s, last_s in limited)


def spread(text: str, start_s: float, end_s: float) -> tuple[Word, ...]:
    """The words of a text, each for as long as its share of the characters."""
    parts = [f" {part}" for part in text.split()]
    step_s = (end_s - start_s) / max(1, sum(map(len, parts)))
    words, place = [], 0
    for part in parts:
        first_s, last_s = start_s + place * step_s, min(end_s, start_s + (place + len(part)) * step_s)
        words.append(Word(text=part, start_s=min(first_s, last_s), end_s=last_s))
        place += len(part)
    return tuple(words)
