"""Ctrl-C: the first one lets what is in flight finish, the second one drops it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType


@contextmanager
def catching_interrupts(first: Callable[[], None]) -> Iterator[None]:
    """`first` is called at the first Ctrl-C inside the block; another one raises KeyboardInterrupt."""
    seen = 0

    def interrupt(_: int, __: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            raise KeyboardInterrupt
        first()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def say_beside(say: Callable[[str], None], text: str) -> None:
    """Say it from a thread of its own: what a signal comes into may be in the middle of saying something."""
    Thread(target=say, args=(text,)).start()
