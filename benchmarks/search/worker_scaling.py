"""How a search goes with many workers: in a modelled world (`world.py`), by simulated time and on a real database.

    python benchmarks/search/worker_scaling.py > benchmarks/results/worker_scaling.md
    python benchmarks/search/worker_scaling.py --storage postgresql+psycopg://USER@HOST/DATABASE \\
        >> benchmarks/results/worker_scaling.md

The first by simulated time: so many workers, each with encoder outputs of its own, beside the search's own CPU seconds.
Worker-hours until the optimum is found within 5 % and 1 % (that of `search_efficiency.py`, from its `--rows`).

The second on a database, in real time: loop, engine, queue and leases are those of `search --storage`; workers are
threads of a few processes, which sleep for as long as a recipe takes in `methods.py`. Busy: the share of their time
that workers sleep. Storage: seconds of taking a job and answering it, as a share of what it took.
"""

import argparse
import heapq
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from sys import stderr
from threading import Thread
from typing import Any
from uuid import uuid4

from methods import Trace, _Clock, _Simulated, search_of
from search_efficiency import OPTIMUM, first_found, optimum, read
from search_efficiency import Row as Search
from world import World

from search.configuration.study_address import StudyAddress
from search.records.study_store import StudyStore
from search.run.measuring import Answer, Job
from search.workers.executor import Workers
from search.workers.job_queue import JobQueue
from search.workers.parts import BaselineNow, do_part
from search.workers.work import Worker

ROOT = Path(__file__).parents[2]
WITHIN = (0.05, 0.01)
PROCESSES = 4
"""That share the workers of the real part."""


