"""When a transcript has collapsed into a repetition."""

from collections.abc import Sequence

LOOP_TOKENS = 48
"""A transcript whose last 48 tokens repeat a unit of at most LOOP_PERIOD tokens is a loop: the unit was said
four times or more, word for word, for 10 s of speech. Collapsed models do this until their limit."""
LOOP_PERIOD = 12


def is_loop(tokens: Sequence[int]) -> bool:
    """Whether the last LOOP_TOKENS tokens only repeat a unit of at most LOOP_PERIOD tokens."""
    tail = tokens[-LOOP_TOKENS:]
    if len(tail) < LOOP_TOKENS:
        return False
    return any(tail[period:] == tail[:-period] for period in range(1, LOOP_PERIOD + 1))
