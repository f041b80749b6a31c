"""Measures operations on a device until their table predicts workloads well.

A first set covers the shapes of every kernel evenly. Then, round by round, those operations follow about which the
predictor is least sure, weighted with their share of the workloads' time.
"""

from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from time import monotonic

from devices.interval import UncertainTime
from devices.operation import Operation
from devices.predictor import KernelPredictor
from devices.profiler.base import Connection
from devices.profiler.measuring import Feed, Job, Log, MeasuringOptions, Timing, Timings, measure, operation_job
from devices.streams import STREAMS
from devices.table import KernelClass, TableRow
from evaluators.profiling.operation_models import OperationModel, operation_model
from evaluators.profiling.pool import Pool, kernel_of

CANARY = (Operation(kind="gemm", m=256, k=384, n=384), Operation(kind="gemv", k=384, n=1536))
"""A load bound by arithmetic and one bound by memory."""
BATCH = 24
"""Operations per round."""
ENOUGH_LOG_STD = 0.015
"""No further rounds when half of the workloads have this relative error of interpolation or less."""

STREAMS_MB = (16, 32, 64, 96, 128, 192, 256)
"""Of what a decoder's step reads, up to that of base in float32 and beyond."""
LEAST_SHARE = 0.1
"""Of a run's time that an operation's own must be, if the fixed overhead is noisier than the operation."""

Progress = Callable[[str], None]


def canary_jobs() -> tuple[Job, ...]:
    """What the measuring program times with every job, to know how fast the machine is at that moment."""
    return tuple(_job(operation_model(operation)) for operation in CANARY)


def _name(operation: Operation) -> str:
    """Such as `gemm-1x700x384x1152-w8a32g128`."""
    o = operation
    return f"{o.kind}-{o.heads}x{o.m}x{o.k}x{o.n}-w{o.weight_bits}a{o.activation_bits}g{o.group_size}"


def _job(model: OperationModel) -> Job:
    feeds = [Feed(name=value.name, shape=value.shape, type=value.type) for value in model.inputs]
    return operation_job(_name(model.operation), model.model, feeds)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A device to measure on: where, with which threads, and what is known already. `tool`: of the table's rows."""

    connection: Connection
    settings: MeasuringOptions
    core_set: str
    log: Log
    tool: str
    say: Progress

    def time(self, jobs: Sequence[Job]) -> None:
        """Make the visits that are missing."""
        for name in measure(self.connection, jobs, self.settings, self.log):
            self.say(name)

    def timings(self) -> Timings:
        return Timings(visits=self.log.visits(self.settings.threads))


