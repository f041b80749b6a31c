"""What listening costs, and how far the words are behind."""

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.live.clock import Clock
from runtime.memory import peak_rss_bytes
from runtime.words import Word

REMEMBERED = 3000
"""Blocks whose arrival is known: words are final long before 5 minutes are over."""


@dataclass(frozen=True, kw_only=True)
class LiveReport:
    """Of a stream of `audio_s` seconds with so many final `words`.

    `lag_median_s`, `lag_95_s`: from the arrival of a word's last sound to when it was final, median and 95th
    percentile; None without words. `real_time_factor`: time spent on hearing, and `cpu_occupancy`: CPU time of the
    process, all threads, by seconds of audio. `peak_memory_mb`: most that the process ever held, Python included.
    """

    audio_s: float
    words: int
    lag_median_s: float | None
    lag_95_s: float | None
    real_time_factor: float
    cpu_occupancy: float
    peak_memory_mb: float


class Meter:
    """Is told what arrives and what becomes final."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._cpu_s = time.process_time()
        self._ends_s, self._arrivals_s, self._lags_s = list[float](), list[float](), list[float]()
        self.audio_s = self.hearing_s = self._asked_s = 0.0

    def arrived(self, audio_s: float, at_s: float) -> None:
        """So much audio in all, at that time."""
        self.audio_s = audio_s
        self._ends_s.append(audio_s)
        self._arrivals_s.append(at_s)
        if len(self._ends_s) > 2 * REMEMBERED:
            del self._ends_s[:-REMEMBERED], self._arrivals_s[:-REMEMBERED]

    def final(self, words: Sequence[Word]) -> None:
        """Words that became final now."""
        now_s = self._clock.now_s()
        for word in words:
            block = min(bisect_left(self._ends_s, word.end_s), len(self._ends_s) - 1)
            self._lags_s.append(now_s - self._arrivals_s[block])

    def heard(self, seconds: float) -> None:
        """So long a block took to be heard."""
        self.hearing_s += seconds

    def hearing_since_segment_s(self) -> float:
        """Time spent on hearing since this was asked last."""
        since_s, self._asked_s = self.hearing_s - self._asked_s, self.hearing_s
        return since_s

    def behind_s(self, position_s: float) -> float:
        """How long ago the audio at a place of the stream arrived."""
        block = min(bisect_left(self._ends_s, position_s), len(self._ends_s) - 1)
        return self._clock.now_s() - self._arrivals_s[block]

    def report(self) -> LiveReport:
        """Until now."""
        audio_s = max(self.audio_s, 1e-9)
        median_s, late_s = np.percentile(self._lags_s, [50, 95]).tolist() if self._lags_s else (None, None)
        return LiveReport(
            audio_s=self.audio_s,
            words=len(self._lags_s),
            lag_median_s=median_s,
            lag_95_s=late_s,
            real_time_factor=self.hearing_s / audio_s,
            cpu_occupancy=(time.process_time() - self._cpu_s) / audio_s,
            peak_memory_mb=peak_rss_bytes() / 1e6,
        )
