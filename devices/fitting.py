"""The constants of an analytic latency model, from measured latencies.

The model is time = sum over j of work_j x rate_j: work in the operations' own units (multiply-adds, bytes, calls),
rates in time per unit, none negative. Measured latencies have outliers (another process, heat, swap), so the fit
minimises a robust loss of the relative errors, not their squares.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]

_MAX_STEPS = 300
_TOLERANCE = 1e-9


def fit_rates(work: Array, times: Array, *, huber: float | None = 0.05) -> Array:
    """Rates, shape (f,), none negative, that make `work @ rates` close to `times` in relative terms.

    `work` has shape (n, f), `times` (n,) and any unit. Minimises sum_i loss(predicted_i / times_i - 1), where loss is
    Huber's (1964): e^2 / 2 up to |e| = huber, and huber x (|e| - huber / 2) beyond. None is least squares. So a row
    that is far too slow pulls no harder than one that is wrong by `huber`; one that is k times too fast pulls k times
    as hard, since its relative errors are k times those of the others. The problem is convex; it is solved by least
    squares, reweighted until the loss no longer falls.

    A feature that is 0 everywhere gets rate 0. Where features cannot be told apart (one is a multiple of another), how
    the time is split between them is arbitrary, the predictions are not. Raises ValueError for shapes that do not fit
    and values out of range.
    """
    work, times = np.asarray(work, dtype=np.float64), np.asarray(times, dtype=np.float64)
    _check(work, times, huber)
    relative = work / times[:, None]
    scale = relative.max(axis=0)
    scale[scale == 0.0] = 1.0
    return _reweighted(relative / scale, huber) / scale


def _reweighted(relative: Array, huber: float | None) -> Array:
    """Argument of the least loss of (relative @ x - 1), x >= 0: iteratively reweighted nonnegative least squares."""
    weights = np.ones(len(relative))
    best, best_loss = np.zeros(relative.shape[1]), np.inf
    for _ in range(_MAX_STEPS):
        root = np.sqrt(weights)
        solution: Array = nnls(relative * root[:, None], root)[0]
        errors = np.abs(relative @ solution - 1.0)
        loss = _loss(errors, huber)
        if loss >= best_loss * (1.0 - _TOLERANCE):
            break
        best, best_loss = solution, loss
        if huber is None:
            break
        weights = huber / np.maximum(errors, huber)
    return best


def _loss(errors: Array, huber: float | None) -> float:
    if huber is None:
        return float(np.sum(errors**2) / 2.0)
    return float(np.sum(np.where(errors <= huber, errors**2 / 2.0, huber * (errors - huber / 2.0))))


def _check(work: Array, times: Array, huber: float | None) -> None:
    if work.ndim != 2 or times.ndim != 1 or len(work) != len(times) or not work.size:
        raise ValueError(f"work must have shape (n, f) and times (n,), but got {work.shape} and {times.shape}")
    if not np.all(np.isfinite(work)) or np.any(work < 0.0):
        raise ValueError("work must be finite and not negative")
    if not np.all(np.isfinite(times)) or np.any(times <= 0.0):
        raise ValueError("times must be finite and positive")
    if huber is not None and not huber > 0.0:
        raise ValueError(f"huber must be positive or None, but got {huber}")
