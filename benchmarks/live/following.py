"""Live captions on a device that slows down: with one artifact, and with a bundle that follows it.

    python benchmarks/live/following.py --bundle DIR --data MANIFEST [--seconds S] [--slower N] [--out FILE]

A simulated clock counts CPU time N times in the middle third of the recording, as on a device whose clock falls. Once
the bundle's first model listens alone, once all of them. Lags are of the words by thirds of the recording.
"""

import argparse
import json
import time
from pathlib import Path
from threading import Event as Flag
from typing import Any

import numpy as np
from joined import joined

from runtime.audio import SAMPLE_RATE, Floats
from runtime.bundle import Limits, Point, timed_points
from runtime.live.command import listen
from runtime.live.events import Event, FinalWords, Switch
from runtime.live.listener import Listener, ListenerOptions
from runtime.live.power import PowerControl
from runtime.live.sources import PacedAudio


class SlowingClock:
    """Its time moves by CPU time, in the middle of `total_s` so many times as fast."""

    def __init__(self, total_s: float, slower: float) -> None:
        self._total_s, self._slower = total_s, slower
        self._now_s, self._seen_s = 0.0, time.process_time()

    def now_s(self) -> float:
        cpu_s = time.process_time()
        is_slow = self._total_s / 3 <= self._now_s < 2 * self._total_s / 3
        self._now_s += (cpu_s - self._seen_s) * (self._slower if is_slow else 1)
        self._seen_s = cpu_s
        return self._now_s

    def wait_until(self, time_s: float) -> None:
        self._now_s = max(self.now_s(), time_s)


class Lags:
    """An output that keeps when words were final, and the switches."""

    def __init__(self, clock: SlowingClock) -> None:
        self._clock = clock
        self.words: list[tuple[float, float]] = []
        self.switches: list[Switch] = []

    def show(self, event: Event) -> None:
        if isinstance(event, FinalWords):
            now_s = self._clock.now_s()
            self.words += [(word.end_s, now_s - word.end_s) for word in event.words]
        elif isinstance(event, Switch):
            self.switches.append(event)

    def end(self, at_s: float, report: dict[str, Any]) -> None:
        """Nothing to add."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--slower", type=float, default=12.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    samples = joined(options.data, seconds=options.seconds, pauses_s=(0.9, 2.0)).samples
    points = timed_points(options.bundle, threads=1)
    values = {
        "slower": options.slower,
        "points": [{"name": point.name, "real_time_factor": round(point.real_time_factor, 4)} for point in points],
        "alone": heard(points[:1], samples, options.slower),
        "bundle": heard(points, samples, options.slower),
    }
    print(json.dumps(values, indent=1))
    if options.out:
        options.out.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def heard(points: list[Point], samples: Floats, slower: float) -> dict[str, Any]:
    total_s = len(samples) / SAMPLE_RATE
    clock = SlowingClock(total_s, slower)
    output, power = Lags(clock), PowerControl(points, Limits())
    listener = Listener(power.point.transcriber, ListenerOptions())
    listen(listener, PacedAudio(samples, clock), output, clock, Flag(), power)
    thirds = [[lag for end_s, lag in output.words if end_s * 3 // total_s == third] for third in range(3)]
    return {
        "lag_s": [{"median": round(float(np.median(lags)), 2), "most": round(max(lags), 2)} for lags in thirds],
        "switches": [{"at_s": round(one.at_s, 1), "to": one.after, "reason": one.reason} for one in output.switches],
    }


if __name__ == "__main__":
    main()
