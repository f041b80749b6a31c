"""When a transcript has collapsed into a repetition."""

from collections.abc import Sequence

LOOP_TOKENS = 48
"""A transcript whose last 48 tokens repeat a unit of at most LOOP_PERIOD tokens is a loop: the unit was said
four times or more, word for word, for 10 s of speech. Collapsed models do this until their limit."""
LOOP_PERIOD = 12


def is_loop(tokens: Sequence[int]) -> bool:
    """Whether the last LOOP_TOKENS tokens only repeat a unit of at most LOOP_PERIOD tokens."""
    return _period(tokens) is not None


def without_repeats(tokens: Sequence[int]) -> Sequence[int]:
    """The tokens of a loop with its unit once; others as they are."""
    period, begin = _period(tokens), len(tokens) - LOOP_TOKENS
    if period is None:
        return tokens
    while begin and tokens[begin - 1] == tokens[begin - 1 + period]:
        begin -= 1
    return tokens[: begin + period]


def _period(tokens: Sequence[int]) -> int | None:
    """The length of the shortest unit that a loop repeats; None where there is no loop."""
    tail = tokens[-LOOP_TOKENS:]
    if len(tail) < LOOP_TOKENS:
        return None
    return next((period for period in range(1, LOOP_PERIOD + 1) if tail[period:] == tail[:-period]), None)
