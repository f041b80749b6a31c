"""What asks a process to end: Ctrl-C, a shutdown or a scheduler (SIGTERM), a terminal that closes (SIGHUP)."""

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

Handler = Callable[[int, FrameType | None], object]
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Let one handler see all of them while the block lasts. SIGHUP stays ignored where it is, as under nohup.

    Once the terminal is gone, what is written to it goes nowhere: otherwise the next line would be an error.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _forget_terminal()
        handler(number, frame)

    before = {number: signal.getsignal(number) for number in ENDING}
    handled = [number for number in ENDING if number != signal.SIGHUP or before[number] != signal.SIG_IGN]
    for number in handled:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


def _forget_terminal() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        with suppress(OSError):  # one that was closed
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)