def main() -> None:
    options = _parser().parse_args()
    world = World(options.run)
    if options.storage:
        print("\n".join(real(world, options)))
    else:
        best = optimum([row for row in read(options.rows) if row.method == OPTIMUM], world.allowed)
        print("\n".join(simulated(world, best, options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "results/seventh")
    parser.add_argument("--rows", type=Path, default=ROOT / "benchmarks/results/search_efficiency.jsonl")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hours", type=float, default=1.0, help="worker-hours of simulated time")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--storage", help="without it, simulated time")
    parser.add_argument("--seconds", type=float, default=90.0, help="of each search on the database")
    return parser


class _Meter:
    """A clock for `_Simulated` that only adds up what a job would take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    stopped = staticmethod(nullcontext)

    def wait(self, _: str, seconds: float) -> None:
        self.seconds += seconds


class _OneWorker:
    """Answers, and what they would take."""

    def __init__(self, world: World) -> None:
        self.meter = _Meter()
        self.scorer = _Simulated(world, Trace(), self.meter, races=True)  # type: ignore[arg-type]

    def answer(self, job: Job) -> tuple[Answer, float]:
        self.meter.seconds = 0.0
        answer = do_part(self.scorer, job)
        return replace(answer, seconds=self.meter.seconds), self.meter.seconds


# simulated time


class SimulatedQueue:
    """A queue (see `search.workers.job_queue.JobQueue`) and its workers, in simulated time, which waiting lets pass."""

    def __init__(self, world: World, trace: Trace, clock: _Clock, count: int) -> None:
        self._world, self._trace, self._clock = world, trace, clock
        self._workers = [_OneWorker(world) for _ in range(count)]
        self._free = list(range(count))
        self._waiting: dict[int, Job] = {}
        self._busy: list[tuple[float, int, int, Job, Answer]] = []
        self._put = 0

    def workers(self) -> list[str]:
        return [str(number) for number in range(len(self._workers))]

    def put(self, job: Job) -> int:
        self._put += 1
        self._waiting[self._put] = job
        self._begin(self._clock())
        return self._put

    def _begin(self, now: float) -> None:
        while self._free and self._waiting:
            index = self._free.pop()
            known = self._workers[index].scorer._encoders
            oldest = next(iter(self._waiting))
            number = next((n for n, job in self._waiting.items() if job.recipe.encoder_key in known), oldest)
            job = self._waiting.pop(number)
            with self._clock.stopped():
                answer, seconds = self._workers[index].answer(job)
            heapq.heappush(self._busy, (now + seconds, number, index, job, answer))

    def answers(self, numbers: Container[int]) -> list[tuple[int, Answer]]:
        """The next one."""
        while self._busy:
            end, number, index, job, answer = heapq.heappop(self._busy)
            self._clock.wait("waiting", max(0.0, end - self._clock()))
            self._free.append(index)
            self._begin(end)
            if number in numbers:
                with self._clock.stopped():
                    if job.enough:
                        self._trace.note(self._world, "judged", job.recipe)
                return [(number, answer)]
        return []

    def withdraw(self, numbers: Iterable[int]) -> list[int]:
        return [number for number in numbers if self._waiting.pop(number, None)]


def _priced(world: World) -> _Simulated:
    """What the leading process asks for costs and the baseline; it measures nothing."""
    return _Simulated(world, Trace(), _Meter(), races=True)  # type: ignore[arg-type]


def simulated(world: World, best: float, options: argparse.Namespace) -> Iterator[str]:
    """The table of worker-hours."""
    yield from (
        "## By simulated time\n",
        f"{options.hours:g} worker-hours each, {options.seeds} seeds; medians, over all workers: of what was judged, "
        "and of the worker-hours until the optimum was found within so much (`> x`: not at the end).\n",
        "| workers | recipes | " + " | ".join(f"within {share:.0%}" for share in WITHIN) + " | to one worker's |",
        "|---|---|" + "---|" * (len(WITHIN) + 1),
    )
    alone: list[float] = []
    for count in options.counts:
        searches = [_simulated_search(world.seeded(seed), count, seed, options.hours) for seed in range(options.seeds)]
        times = [
            median(first_found(one, best * (1 + share), world.allowed) * count / 3600 for one in searches)
            for share in WITHIN
        ]
        alone = alone or times
        shown = [f"{hours:.2f}" if hours < float("inf") else f"> {options.hours:g}" for hours in times]
        ratios = [f"{a / b:.2f}" if max(a, b) < float("inf") else "-" for a, b in zip(times, alone, strict=True)]
        recipes = median(one.recipes for one in searches)
        yield f"| {count} | {recipes:.0f} | {' | '.join(shown)} | {', '.join(ratios)} |"


def _simulated_search(world: World, count: int, seed: int, worker_hours: float) -> Search:
    trace = Trace()
    clock = _Clock(trace)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        store = StudyStore(Path(folder) / "study.db")

        queue, leader = SimulatedQueue(world, trace, clock, count), _priced(world)

        def executor(baseline: BaselineNow) -> Workers:
            return Workers(queue, leader, baseline, lambda _: None, lambda: False)  # type: ignore[arg-type]

        search = search_of(world, store, trace, clock=clock, scorer=leader, seed=seed, executor=executor)
        ledger = search(worker_hours * 3600 / count)
    return Search(
        method=f"{count} workers", seed=seed, recipes=len(ledger.trials), spent=trace.spent, events=trace.events
    )


# real time


class _Sleeper(_OneWorker):
    """A scorer of the world that really takes the time."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.slept = 0.0

    def hear(self, *given: Any) -> Any:
        return self._slowly(self.scorer.hear, *given)

    def divergence(self, *given: Any) -> Any:
        return self._slowly(self.scorer.divergence, *given)

    def _slowly(self, measured: Callable[..., Any], *given: Any) -> Any:
        self.meter.seconds, began = 0.0, time.monotonic()
        found = measured(*given)
        time.sleep(max(0.0, self.meter.seconds - (time.monotonic() - began)))
        self.slept += self.meter.seconds
        return found


class _Never:
    """An interruption that does not come by a signal."""

    asked = False
    caught = staticmethod(nullcontext)


class _TimedQueue(JobQueue):
    """Adds up what taking and answering take, where there was a job."""

    storage_s = 0.0

    def take(self, *given: Any) -> Any:
        began = time.monotonic()
        lease = super().take(*given)
        self.storage_s += time.monotonic() - began if lease else 0.0
        return lease

    def answer(self, *given: Any) -> bool:
        began = time.monotonic()
        first = super().answer(*given)
        self.storage_s += time.monotonic() - began
        return first


def _work(world: World, address: StudyAddress, names: list[str], ended: Any, results: Any) -> None:
    """Threads of one process, each a worker, until the search has ended."""

    def one(name: str) -> None:
        store, sleeper, never = StudyStore(address, create=False), _Sleeper(world), _Never()
        queue = _TimedQueue(store.engine, address.name)
        thread = Thread(target=Worker(store, queue, sleeper, never, lambda _: None, name=name).work)  # type: ignore[arg-type]
        thread.start()
        ended.wait()
        never.asked = True
        thread.join()
        results.put((sleeper.slept, queue.storage_s))

    threads = [Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def real(world: World, options: argparse.Namespace) -> Iterator[str]:
    """The table of searches on the database."""
    yield from (
        "## On a database, in real time\n",
        f"{options.seconds:g} s each, on {multiprocessing.cpu_count()} cores that leader, workers and server share.\n",
        "| workers | recipes an hour | of one worker's, for each | busy | storage | measured twice |",
        "|---|---|---|---|---|---|",
    )
    alone = 0.0
    for count in options.counts:
        rate, busy, storage, twice = _real_search(world, count, options)
        alone = alone or rate
        yield f"| {count} | {rate:.0f} | {rate / alone / count:.0%} | {busy:.0%} | {storage:.1%} | {twice} |"


def _real_search(world: World, count: int, options: argparse.Namespace) -> tuple[float, float, float, int]:
    """Recipes an hour, share of time that workers sleep, storage, and what was measured twice."""
    address = StudyAddress.of_storage(options.storage, f"scaling-{count}-{uuid4().hex[:8]}")
    store = StudyStore(address)
    context = multiprocessing.get_context("fork")
    queue, results, ended = JobQueue(store.engine, address.name), context.Queue(), context.Event()
    names = [f"worker {number}" for number in range(count)]
    shares = [share for number in range(PROCESSES) if (share := names[number::PROCESSES])]
    processes = [context.Process(target=_work, args=(world, address, share, ended, results)) for share in shares]
    for process in processes:
        process.start()
    clock = _Wall()

    leader = _priced(world)

    def executor(baseline: BaselineNow) -> Workers:
        return Workers(queue, leader, baseline, lambda _: None, lambda: False)

    search = search_of(world, store, Trace(), clock=clock, scorer=leader, seed=0, executor=executor)
    ledger, lasted_s = search(options.seconds), clock()
    ended.set()
    told = [results.get() for _ in names]
    for process in processes:
        process.join()
    slept, storage = (sum(values) for values in zip(*told, strict=True))
    measured = Counter(trial.recipe.id for trial in ledger.trials)
    twice = queue.late_answers + sum(times - 1 for times in measured.values())
    print(f"{count} workers: {len(ledger.trials)} recipes", file=stderr, flush=True)
    return 3600 * len(ledger.trials) / lasted_s, slept / (count * lasted_s), storage / slept, twice


class _Wall:
    """The clock on the wall, from now."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    stopped = staticmethod(nullcontext)

    def __call__(self) -> float:
        return time.monotonic() - self._began


if __name__ == "__main__":
    main()
