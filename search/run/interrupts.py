"""Ctrl-C and its like: the first one lets what is in flight finish, the second one drops it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType

from common.signals import handling


class Interruption:
    """Whether the user asked to stop, over the parts of a command.

    `tell` is called at the first signal inside `caught` (`common.signals`); another one raises KeyboardInterrupt.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self.asked = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Blocks may follow each other, not lie in each other."""

        def interrupt(_: int, __: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            self._tell()

        with handling(interrupt):
            yield


def say_beside(say: Callable[[str], None], text: str) -> None:
    """Say it from a thread of its own: what a signal comes into may be in the middle of saying something."""
    Thread(target=say, args=(text,)).start()
