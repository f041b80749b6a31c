"""How many clips are computed at a time where memory is the device's own."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Together:
    """As many as are wanted; where the device's memory does not suffice, half as many from then on."""

    def __init__(self) -> None:
        self._limit: int | None = None

    def map(
        self, work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], *, most: int
    ) -> list[Result]:
        """What `work` makes of all items, of up to `most` at a time.

        Raises torch.OutOfMemoryError where one is too many.
        """
        done: list[Result] = []
        while len(done) < len(items):
            part = items[len(done) : len(done) + min(most, self._limit or most)]
            found = _tried(work, part)
            if found is None:  # here, since what was computed stays in memory as long as its error is handled
                self._limit = len(part) // 2
                torch.cuda.empty_cache()
            else:
                done += found
        return done


def _tried(work: Callable[[Sequence[Item]], Sequence[Result]], part: Sequence[Item]) -> Sequence[Result] | None:
    """None where memory did not suffice."""
    try:
        return work(part)
    except torch.OutOfMemoryError:
        if len(part) == 1:
            raise
        return None
