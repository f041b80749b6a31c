"""When a transcript has collapsed into a repetition."""

from collections.abc import Sequence

LOOP_TOKENS = 48
"""A transcript whose last 48 tokens repeat a unit of at most LOOP_PERIOD tokens is a loop: the unit was said
four times or more, word for word, for 10 s of speech. Collapsed models do this until their limit."""
LOOP_PERIOD = 12
REPEATED_TOKENS = 36
"""What did not come to its end by itself, and repeats such a unit in its last 36 tokens, three times or more, was in a
loop too: a clip of 2 s has a limit of 40 tokens."""


def is_loop(tokens: Sequence[int]) -> bool:
    """Whether the last LOOP_TOKENS tokens only repeat a unit of at most LOOP_PERIOD tokens."""
    return _period(tokens, LOOP_TOKENS) is not None


def without_repeats(tokens: Sequence[int]) -> Sequence[int]:
    """Of tokens that end in a loop, or at a limit in REPEATED_TOKENS of one, the unit once; others as they are."""
    period, begin = _period(tokens, REPEATED_TOKENS), len(tokens) - REPEATED_TOKENS
    if period is None:
        return tokens
    while begin and tokens[begin - 1] == tokens[begin - 1 + period]:
        begin -= 1
    return tokens[: begin + period]


def _period(tokens: Sequence[int], length: int) -> int | None:
    """Of the shortest unit that so many of the last tokens repeat; None where they repeat none."""
    tail = tokens[-length:]
    if len(tail) < length:
        return None
    return next((period for period in range(1, LOOP_PERIOD + 1) if tail[period:] == tail[:-period]), None)
