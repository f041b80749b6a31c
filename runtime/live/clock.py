"""The time by which a stream is heard: the wall's, or one that only computing moves on."""

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds from any beginning."""

    def now_s(self) -> float:
        """The time."""

    def wait_until(self, time_s: float) -> None:
        """Come back at that time, at once if it is over."""


class WallClock:
    """Real time, from 0."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()

    def now_s(self) -> float:
        return time.monotonic() - self._started_s

    def wait_until(self, time_s: float) -> None:
        time.sleep(max(0.0, time_s - self.now_s()))


class SimulatedClock:
    """Waiting takes no time, and computing its CPU time: an hour of a stream passes in what it costs to hear it.

    What else runs on the machine hardly counts. Of several threads the time of all counts, as if one did their work.
    """

    def __init__(self) -> None:
        self._skipped_s = -time.process_time()

    def now_s(self) -> float:
        return time.process_time() + self._skipped_s

    def wait_until(self, time_s: float) -> None:
        self._skipped_s += max(0.0, time_s - self.now_s())
