"""Signs of life that a process gives while it is busy: a thread of its own."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

BEAT_S = 10.0
"""Between two signs of life."""
PARENT = "WHISPERFIT_PARENT"
"""In the environment of a process that is to end when the one that started it does: the id of that one."""


@contextmanager
def beating(beat: Callable[[], None]) -> Iterator[Event]:
    """Call it now and then while the block lasts. The event is set at the end, for who waits in between."""
    ending = Event()

    def go_on() -> None:
        while not ending.wait(BEAT_S):
            beat()

    beat()
    thread = Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield ending
    finally:
        ending.set()
        thread.join()


def end_with_parent() -> None:
    """Ask this process to end, as a scheduler does, where the one that started it and said so is gone."""
    parent = os.environ.get(PARENT)
    if parent and os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGTERM)
