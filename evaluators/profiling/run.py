"""A profile run: from a device that can be reached to its measured profile, resumable at every measurement."""

import tempfile
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import fmean
from time import monotonic

from devices.facts import DeviceDescription, RuntimeSupport
from devices.profile import DeviceProfile
from devices.profiler.base import Connection, DevicePython
from devices.profiler.describe import Check, Measured, describe
from devices.profiler.machine import CoreSet, Machine
from devices.profiler.measuring import Log, MeasuringOptions
from devices.table import LatencyTable, TableRow
from evaluators.profiling.check import Comparison, check_workloads, compare, graph_factors, whole_jobs, with_intervals
from evaluators.profiling.pool import Pool
from evaluators.profiling.random_workloads import Workload
from evaluators.profiling.table_maker import Bench, Progress, TableMaker, canary_jobs
from runtime.model import session_entries

RUNTIME = RuntimeSupport(
    name="onnxruntime",
    weight_bits=(4, 8, 16),
    embedding_bits=(4, 8, 16),
    convolution_bits=(8, 16),
    activation_bits=(8, 16, 32),
    group_sizes=(16, 32, 64, 128),
    head_multiple=1,
    channel_multiple=32,
    source="what `whisperfit export` writes; 2 bits run too, many times slower for one row (see the table)",
)
"""What a measured profile offers to a search."""
MEASURED_RUNTIME = RUNTIME.model_copy(update={"weight_bits": (2, *RUNTIME.weight_bits)})
"""What its table holds."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that was reached and looked at."""

    connection: Connection
    python: DevicePython
    machine: Machine

    def bench(self, core_set: CoreSet, threads: int, log: Log, say: Progress) -> Bench:
        """Threads pinned to the first cores of the set; sessions as `runtime` opens them."""
        saturates = "x86" in self.machine.system.machine and not any("vnni" in flag for flag in self.machine.isa)
        return Bench(
            connection=self.connection,
            settings=MeasuringOptions(
                threads=threads,
                cpus=core_set.cpus[:threads],
                session=session_entries(saturates=saturates),
                canary=canary_jobs(),
            ),
            core_set=core_set.name,
            log=log,
            tool=f"onnxruntime {self.python.onnxruntime_version}",
            say=say,
        )


@dataclass(frozen=True, kw_only=True)
class ProfilePlan:
    """What a profile run measures: `threads`: numbers of them, each a table of its own; `minutes`: for all of them."""

    models: tuple[str, ...]
    core_set: CoreSet
    threads: tuple[int, ...]
    minutes: float
    title: str


@dataclass(frozen=True, kw_only=True)
class ProfileOutcome:
    """A measured profile with the whole artifacts that it was checked against, at its own number of threads."""

    description: DeviceDescription
    rows: tuple[TableRow, ...]
    comparisons: tuple[Comparison, ...]
    refused: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _Sweep:
    """One number of threads."""

    threads: int
    rows: tuple[TableRow, ...]
    description: DeviceDescription
    comparisons: tuple[Comparison, ...]

    @property
    def slowness(self) -> float:
        """Mean logarithm of what the whole artifacts took: the artifacts are the same for every number of threads."""
        return fmean(log(comparison.measured_ms) for comparison in self.comparisons)


def profile_device(device: Device, plan: ProfilePlan, log: Log, say: Progress) -> ProfileOutcome:
    """Measure what the log lacks, and make the profile of it. Raises InputError; what was measured is in the log."""
    pool = Pool.of(plan.models, MEASURED_RUNTIME)
    _description(device, plan, plan.threads[0], Check())  # what the machine does not tell is no surprise after an hour
    workloads = check_workloads(plan.models, RUNTIME)
    started, sweeps = monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        wholes = whole_jobs(workloads, Path(folder))
        for number, threads in enumerate(plan.threads, start=1):
            say(f"{threads} threads on {plan.core_set.core}")
            bench = device.bench(plan.core_set, threads, log, say)
            until = started + 60 * plan.minutes * number / len(plan.threads)
            rows = TableMaker(bench, pool).make(until=until, beside=wholes)
            sweeps.append(_checked(bench, device, plan, workloads, rows))
    best = min(sweeps, key=lambda sweep: sweep.slowness)
    return ProfileOutcome(
        description=best.description,
        rows=tuple(row for sweep in sweeps for row in sweep.rows),
        comparisons=best.comparisons,
        refused=log.errors(),
    )


def _checked(
    bench: Bench, device: Device, plan: ProfilePlan, workloads: dict[str, Workload], rows: tuple[TableRow, ...]
) -> _Sweep:
    """The table of one number of threads beside whole artifacts, which tell its factors and its error."""
    table, threads = LatencyTable(rows=rows, file=Path("the new table")), bench.settings.threads

    def compared(description: DeviceDescription) -> tuple[Comparison, ...]:
        profile = DeviceProfile(name="new", description=description, table=table, digest="new")
        return compare(bench, workloads, profile)

    factors = graph_factors(compared(_description(device, plan, threads, Check())))
    check = with_intervals(factors, compared(_description(device, plan, threads, factors)))
    description = _description(device, plan, threads, check)
    return _Sweep(threads=threads, rows=rows, description=description, comparisons=compared(description))


def _description(device: Device, plan: ProfilePlan, threads: int, check: Check) -> DeviceDescription:
    tool = f"onnxruntime {device.python.onnxruntime_version}"
    return describe(
        Measured(
            title=plan.title,
            note=f"Measured by `whisperfit profile` with {tool} for {', '.join(plan.models)}.",
            machine=device.machine,
            core_set=plan.core_set,
            threads=threads,
            runtime=RUNTIME,
            check=check,
        )
    )
