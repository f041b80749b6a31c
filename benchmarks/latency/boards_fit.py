"""Constants of the boards' model from measured rows, and FLOPs alone as a predictor.

The constants are the most probable ones (MAP): the sum of a robust loss of the rows' log errors and of the squared
distances from the priors, in units of their standard deviations, is least. So a constant that no row tells about
stays at its prior, and the many constants of few rows do not overfit.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median

import numpy as np
from boards_model import PRIORS, flops, peak_flops_per_s, predict_ms
from boards_rows import Case
from numpy.typing import NDArray
from scipy.optimize import least_squares

ROW_LOG_STD = 0.25
"""Typical error of a row, of the model's form and of the measurement."""
HUBER = 1.5
"""Errors from which a row counts linearly, in units of ROW_LOG_STD."""
MAX_STEPS = 60


def chip_group(case: Case) -> str:
    """What is left out together: all boards with the same chip (a Pi 4 and a Pi 400)."""
    return case.chip.name.split(" (")[0]


def tells_about_speed(case: Case) -> bool:
    """Rows to fit on: not those whose work is unknown, and no latencies that contain waiting."""
    stage = case.row["stage"].lower()
    return not any("size not stated" in text for text in case.assumed) and not any(
        word in stage for word in ("first inference", "response latency")
    )


def _weights(cases: Sequence[Case]) -> NDArray[np.float64]:
    """Rows of one chip, runtime and stage are hardly independent: together they weigh as the root of their number."""
    keys = [(chip_group(c), c.family, c.stage, c.debug) for c in cases]
    counts = Counter(keys)
    return np.array([counts[key] ** -0.25 for key in keys])


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What rows say: the constants with the standard deviations of their logarithms, and FLOPs' two rates.

    `flops_per_ms`: one rate for everything; `peak_share`: one share of threads x clock x float32 peak for everything;
    both are medians over the rows of Arm processors. None without such rows.
    """

    rows: int
    constants: Mapping[str, float]
    log_stds: Mapping[str, float]
    flops_per_ms: float | None
    peak_share: float | None

    def model_ms(self, case: Case) -> float:
        return predict_ms(case, self.constants)

    def flops_ms(self, case: Case) -> float | None:
        """FLOPs alone."""
        return flops(case) / self.flops_per_ms if self.flops_per_ms else None

    def peak_ms(self, case: Case) -> float | None:
        """FLOPs over the processor's peak."""
        return 1000 * flops(case) / (self.peak_share * peak_flops_per_s(case)) if self.peak_share else None


def fit(cases: Sequence[Case]) -> Fitted:
    """All constants from rows that tell about speed."""
    usable = [case for case in cases if tells_about_speed(case)]
    constants, log_stds = _fit_constants(usable)
    arm = [case for case in usable if case.chip.is_arm]
    rates = [flops(case) / case.measured_ms for case in arm]
    return Fitted(
        rows=len(usable),
        constants=constants,
        log_stds=log_stds,
        flops_per_ms=median(rates) if rates else None,
        peak_share=median(1000 * r / peak_flops_per_s(c) for r, c in zip(rates, arm, strict=True)) if rates else None,
    )


def _fit_constants(usable: Sequence[Case]) -> tuple[dict[str, float], dict[str, float]]:
    """The most probable constants and their standard deviations, by the curvature there; without cases, the priors."""
    names = list(PRIORS)
    medians = np.log([PRIORS[name].median for name in names])
    stds = np.array([PRIORS[name].log_std for name in names])
    if not usable:
        return {n: p.median for n, p in PRIORS.items()}, {n: p.log_std for n, p in PRIORS.items()}
    weights = _weights(usable)
    measured = np.log([case.measured_ms for case in usable])

    def distances(offsets: NDArray[np.float64]) -> NDArray[np.float64]:
        constants = dict(zip(names, np.exp(medians + offsets * stds).tolist(), strict=True))
        predicted = np.log([predict_ms(case, constants) for case in usable])
        return np.concatenate([_robust(weights * (predicted - measured) / ROW_LOG_STD), offsets])

    found = least_squares(distances, np.zeros(len(names)), max_nfev=MAX_STEPS, xtol=1e-4, ftol=1e-5)
    values = np.exp(medians + found.x * stds)
    spread = stds * np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))
    return dict(zip(names, values.tolist(), strict=True)), dict(zip(names, spread.tolist(), strict=True))


def _robust(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances whose squares are twice Huber's loss."""
    size = np.abs(errors)
    beyond = np.sign(errors) * np.sqrt(np.maximum(2 * HUBER * size - HUBER**2, 0))
    return np.where(size <= HUBER, errors, beyond)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of factors predicted / measured: their median, typical size, and shares within 1.5 and 2 times.

    `typical`: exp of the median |log factor|; `ninety`: the factor within which 90 % of the rows are.
    """

    rows: int
    median_factor: float
    typical: float
    within_1_5: float
    within_2: float
    ninety: float


def agreement(factors: Sequence[float]) -> Agreement | None:
    """None without rows."""
    if not factors:
        return None
    sizes = [abs(log(factor)) for factor in factors]
    return Agreement(
        rows=len(factors),
        median_factor=median(factors),
        typical=exp(median(sizes)),
        within_1_5=sum(size <= log(1.5) for size in sizes) / len(sizes),
        within_2=sum(size <= log(2) for size in sizes) / len(sizes),
        ninety=exp(float(np.quantile(sizes, 0.9))),
    )
