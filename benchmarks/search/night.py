"""How a long search with workers went, hour by hour, from its logs (`search --log-format json`).

    python benchmarks/search/night.py --run results/night --log LEADER.log > benchmarks/results/night.md

`--log`: what the leading process wrote on stderr, of all its starts. Hours are those in which the run was there: from
its first event on, without the times of more than PAUSE_S seconds in which nobody wrote anything.

measuring: the share of their time that workers measured. between: the median of the seconds from the end of a worker's
job to the beginning of its next one, which is what queue, leading process and database take. Memory: medians.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

PAUSE_S = 300.0
HOUR_S = 3600.0
Event = Mapping[str, Any]


def main() -> None:
    options = _parser().parse_args()
    leader = read(options.log)
    workers = [read(file) for file in sorted((options.run / "workers").glob("*.log"))]
    print("\n".join(table(leader, workers)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    return parser


def read(file: Path) -> list[Event]:
    """The events of a log, each with `at`: seconds since 1970. A line that a death cut off is left out."""
    found = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        found.append(event | {"at": datetime.fromisoformat(event["timestamp"]).timestamp()})
    return found


class Time:
    """Seconds of the run, without its pauses."""

    def __init__(self, times: Sequence[float]) -> None:
        ordered = sorted(times)
        self._begins = ordered[0]
        self._pauses = [(a, b) for a, b in pairwise(ordered) if b - a > PAUSE_S]
        self.starts = len(self._pauses) + 1
        self.seconds = self(ordered[-1])

    def __call__(self, at: float) -> float:
        return at - self._begins - sum(b - a for a, b in self._pauses if b <= at)


def table(leader: Sequence[Event], workers: Sequence[Sequence[Event]]) -> Iterator[str]:
    """A row an hour."""
    time = Time([event["at"] for events in (leader, *workers) for event in events])
    yield from (
        f"# {time.seconds / HOUR_S:.1f} hours with {len(workers)} workers, in {time.starts} starts\n",
        "| hour | recipes | jobs | measuring | between, s | a worker's memory, MB | the leading process's, MB |",
        "|---|---|---|---|---|---|---|",
    )
    for hour in range(int(time.seconds // HOUR_S) + 1):
        ended = [e for e in _of_hour(leader, time, hour) if e["event"] == "trial ends"]
        jobs = [e for events in workers for e in _of_hour(events, time, hour) if e["event"] == "ends"]
        gaps = [gap for events in workers for gap in _gaps(_of_hour(events, time, hour))]
        lasted = min(HOUR_S, time.seconds - hour * HOUR_S)
        if not jobs or not ended:
            yield f"| {hour + 1} | {len(ended)} | {len(jobs)} | | | | |"
            continue
        yield (
            f"| {hour + 1} | {len(ended)} | {len(jobs)} | "
            f"{sum(job['seconds'] for job in jobs) / lasted / len(workers):.0%} | {median(gaps):.3f} | "
            f"{median(job['memory_mb'] for job in jobs):.0f} | {median(e['memory_mb'] for e in ended):.0f} |"
        )


def _of_hour(events: Sequence[Event], time: Time, hour: int) -> list[Event]:
    return [event for event in events if time(event["at"]) // HOUR_S == hour]


def _gaps(events: Sequence[Event]) -> list[float]:
    """From the end of a job to the beginning of the next one of the same worker."""
    return [
        after["at"] - before["at"]
        for before, after in pairwise(events)
        if before["event"] == "ends" and after["event"] == "begins"
    ]


if __name__ == "__main__":
    main()
