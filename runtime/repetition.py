"""When a transcript has collapsed into a repetition."""

from collections.abc import Sequence

LOOP_TOKENS = 48
"""A transcript whose last 48 tokens repeat a unit of at most LOOP_PERIOD tokens is a loop: the unit was said
four times or more, word for word, for 10 s of speech. Collapsed models do this until their limit."""
LOOP_PERIOD = 12
REPEATED_TOKENS = 36
"""What did not come to its end by itself, and repeats such a unit over 36 tokens, three times or more, was in a loop
too, even if it left it: a clip of 2 s has a limit of 40 tokens."""


def is_loop(tokens: Sequence[int]) -> bool:
    """Whether the last LOOP_TOKENS tokens only repeat a unit of at most LOOP_PERIOD tokens."""
    tail = tokens[-LOOP_TOKENS:]
    periods = range(1, LOOP_PERIOD + 1)
    return len(tail) == LOOP_TOKENS and any(tail[period:] == tail[:-period] for period in periods)


def without_repeats(tokens: Sequence[int]) -> list[int]:
    """Of tokens that did not end by themselves: where REPEATED_TOKENS or more repeat a unit, the unit once."""
    for begin in range(len(tokens) - REPEATED_TOKENS + 1):
        for period in range(1, LOOP_PERIOD + 1):
            end = begin + period
            while end < len(tokens) and tokens[end] == tokens[end - period]:
                end += 1
            if end - begin >= REPEATED_TOKENS:
                return [*tokens[: begin + period], *without_repeats(tokens[end:])]
    return list(tokens)
