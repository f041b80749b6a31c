"""The predictor against laws that are known, and its Gaussian process against the textbook's formulas."""

from itertools import product
from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from devices.fitting import fit_rates
from devices.interval import COVERAGE
from devices.operation import Operation
from devices.predictor import (
    AMPLITUDES,
    LENGTHS_OCTAVES,
    LONE_AMPLITUDE,
    MIN_ROWS,
    NOISES,
    KernelPredictor,
    work_terms,
)
from tests.devices.rows import timed

Array = NDArray[np.float64]
GEMM_RATES = np.array([0.02, 2e-8, 3e-7, 1e-6, 4e-7])
"""ms per call, multiply-add, weight, scale and activation: about a Cortex-A72."""
ATTENTION_RATES = np.array([0.01, 0.005, 4e-8, 2e-6, 1e-6])


def gemm(m: int, k: int, n: int, group_size: int = 32) -> Operation:
    return Operation(kind="gemm", m=m, k=k, n=n, weight_bits=8, group_size=group_size)


def random_gemms(rng: np.random.Generator, count: int) -> list[Operation]:
    """Shapes as those of pruned Whispers; no two are equal."""
    found: dict[Operation, None] = {}
    while len(found) < count:
        m, k, n = (int(2 ** rng.uniform(low, high)) for low, high in ((8, 10.5), (7, 11), (7, 11)))
        found[gemm(m, k, n, int(rng.choice((16, 32, 64, 128))))] = None
    return list(found)


def points(operations: list[Operation]) -> Array:
    return np.log2([[o.heads, o.m, o.k, o.n, max(o.group_size, 1)] for o in operations])


def covariance(left: Array, right: Array, amplitude: float, length: float) -> Array:
    """One pair after the other."""
    found = np.empty((len(left), len(right)))
    for i, j in np.ndindex(found.shape):
        found[i, j] = amplitude**2 * exp(-float(((left[i] - right[j]) ** 2).sum()) / (2 * length**2))
    return found


def test_work_of_a_product_by_hand() -> None:
    m, k, n = 750, 384, 1536
    assert work_terms(gemm(m, k, n)) == (1, m * k * n, k * n, k / 32 * n, m * (k + n))
    assert work_terms(gemm(m, k, n, group_size=0)) == (1, m * k * n, k * n, 0, m * (k + n))


def test_work_of_attention_by_hand() -> None:
    operation = Operation(kind="attention", heads=6, m=750, k=64, n=500)
    assert work_terms(operation) == (1, 6, 6 * 750 * 500 * 64, 6 * 750 * 500, 6 * 1250 * 64)


@pytest.mark.parametrize(
    ("operation", "elements"),
    [
        (Operation(kind="layer_norm", m=750, n=384), 750 * 384),
        (Operation(kind="dynamic_quantise", m=750, k=384, activation_bits=8), 750 * 384),
        (Operation(kind="embedding", n=384, weight_bits=4, group_size=32), 384),
        (Operation(kind="session", n=26), 26),
    ],
)
def test_work_of_rows_by_hand(operation: Operation, elements: int) -> None:
    assert work_terms(operation) == (1, operation.m, elements)


def test_an_exact_law_is_found() -> None:
    """Times that are a sum of work, without noise: within 1 % on shapes inside of those that were seen."""
    rng = np.random.default_rng(0)
    seen, held_out = random_gemms(rng, 40), random_gemms(np.random.default_rng(1), 200)
    predictor = KernelPredictor.fit([timed(o, float(np.dot(work_terms(o), GEMM_RATES))) for o in seen])
    for operation in held_out:
        true_ms = float(np.dot(work_terms(operation), GEMM_RATES))
        assert predictor.latency(operation).ms == pytest.approx(true_ms, rel=0.01)


def test_an_exact_law_of_attention_is_found() -> None:
    rng = np.random.default_rng(0)
    operations = [
        Operation(kind="attention", heads=int(rng.integers(1, 9)), m=m, k=64, n=m)
        for m in (int(value) for value in rng.integers(250, 1500, 60))
    ]
    rows = [timed(o, float(np.dot(work_terms(o), ATTENTION_RATES))) for o in operations[:25]]
    predictor = KernelPredictor.fit(rows)
    for operation in operations[25:]:
        true_ms = float(np.dot(work_terms(operation), ATTENTION_RATES))
        assert predictor.latency(operation).ms == pytest.approx(true_ms, rel=0.01)


def smooth_law(operations: list[Operation], rng: np.random.Generator, amplitude: float, length: float) -> Array:
    """The rates' sum times a factor that is smooth in the logarithms, drawn from the process itself."""
    where = points(operations)
    squares = ((where[:, None] - where[None]) ** 2).sum(axis=2)
    joint = amplitude**2 * np.exp(-squares / (2 * length**2)) + 1e-9 * np.eye(len(operations))
    factor = np.exp(np.linalg.cholesky(joint) @ rng.standard_normal(len(operations)))
    return np.array([np.dot(work_terms(o), GEMM_RATES) for o in operations]) * factor


