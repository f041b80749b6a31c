"""The table that is made of a device whose times follow a law: what is measured, in which order, and how well."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import exp, inf, log, log2, sin
from pathlib import Path
from statistics import fmean, median

import numpy as np
import pytest

from devices.operation import Operation
from devices.predictor import KernelPredictor, work_terms
from devices.profiler.measuring import Job, MeasuringOptions, Timing, artifact_job
from devices.streams import STREAMS, streamed_bytes
from devices.table import LatencyTable, TableRow
from evaluators.profiling import operation_models, table_maker
from evaluators.profiling.operation_models import operation_model
from evaluators.profiling.pool import Pool, kernel_of
from evaluators.profiling.random_workloads import random_workloads
from evaluators.profiling.run import MEASURED_RUNTIME
from evaluators.profiling.table_maker import BATCH, ENOUGH_LOG_STD, TableMaker, canary_jobs
from tests.strategies import small_dimensions

RATES_MS = {5: (0.02, 3e-8, 3e-7, 1e-6, 4e-7), 3: (0.01, 1e-4, 2e-6)}
NAME = re.compile(r"(\w+)-(\d+)x(\d+)x(\d+)x(\d+)-w(\d+)a(\d+)g(\d+)")


def operation_of(name: str) -> Operation:
    found = NAME.fullmatch(name)
    assert found, name
    heads, m, k, n, weight_bits, activation_bits, group_size = map(int, found.groups()[1:])
    return Operation(
        kind=found[1],
        heads=heads,
        m=m,
        k=k,
        n=n,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        group_size=group_size,
    )


def law_ms(operation: Operation) -> float:
    """Rates times work, and waves over the logarithms of the shape that the rates cannot tell."""
    o = operation
    if o.kind == "session":
        return 0.05 + 0.002 * o.n
    if o.kind in STREAMS:
        return 0.04 * o.n
    terms = work_terms(o)
    rates = (0.01, 0.004, 4e-8, 1e-6, 1e-6) if "attention" in o.kind else RATES_MS[len(terms)]
    waves = 0.25 * sin(1.4 * log2(o.m) + 1.8 * log2(o.k) + 2.2 * log2(o.n) + o.weight_bits)
    return float(np.dot(terms, rates)) * exp(waves)


def run_ms(operation: Operation) -> float:
    """A run of an operation's model: the session, and the copies."""
    if operation.kind == "session":
        return law_ms(operation)
    model = operation_model(operation)
    copies = 1 if operation.kind in STREAMS else model.copies
    return law_ms(Operation(kind="session", n=model.values)) + copies * law_ms(operation)


WHOLE = artifact_job("whole", Path("nowhere"), mel=(1, 80, 400), steps=5, token=1)


