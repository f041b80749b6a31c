"""Whole artifacts against the table that should predict them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import exp, log, sqrt
from pathlib import Path
from statistics import fmean, median

import numpy as np
from scipy.stats import t as student_t

from common.errors import InputError
from compression.dimensions import published_dimensions
from devices.facts import RuntimeSupport
from devices.fitting import fit_rates
from devices.interval import COVERAGE, UncertainTime, Z
from devices.profile import DeviceProfile
from devices.profiler.describe import Check, GraphCheck
from devices.profiler.measuring import Job
from evaluators.costs import price
from evaluators.profiling.random_workloads import Workload, random_workloads
from evaluators.profiling.table_maker import Bench
from evaluators.profiling.workload_artifacts import noise_calibration, random_model, workload_job

CHECK_SEED = 1
"""Other workloads than those whose operations are in the table."""
CHECKS = 8
"""Per model."""
LEAST_LOG_STD = 0.02
"""No table is believed to be better than this."""
LEAST_STREAM_FACTOR = 0.01


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One graph of a workload: predicted, and timed as a whole, in milliseconds.

    `part`: `encoder` or `token`. `streaming_ms`: of the prediction, what reading takes beyond the caches.
    """

    workload: str
    part: str
    predicted: UncertainTime
    measured_ms: float
    streaming_ms: float = 0.0

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
        for part, predicted, streaming_ms in (
            ("encoder", costs.encoder, 0.0),
            ("token", costs.token, costs.token_streaming_ms),
        ):
            timing = timings.of(name, part)
            if timing:
                found.append(
                    Comparison(
                        workload=name,
                        part=part,
                        predicted=predicted,
                        measured_ms=timing.median_ms,
                        streaming_ms=streaming_ms,
                    )
                )
    if not found:
        refused = bench.log.errors()
        reason = next((refused[name] for name in workloads if name in refused), "they were not timed")
        raise InputError(f"no whole artifact runs on the device, so its table cannot be checked: {reason}")
    return tuple(found)


def checked(comparisons: Sequence[Comparison]) -> Check:
    """What they say of a profile whose factors are 1: predictions with operations' own errors only."""
    encoder, decoder = ([one for one in comparisons if one.part == part] for part in ("encoder", "token"))
    stream = stream_factor(decoder)
    return Check(
        encoder=graph_check(encoder),
        decoder=graph_check([_with_streaming(one, stream) for one in decoder]),
        stream_factor=stream,
        artifacts=len(encoder),
    )


def stream_factor(comparisons: Sequence[Comparison]) -> float:
    """How much longer reading beyond the caches takes than predicted, over how much longer all the rest takes.

    From measured = a x rest + b x streaming, fitted robustly: b / a. 1 where nothing streams.
    """
    work = np.array([(one.predicted.ms - one.streaming_ms, one.streaming_ms) for one in comparisons])
    if not len(work) or not work[:, 1].any():
        return 1.0
    rest, streaming = fit_rates(work, np.array([one.measured_ms for one in comparisons]))
    return max(float(streaming / rest), LEAST_STREAM_FACTOR) if rest else 1.0


def _with_streaming(one: Comparison, factor: float) -> Comparison:
    more_ms = (factor - 1) * one.streaming_ms
    predicted = replace(one.predicted, ms=one.predicted.ms + more_ms)
    return replace(one, predicted=predicted, streaming_ms=factor * one.streaming_ms)


def graph_check(comparisons: Sequence[Comparison]) -> GraphCheck:
    """The median of measured / predicted, and the interval that holds the next measurement nine times of ten.

    What operations take when they follow each other is the factor. The interval is Student's for one more observation
    of a sample of n (half-width t s sqrt(1 + 1/n), n - 1 degrees of freedom), less what the operations' own errors
    already give.
    """
    count = len(comparisons)
    middle = median(one.log_error for one in comparisons)
    squares = sum((one.log_error - middle) ** 2 for one in comparisons) / max(count - 1, 1)
    half_width = float(student_t.ppf((1 + COVERAGE) / 2, max(count - 1, 1))) * sqrt(squares * (1 + 1 / count))
    interpolation = fmean(one.predicted.log_std**2 for one in comparisons)
    log_std = sqrt(max((half_width / Z) ** 2 - interpolation, LEAST_LOG_STD**2))
    return GraphCheck(factor=exp(middle), interval_factor=exp(Z * log_std))
