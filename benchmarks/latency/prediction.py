"""How good predicted latencies are, and which rows to fit on: for the predictor_... scripts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

_RIDGE = 1e-3
"""Start of X'X: without it, log det is that of a singular matrix until there are as many rows as rates."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Mean and median of |predicted / measured - 1|, share of rows where that is at most 0.1, rank correlation.

    `spearman` is None where all predictions or all measurements are the same.
    """

    mape: float
    median_ape: float
    within_10_percent: float
    spearman: float | None


def score(predicted: Array, measured: Array) -> Score:
    errors = np.abs(predicted / measured - 1.0)
    ranked = np.ptp(predicted) > 0.0 and np.ptp(measured) > 0.0
    return Score(
        mape=float(errors.mean()),
        median_ape=float(np.median(errors)),
        within_10_percent=float(np.mean(errors <= 0.1)),
        spearman=float(spearmanr(predicted, measured).statistic) if ranked else None,
    )


def informative_rows(works: Sequence[Array], count: int, rng: np.random.Generator) -> Rows:
    """The `count` rows whose latencies would tell most about the rates of all models; sorted. No latency is looked at.

    `works`: per model the work of each row, shape (n, f). A D-optimal design (Kiefer, Wolfowitz 1959), greedy: from a
    random quarter of the rows (so that seeds differ), each step takes the row with the largest gain in the sum over the
    models of log det X'X. X is work in units of its mean, divided by the row's sum, since the fit is of relative errors
    and no latency is known yet.
    """
    rows = len(works[0])
    pool = rng.choice(rows, max(count, rows // 4), replace=False)
    designs = [_relative(work)[pool] for work in works]
    inverses = [np.eye(design.shape[1]) / _RIDGE for design in designs]
    chosen: list[int] = []
    for _ in range(count):
        gain = np.zeros(len(pool))
        for design, inverse in zip(designs, inverses, strict=True):
            gain += np.log1p(np.einsum("ij,jk,ik->i", design, inverse, design))
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        chosen.append(best)
        inverses = [_with_row(inverse, design[best]) for design, inverse in zip(designs, inverses, strict=True)]
    return np.sort(pool[chosen])


def _relative(work: Array) -> Array:
    mean = work.mean(axis=0)
    parts = work / np.where(mean > 0.0, mean, 1.0)
    parts = parts / parts.sum(axis=1, keepdims=True)
    size = np.sqrt(np.mean(parts**2, axis=0))
    return np.asarray(parts / np.where(size > 0.0, size, 1.0))


def _with_row(inverse: Array, row: Array) -> Array:
    """The inverse of X'X when X gets a row (Sherman, Morrison 1950)."""
    image = inverse @ row
    return np.asarray(inverse - np.outer(image, image) / (1.0 + row @ image))


def least_mape(cells: Rows, measured: Array, *, at_least: int = 10) -> float | None:
    """The least MAPE of any predictor that sees no more of a row than its cell, chosen after the measurement.

    In each cell that is the constant c with the least sum of |c / t - 1|: the median weighted by 1 / t. Only rows in
    cells of `at_least` rows count, since smaller cells fit themselves; None if there are none.
    """
    errors = []
    for cell in np.unique(cells):
        times = np.sort(measured[cells == cell])
        if len(times) < at_least:
            continue
        weights = np.cumsum(1.0 / times)
        best = times[np.searchsorted(weights, weights[-1] / 2.0)]
        errors.append(np.abs(best / times - 1.0))
    return float(np.concatenate(errors).mean()) if errors else None