class TableMaker:
    """Grows the rows of one device at one number of threads."""

    def __init__(self, bench: Bench, pool: Pool) -> None:
        self._bench = bench
        self._pool = pool
        self._models: dict[Operation, OperationModel] = {}

    def first_jobs(self) -> tuple[Job, ...]:
        """What every table begins with."""
        streams = [replace(stream, n=megabytes) for stream in self._pool.streams() for megabytes in STREAMS_MB]
        return self._jobs([*streams, *self._pool.first_operations()])

    def make(self, *, until: float, beside: Sequence[Job] = ()) -> tuple[TableRow, ...]:
        """Rows for the pool's operations; no further round begins after the clock (`time.monotonic`) says `until`.

        `beside`: other jobs, visited in turn with the first ones, so that both see the same machine.
        """
        self._bench.time([*self.first_jobs(), *beside])
        while monotonic() < until:
            batch = self._least_certain(self.rows())
            if not batch:
                break
            self._bench.time(self._jobs(batch))
        return self.rows()

    def _jobs(self, operations: Sequence[Operation]) -> tuple[Job, ...]:
        for operation in operations:
            if operation not in self._models:
                self._models[operation] = operation_model(operation)
        return tuple(_job(self._models[operation]) for operation in operations)

    def rows(self) -> tuple[TableRow, ...]:
        """Of everything timed so far; what onnxruntime refused has none."""
        timings = self._bench.timings()
        sessions = self._rows(timings, {"session"}, lambda _: 0.0)
        running = KernelPredictor.fit(sessions)

        def fixed_ms(model: OperationModel) -> float:
            return running.latency(Operation(kind="session", n=model.values)).ms

        others = {operation.kind for operation in self._models} - {"session"}
        return (*sessions, *self._rows(timings, others, fixed_ms))

    def _rows(
        self, timings: Timings, kinds: Set[str], fixed_ms: Callable[[OperationModel], float]
    ) -> tuple[TableRow, ...]:
        """`fixed_ms`: what a run of a model takes beside its operation."""
        found = []
        for operation, model in self._models.items():
            timing = timings.of(_name(operation)) if operation.kind in kinds else None
            if timing:
                share = max(1 - fixed_ms(model) / timing.median_ms, LEAST_SHARE)
                executions = 1 if operation.kind in STREAMS else model.copies
                found.append(self._row(operation, timing, share / executions))
        return tuple(found)

    def _row(self, operation: Operation, timing: Timing, factor: float) -> TableRow:
        return TableRow.of(
            operation,
            threads=self._bench.settings.threads,
            core_set=self._bench.core_set,
            repeats=timing.repeats,
            median_ms=timing.median_ms * factor,
            mean_ms=timing.mean_ms * factor,
            std_ms=timing.std_ms * factor,
            min_ms=timing.min_ms * factor,
            source="profile",
            tool=self._bench.tool,
        )

    def _least_certain(self, rows: Sequence[TableRow]) -> list[Operation]:
        """The next operations to measure; none when workloads are predicted well enough."""
        certainty = _Certainty(rows=tuple(rows))
        doubts: Counter[Operation] = Counter()
        errors = []
        for counts in self._pool.counts:
            latencies = {operation: certainty.latency(operation) for operation in counts}
            whole_ms = sum(counts[operation] * latency.ms for operation, latency in latencies.items())
            shares = {o: counts[o] * latency.ms * latency.log_std / whole_ms for o, latency in latencies.items()}
            errors.append(sum(shares.values()))
            doubts.update(shares)
        if median(errors) <= ENOUGH_LOG_STD:
            return []
        self._bench.say(f"workloads are interpolated within {median(errors):.1%}; measuring on")
        return _varied(doubts, measured=set(self._models))


@dataclass(frozen=True, kw_only=True)
class _Certainty:
    """What rows say about any operation; nothing about kernels that they lack."""

    rows: tuple[TableRow, ...]

    @cached_property
    def _predictors(self) -> dict[KernelClass, KernelPredictor]:
        groups: dict[KernelClass, list[TableRow]] = {}
        for row in self.rows:
            groups.setdefault(kernel_of(row.operation), []).append(row)
        return {kernel: KernelPredictor.fit(group) for kernel, group in groups.items() if kernel.op not in STREAMS}

    @cached_property
    def _known(self) -> dict[Operation, UncertainTime]:
        return {}

    def latency(self, operation: Operation) -> UncertainTime:
        if operation not in self._known:
            predictor = self._predictors.get(kernel_of(operation))
            self._known[operation] = predictor.latency(operation) if predictor else UncertainTime(ms=0.0, log_std=0.0)
        return self._known[operation]


def _varied(doubts: Counter[Operation], *, measured: set[Operation]) -> list[Operation]:
    """The most doubtful operations, but not all of one kernel: each one taken makes its neighbours less doubtful."""
    taken: Counter[KernelClass] = Counter()
    chosen: list[Operation] = []
    candidates = [operation for operation, doubt in doubts.most_common() if doubt > 0 and operation not in measured]
    for most in range(1, BATCH + 1):
        for operation in candidates:
            if len(chosen) < BATCH and taken[kernel_of(operation)] < most and operation not in chosen:
                chosen.append(operation)
                taken[kernel_of(operation)] += 1
    return chosen