@dataclass
class LawBench:
    """Times every operation exactly as the law says; `refused` kinds have none."""

    refused: tuple[int, ...] = ()
    calls: list[list[Operation]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    known_ms: dict[str, float] = field(default_factory=dict)
    wholes: int = 0
    settings = MeasuringOptions(threads=2, cpus=None, session={}, canary=())
    core_set = "law"
    tool = "law 1.0"

    def time(self, jobs: Sequence[Job]) -> None:
        self.calls.append([operation_of(job.id) for job in jobs if job is not WHOLE])
        self.wholes += WHOLE in jobs
        for job in jobs:
            if job is WHOLE:
                continue
            operation = operation_of(job.id)
            if operation.weight_bits not in self.refused and job.id not in self.known_ms:
                self.known_ms[job.id] = run_ms(operation)

    def timings(self) -> "LawBench":
        return self

    def of(self, name: str) -> Timing | None:
        ms = self.known_ms.get(name)
        return None if ms is None else Timing(median_ms=ms, mean_ms=ms, std_ms=0.02 * ms, min_ms=0.97 * ms, repeats=32)

    def say(self, text: str) -> None:
        self.said.append(text)


@dataclass
class GivenPool:
    """`first` is measured, `counts` are the workloads."""

    first: list[Operation]
    counts: tuple[Counter[Operation], ...] = ()

    def first_operations(self) -> list[Operation]:
        return self.first

    def streams(self) -> list[Operation]:
        return [Operation(kind="stream")]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few copies: what is made of them is tested with the models themselves."""
    monkeypatch.setattr(operation_models, "MAX_COPIES", 3)


SESSIONS = [Operation(kind="session", n=n) for n in (1, 5, 9, 26, 60, 194)]


@pytest.fixture(scope="module")
def pool() -> Pool:
    dimensions = small_dimensions(layers=2, state=256, heads=4)
    return Pool(workloads=tuple(islice(random_workloads(dimensions, MEASURED_RUNTIME, seed=0), 15)))


def measured(bench: LawBench) -> set[Operation]:
    return {operation for call in bench.calls for operation in call}


def streams(pool: Pool | GivenPool) -> list[Operation]:
    return [replace(stream, n=megabytes) for stream in pool.streams() for megabytes in table_maker.STREAMS_MB]


def test_rows_are_the_law_without_the_session(pool: Pool) -> None:
    bench = LawBench()
    rows = TableMaker(bench, pool).make(until=-inf)
    assert {row.operation for row in rows} == measured(bench) == set(streams(pool)) | set(pool.first_operations())
    for row in rows:
        assert row.median_ms == pytest.approx(law_ms(row.operation), rel=2e-3), row
        assert row.mean_ms == pytest.approx(row.median_ms)
        assert row.relative_spread == pytest.approx(0.02)
        assert row.min_ms == pytest.approx(0.97 * row.median_ms)
        assert (row.threads, row.core_set, row.repeats, row.tool) == (2, "law", 32, "law 1.0")
    LatencyTable(rows=rows, file=Path(table_maker.__file__)).check()


def test_what_a_model_takes_beside_its_operation_never_is_all_of_it() -> None:
    """An operation that is lost in the noise of the fixed cost keeps a tenth of the time."""
    tiny = Operation(kind="gelu", n=32)
    bench = LawBench()
    bench.known_ms["gelu-1x1x1x32-w32a32g0"] = 0.9 * law_ms(Operation(kind="session", n=operation_model(tiny).values))
    rows = TableMaker(bench, GivenPool(first=[*SESSIONS, tiny])).make(until=-inf)
    (row,) = (row for row in rows if row.op == "gelu")
    executions = operation_model(tiny).copies
    assert row.median_ms == pytest.approx(0.1 * bench.known_ms["gelu-1x1x1x32-w32a32g0"] / executions)


def doubts(rows: Sequence[TableRow], pool: Pool) -> tuple[Counter[Operation], float]:
    """Sum over the workloads of an operation's share of the time times its error; half of the workloads' errors."""
    groups: dict[object, list[TableRow]] = {}
    for row in rows:
        groups.setdefault(kernel_of(row.operation), []).append(row)
    predictors = {kernel: KernelPredictor.fit(group) for kernel, group in groups.items()}
    found: Counter[Operation] = Counter()
    errors = []
    for counts in pool.counts:
        priced = {o: predictors[kernel_of(o)].latency(o) for o in counts if kernel_of(o) in predictors}
        whole = sum(counts[o] * time.ms for o, time in priced.items())
        parts = {o: counts[o] * time.ms / whole * time.log_std for o, time in priced.items()}
        found.update(parts)
        errors.append(sum(parts.values()))
    return found, median(errors)


def test_rounds_take_the_most_doubtful_operations_of_many_kernels(pool: Pool) -> None:
    bench = LawBench()
    maker = TableMaker(bench, pool)
    doubtful, error = doubts(maker.make(until=-inf), pool)
    first = measured(bench)
    assert error > ENOUGH_LOG_STD
    bench.calls.clear()
    maker.make(until=inf)
    batch = bench.calls[1]
    assert bench.said[0] == f"workloads are interpolated within {error:.1%}; measuring on"
    assert len(batch) == len(set(batch)) == BATCH
    assert not set(batch) & first
    left = {operation: doubt for operation, doubt in doubtful.items() if operation not in first and doubt > 0}
    assert max(left, key=left.__getitem__) in batch
    taken = Counter(kernel_of(operation) for operation in batch)
    for operation, doubt in left.items():
        kernel = kernel_of(operation)
        if operation in batch:
            continue
        # of its own kernel the more doubtful ones were taken, and no kernel got two more than this one
        assert all(left[timed] >= doubt for timed in batch if kernel_of(timed) == kernel)
        assert taken[kernel] >= max(taken.values()) - 1


def workload_error(rows: Sequence[TableRow], pool: Pool) -> float:
    """Mean error of the workloads' whole times against the law."""
    groups: dict[object, list[TableRow]] = {}
    for row in rows:
        groups.setdefault(kernel_of(row.operation), []).append(row)
    predictors = {kernel: KernelPredictor.fit(group) for kernel, group in groups.items()}
    errors = []
    for counts in pool.counts:
        predicted = sum(counts[o] * predictors[kernel_of(o)].latency(o).ms for o in counts)
        errors.append(abs(log(predicted / sum(counts[o] * law_ms(o) for o in counts))))
    return fmean(errors)


def test_rounds_stop_when_the_workloads_are_certain_and_then_they_are_right(pool: Pool) -> None:
    bench = LawBench()
    maker = TableMaker(bench, pool)
    before = maker.make(until=-inf)
    after = maker.make(until=inf)
    assert doubts(before, pool)[1] > ENOUGH_LOG_STD >= doubts(after, pool)[1]
    assert workload_error(after, pool) < workload_error(before, pool)
    assert workload_error(after, pool) < ENOUGH_LOG_STD
    assert len(measured(bench) - set(streams(pool))) < 0.8 * len(pool.operations)


def test_no_round_begins_after_the_time_is_up(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 20.0, 30.0])
    monkeypatch.setattr(table_maker, "monotonic", lambda: next(clock))
    bench = LawBench()
    TableMaker(bench, pool).make(until=15.0)
    assert len(bench.calls) == 3  # the first operations, and two rounds


