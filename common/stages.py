"""How long the stages of a measurement take."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter

_SPENT: ContextVar[dict[str, float] | None] = ContextVar("spent", default=None)


@contextmanager
def collecting() -> Iterator[dict[str, float]]:
    """Seconds by stage, of all that is spent while the block lasts, in this thread."""
    spent: dict[str, float] = {}
    before = _SPENT.set(spent)
    try:
        yield spent
    finally:
        _SPENT.reset(before)


def spend(stage: str, seconds: float) -> None:
    """So much went into a stage; forgotten where nobody collects."""
    spent = _SPENT.get()
    if spent is not None:
        spent[stage] = spent.get(stage, 0.0) + seconds


@contextmanager
def stage(name: str) -> Iterator[None]:
    """The block is a part of this stage."""
    started = perf_counter()
    try:
        yield
    finally:
        spend(name, perf_counter() - started)
