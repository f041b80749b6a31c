"""The range of an activation's integer grid, from calibration speech."""

import numpy as np
from numpy.typing import NDArray

from compression.calibration.inputs import InputStatistics
from compression.recipe.recipe import RangeEstimator

PERCENTILE = 99.99
"""Percent of the values that a percentile range holds on each side: Wu et al. 2020, "Integer quantization for deep
learning inference", found 99.99 to 99.999 best for most networks."""
SHARES = np.linspace(1.0, 0.1, 46)
"""Shares of the whole range among which the least mean square error is looked for."""


def input_range(inputs: InputStatistics, *, bits: int, estimator: RangeEstimator) -> tuple[float, float]:
    """(low, high) with low <= 0 <= high.

    `minmax` holds every value that was seen. `percentile` leaves out the outermost ones, `mse` those whose clipping
    costs less than the finer steps gain in mean square error; both are judged by the rows that were kept.
    """
    low, high = min(float(inputs.low.min()), 0.0), max(float(inputs.high.max()), 0.0)
    if estimator == "percentile":
        rest = (100 - PERCENTILE) / 100
        quantiles = np.quantile(inputs.rows, [rest, 1 - rest])
        return min(float(quantiles[0]), 0.0), max(float(quantiles[1]), 0.0)
    if estimator == "mse":
        share = min(SHARES, key=lambda share: _mean_square_error(inputs.rows, low * share, high * share, bits))
        return low * float(share), high * float(share)
    return low, high


def _mean_square_error(values: NDArray[np.float32], low: float, high: float, bits: int) -> float:
    """Of rounding to 2^bits levels from low to high."""
    step = (high - low) / (2**bits - 1) or 1.0
    zero_point = np.round(-low / step)
    codes = np.clip(np.round(values / step) + zero_point, 0, 2**bits - 1)
    return float(np.mean((values - (codes - zero_point) * step) ** 2))