def test_other_jobs_are_timed_beside_the_first_operations() -> None:
    bench, pool = LawBench(), GivenPool(first=SESSIONS)
    maker = TableMaker(bench, pool)
    rows = maker.make(until=-inf, beside=[WHOLE])
    assert bench.wholes == 1
    assert {row.op for row in rows} == {"session", "stream"}
    assert [operation_of(job.id) for job in maker.first_jobs()] == [*streams(pool), *SESSIONS]


def test_operations_without_doubt_are_not_measured() -> None:
    products = [Operation(kind="gemm", m=m, k=256, n=256) for m in (100, 200, 400, 800)]
    counts = Counter(products)
    counts[Operation(kind="gemv", k=256, n=256, weight_bits=2, group_size=32)] = 1
    bench = LawBench(refused=(2,))
    unknown = Operation(kind="gemv", k=256, n=512, weight_bits=2, group_size=32)
    rows = TableMaker(bench, GivenPool(first=[*SESSIONS, *products, unknown], counts=(counts,))).make(until=inf)
    assert len(bench.calls) == 1
    assert unknown not in {row.operation for row in rows}


def test_the_canary_is_one_load_of_arithmetic_and_one_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (operation_of(job.id) for job in canary_jobs())
    assert (first.kind, second.kind) == ("gemm", "gemv")
    assert first.m * first.k * first.n / (first.k * first.n) > 100  # uses every weight many times
    monkeypatch.undo()
    assert operation_model(second).copies * streamed_bytes(second) >= 32e6
