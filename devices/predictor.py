"""The latency of an operation from the rows of a table that ran the same kernel: docs/devices.md has the formulas.

Two steps. The time is a sum of what a kernel does, overhead, arithmetic, weights and activations, with rates fitted to
the rows (`devices.fitting`). What that leaves is smooth in the shape's logarithms, where a Gaussian process
interpolates it and says how sure it is: little near a row, as unsure as the rates far from all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, log, sqrt
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from devices.fitting import fit_rates
from devices.interval import UncertainTime
from devices.operation import Operation, OperationKind
from devices.table import TableRow

Array = NDArray[np.float64]

AMPLITUDES = (0.03, 0.1, 0.3)
LENGTHS_OCTAVES = (1.0, 2.0, 4.0)
NOISES = (0.005, 0.02, 0.06)
"""Candidates for the Gaussian process: relative size of what the rates leave, over how many doublings of a dimension it
stays alike, and relative error of a row beside its own standard error."""
LONE_AMPLITUDE = 0.3
"""Where fewer rows than this many tell nothing about the amplitude."""
MIN_ROWS = 4


def _product_work(o: Operation) -> tuple[float, ...]:
    groups = o.k / o.group_size if o.group_size else 0.0
    return (1.0, o.m * o.k * o.n, o.k * o.n, groups * o.n, o.m * (o.k + o.n))


def _attention_work(o: Operation) -> tuple[float, ...]:
    return (1.0, o.heads, o.heads * o.m * o.n * o.k, o.heads * o.m * o.n, o.heads * (o.m + o.n) * o.k)


def _rows_work(o: Operation) -> tuple[float, ...]:
    return (1.0, o.m, o.m * o.k * o.n)


_WORK: dict[OperationKind, Callable[[Operation], tuple[float, ...]]] = {
    "gemm": _product_work,
    "gemv": _product_work,
    "convolution": _product_work,
    "attention": _attention_work,
    "cached_attention": _attention_work,
    "cross_attention": _attention_work,
}


def work_terms(operation: Operation) -> tuple[float, ...]:
    """What an operation's time is a sum of, up to rates: a call first, then counts of elements or multiply-adds."""
    return _WORK.get(operation.kind, _rows_work)(operation)


def _logarithms(operation: Operation) -> tuple[float, ...]:
    o = operation
    return (log(o.heads, 2), log(o.m, 2), log(o.k, 2), log(o.n, 2), log(max(o.group_size, 1), 2))


@dataclass(frozen=True, kw_only=True)
class _Process:
    """A Gaussian process over the shapes' logarithms (Rasmussen and Williams 2006, equations 2.25 and 2.26).

    `shapes` (n, 5), `weights` (n,) = K^-1 y and `inverse` (n, n) = K^-1, where K holds the covariances
    amplitude^2 exp(-d^2 / (2 length^2)) of the rows and the variances of their errors.
    """

    shapes: Array
    amplitude: float
    length: float
    inverse: Array
    weights: Array

    @classmethod
    def fit(cls, shapes: Array, residuals: Array, standard_errors: Array) -> Self:
        """Of all candidates, the one that predicts each row best from the others (ibid., equations 5.10 to 5.12)."""
        candidates = [
            cls._of(shapes, residuals, standard_errors**2 + noise**2, amplitude, length)
            for amplitude, length, noise in product(AMPLITUDES, LENGTHS_OCTAVES, NOISES)
        ]
        return max(candidates, key=lambda process: process._leave_one_out(residuals))

    @classmethod
    def _of(cls, shapes: Array, residuals: Array, variances: Array, amplitude: float, length: float) -> Self:
        covariance = _covariance(shapes, shapes, amplitude, length) + np.diag(variances)
        inverse = cho_solve(cho_factor(covariance), np.eye(len(shapes)))
        return cls(shapes=shapes, amplitude=amplitude, length=length, inverse=inverse, weights=inverse @ residuals)

    def _leave_one_out(self, residuals: Array) -> float:
        variances = 1 / np.diag(self.inverse)
        errors = self.weights * variances
        return float(-np.sum(np.log(variances) + errors**2 / variances))

    def at(self, shape: Array) -> tuple[float, float]:
        """Mean and standard deviation at one shape (5,)."""
        covariance = _covariance(shape[None], self.shapes, self.amplitude, self.length)[0]
        variance = self.amplitude**2 - covariance @ self.inverse @ covariance
        return float(covariance @ self.weights), sqrt(max(float(variance), 0.0))


def _covariance(left: Array, right: Array, amplitude: float, length: float) -> Array:
    squares = ((left[:, None, :] - right[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(amplitude**2 * np.exp(-squares / (2 * length**2)))


@dataclass(frozen=True, kw_only=True)
class KernelPredictor:
    """Times of one kernel: `rates` in ms per term of work, and what they leave, if there are rows enough to tell."""

    rates: Array
    process: _Process | None

    @classmethod
    def fit(cls, rows: Sequence[TableRow]) -> Self:
        """From the rows of one kernel class, in any order."""
        operations = [row.operation for row in rows]
        work = np.array([work_terms(operation) for operation in operations], dtype=np.float64)
        times = np.array([row.median_ms for row in rows])
        rates = fit_rates(work, times)
        if len(rows) < MIN_ROWS:
            return cls(rates=rates, process=None)
        residuals = np.log(times / (work @ rates))
        shapes = np.array([_logarithms(operation) for operation in operations])
        errors = np.array([row.relative_spread / sqrt(max(row.repeats, 1)) for row in rows])
        return cls(rates=rates, process=_Process.fit(shapes, residuals, errors))

    def latency(self, operation: Operation) -> UncertainTime:
        ms = float(np.dot(work_terms(operation), self.rates))
        if self.process is None:
            return UncertainTime(ms=ms, log_std=LONE_AMPLITUDE)
        residual, deviation = self.process.at(np.array(_logarithms(operation)))
        return UncertainTime(ms=ms * exp(residual), log_std=deviation)