def test_intervals_hold_as_often_as_they_say() -> None:
    """Laws with smooth deviations and noisy rows: 90 % of held-out shapes are within the stated interval."""
    inside, within_5_percent, count = 0, 0, 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        operations = random_gemms(rng, 190)
        true_ms = smooth_law(operations, rng, amplitude=0.1, length=2.0)
        measured_ms = true_ms * np.exp(0.01 * rng.standard_normal(len(operations)))
        rows = [timed(o, float(ms), spread=0.05) for o, ms in zip(operations[:40], measured_ms, strict=False)]
        predictor = KernelPredictor.fit(rows)
        for operation, ms in zip(operations[40:], true_ms[40:], strict=True):
            found = predictor.latency(operation)
            inside += found.low_ms <= ms <= found.high_ms
            within_5_percent += abs(found.ms / ms - 1) < 0.05
            count += 1
    assert 0.80 <= inside / count <= 0.99, f"{inside / count:.3f} instead of {COVERAGE}"
    assert within_5_percent / count > 0.5  # the rates alone are off by 10 %


def test_doubt_grows_with_distance() -> None:
    rng = np.random.default_rng(3)
    operations = random_gemms(rng, 40)
    rows = [timed(o, float(ms)) for o, ms in zip(operations, smooth_law(operations, rng, 0.1, 2.0), strict=True)]
    predictor = KernelPredictor.fit(rows)
    farther = [gemm(1500, 2048 * 2**octaves, 2048 * 2**octaves) for octaves in range(6)]
    doubts = [predictor.latency(o).log_std for o in (operations[0], *farther)]
    assert doubts == sorted(doubts)
    assert doubts[0] < 0.03
    assert doubts[-1] == pytest.approx(doubts[-2], rel=0.1), "far from all rows it is that of the rates"
    assert max(AMPLITUDES) * 1.001 >= doubts[-1] >= min(AMPLITUDES)


@pytest.mark.parametrize("count", range(1, MIN_ROWS))
def test_few_rows_scale_by_work_and_say_that_they_know_little(count: int) -> None:
    rows = [timed(gemm(250 * 2**power, 384, 384), 2.0**power) for power in range(count)]
    predictor = KernelPredictor.fit(rows)
    for row in rows:
        found = predictor.latency(row.operation)
        assert found.ms == pytest.approx(row.median_ms, rel=0.02)
        assert found.log_std == LONE_AMPLITUDE
    larger = predictor.latency(gemm(4000, 384, 384)).ms
    assert rows[-1].median_ms <= larger <= 16.5


@pytest.mark.parametrize("seed", range(3))
def test_the_process_by_brute_force(seed: int) -> None:
    """Rasmussen and Williams' formulas, one linear system per question, each row really left out."""
    rng = np.random.default_rng(seed)
    operations = random_gemms(rng, 12)
    times = smooth_law(operations, rng, amplitude=0.2, length=1.5)
    spreads, repeats = rng.uniform(0, 0.2, 12), rng.integers(1, 50, 12)
    rows = [
        timed(o, float(ms), spread=float(spread), repeats=int(count))
        for o, ms, spread, count in zip(operations, times, spreads, repeats, strict=True)
    ]
    rates = fit_rates(np.array([work_terms(o) for o in operations]), times)
    residuals = np.log([ms / np.dot(work_terms(o), rates) for o, ms in zip(operations, times, strict=True)])
    where, errors = points(operations), np.array([row.std_ms / row.median_ms / sqrt(row.repeats) for row in rows])

    def at(point: Array, keep: Array, amplitude: float, length: float, noise: float) -> tuple[float, float]:
        """Equations 2.25 and 2.26."""
        known = covariance(where[keep], where[keep], amplitude, length) + np.diag(errors[keep] ** 2 + noise**2)
        towards = covariance(point[None], where[keep], amplitude, length)[0]
        mean = towards @ np.linalg.solve(known, residuals[keep])
        return float(mean), float(amplitude**2 - towards @ np.linalg.solve(known, towards))

    def left_out(amplitude: float, length: float, noise: float) -> float:
        total = 0.0
        for index in range(len(rows)):
            keep = np.arange(len(rows)) != index
            mean, variance = at(where[index], keep, amplitude, length, noise)
            variance += errors[index] ** 2 + noise**2
            total += -log(variance) / 2 - (residuals[index] - mean) ** 2 / (2 * variance)
        return total

    best = max(product(AMPLITUDES, LENGTHS_OCTAVES, NOISES), key=lambda candidate: left_out(*candidate))
    predictor = KernelPredictor.fit(rows)
    for operation in (*operations[:3], *random_gemms(rng, 5)):
        mean, variance = at(points([operation])[0], np.arange(12) >= 0, *best)
        found = predictor.latency(operation)
        assert found.ms == pytest.approx(np.dot(work_terms(operation), rates) * exp(mean), rel=1e-6)
        assert found.log_std == pytest.approx(sqrt(variance), rel=1e-4)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_any_rows_give_times_above_zero(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [timed(o, float(10 ** rng.uniform(-3, 3)), spread=0.1) for o in random_gemms(rng, count)]
    predictor = KernelPredictor.fit(rows)
    for operation in random_gemms(rng, 20):
        found = predictor.latency(operation)
        assert 0 < found.ms < float("inf")
        assert 0 <= found.log_std <= LONE_AMPLITUDE
