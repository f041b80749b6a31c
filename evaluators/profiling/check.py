"""Whole artifacts against the table that should predict them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import exp, log, sqrt
from pathlib import Path
from statistics import fmean, median

from scipy.stats import t as student_t

from common.errors import InputError
from compression.recipe.dimensions import published_dimensions
from devices.facts import RuntimeSupport
from devices.interval import COVERAGE, UncertainTime, Z
from devices.profile import DeviceProfile
from devices.profiler.describe import Check, GraphCheck
from devices.profiler.measuring import Job
from evaluators.costs.price import price
from evaluators.profiling.random_workloads import Workload, random_workloads
from evaluators.profiling.table_maker import Bench
from evaluators.profiling.workload_artifacts import noise_calibration, random_model, workload_job

CHECK_SEED = 1
"""Other workloads than those whose operations are in the table."""
CHECKS = 8
"""Per model."""
PARTS = ("encoder", "token")
LEAST_LOG_STD = 0.02
"""No table is believed to be better than this."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One graph of a workload: predicted, and timed as a whole, in milliseconds.

    `part`: `encoder` or `token`. `factor`: of the graph, with which the prediction would have been right.
    """

    workload: str
    part: str
    predicted: UncertainTime
    measured_ms: float
    factor: float

    @property
    def log_error(self) -> float:
        """ln(measured / predicted)."""
        return log(self.measured_ms / self.predicted.ms)


def check_workloads(models: Sequence[str], runtime: RuntimeSupport) -> dict[str, Workload]:
    """By name."""
    return {
        f"{name}-{number}": workload
        for name in models
        for number, workload in enumerate(
            islice(random_workloads(published_dimensions(name), runtime, seed=CHECK_SEED), CHECKS)
        )
    }


def whole_jobs(workloads: dict[str, Workload], folder: Path) -> tuple[Job, ...]:
    """Each workload's recipe, exported below `folder` with random weights."""
    jobs = []
    for name, workload in workloads.items():
        model = random_model(name, workload.dimensions)
        jobs.append(workload_job(name, workload, model, noise_calibration(model), folder / name))
    return tuple(jobs)


def compare(bench: Bench, workloads: dict[str, Workload], profile: DeviceProfile) -> tuple[Comparison, ...]:
    """Prediction and measurement of every workload that was timed. Raises InputError when none was."""
    timings, found = bench.timings(), []
    for name, w in workloads.items():
        costs = price(w.dimensions, w.recipe, profile, audio_s=w.audio_s, tokens=w.tokens)
        operations_ms = {"encoder": costs.encoder.ms / profile.encoder_factor, "token": costs.token_operations_ms}
        for part, alone_ms in operations_ms.items():
            timing = timings.of(name, part)
            if timing:
                ms = timing.median_ms
                extra_ms = profile.streams.extra_ms(costs.token_reads, ms) if part == "token" else 0.0
                found.append(
                    Comparison(
                        workload=name,
                        part=part,
                        predicted=getattr(costs, part),
                        measured_ms=ms,
                        factor=ms / (alone_ms + extra_ms),
                    )
                )
    if not found:
        refused = bench.log.errors()
        reason = next((refused[name] for name in workloads if name in refused), "they were not timed")
        raise InputError(f"no whole artifact runs on the device, so its table cannot be checked: {reason}")
    return tuple(found)


def graph_factors(comparisons: Sequence[Comparison]) -> Check:
    """Factors with which predictions are as often too small as too large; nothing of intervals yet."""
    encoder, decoder = (
        GraphCheck(factor=median(comparison.factor for comparison in comparisons if comparison.part == part))
        for part in PARTS
    )
    return Check(encoder=encoder, decoder=decoder, artifacts=len(comparisons) // len(PARTS))


def with_intervals(check: Check, comparisons: Sequence[Comparison]) -> Check:
    """`comparisons`: of a profile with the check's factors, predictions having the operations' own errors only."""
    encoder, decoder = ([comparison for comparison in comparisons if comparison.part == part] for part in PARTS)
    return replace(
        check,
        encoder=replace(check.encoder, interval_factor=interval_factor(encoder)),
        decoder=replace(check.decoder, interval_factor=interval_factor(decoder)),
    )


def interval_factor(comparisons: Sequence[Comparison]) -> float:
    """The interval about predictions that holds the next measurement nine times of ten.

    It is Student's for one more observation of a sample of n (half-width t s sqrt(1 + 1/n), n - 1 degrees of freedom),
    less what the operations' own errors already give.
    """
    count = len(comparisons)
    middle = median(comparison.log_error for comparison in comparisons)
    squares = sum((comparison.log_error - middle) ** 2 for comparison in comparisons) / max(count - 1, 1)
    half_width = float(student_t.ppf((1 + COVERAGE) / 2, max(count - 1, 1))) * sqrt(squares * (1 + 1 / count))
    interpolation = fmean(comparison.predicted.log_std**2 for comparison in comparisons)
    return exp(Z * sqrt(max((half_width / Z) ** 2 - interpolation, LEAST_LOG_STD**2)))
