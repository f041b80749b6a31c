"""Rates against the ones that made the latencies, and against SciPy's own robust least squares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

from devices.fitting import fit_rates

Array = NDArray[np.float64]


def some_work(rng: np.random.Generator, rows: int, features: int) -> Array:
    """Features of very different sizes, as multiply-adds and calls are."""
    return rng.uniform(0.2, 1.0, (rows, features)) * 10.0 ** rng.uniform(-3, 9, features)


def huber_loss(errors: Array, huber: float) -> float:
    size = np.abs(errors)
    return float(np.where(size <= huber, size**2 / 2, huber * (size - huber / 2)).sum())


@given(seed=st.integers(0, 10_000), features=st.integers(1, 5), huber=st.sampled_from([0.01, 0.05, None]))
def test_exact_latencies_give_back_their_rates(seed: int, features: int, huber: float | None) -> None:
    rng = np.random.default_rng(seed)
    work = some_work(rng, 12, features)
    rates = rng.uniform(0.1, 1.0, features) / work.mean(axis=0)
    np.testing.assert_allclose(fit_rates(work, work @ rates, huber=huber), rates, rtol=1e-6)


@pytest.mark.parametrize("huber", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(8))
def test_the_least_loss_is_that_of_scipy(seed: int, huber: float) -> None:
    rng = np.random.default_rng(seed)
    work = some_work(rng, 25, 3)
    # a rate of 0 at a bound, 10 % noise, a fifth of the rows far too slow
    times = work @ (np.array([1.0, 0.0, 2.0]) / work.mean(axis=0)) * rng.lognormal(0.0, 0.1, 25)
    times[:5] *= rng.uniform(3.0, 10.0, 5)
    relative = work / times[:, None]
    scale = relative.max(axis=0)
    other = least_squares(
        lambda x: relative / scale @ x - 1.0,
        np.ones(3),
        bounds=(0.0, np.inf),
        loss="huber",
        f_scale=huber,
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
    )
    rates = fit_rates(work, times, huber=huber)
    assert np.all(rates >= 0.0)
    ours = huber_loss(relative @ rates - 1.0, huber)
    assert ours <= huber_loss(relative / scale @ other.x - 1.0, huber) * (1 + 1e-4)


def test_without_huber_it_is_least_squares_of_the_relative_errors() -> None:
    rng = np.random.default_rng(3)
    work = rng.uniform(0.5, 2.0, (30, 4))
    times = work @ np.array([1.0, 2.0, 0.0, 3.0]) * rng.lognormal(0.0, 0.2, 30)
    expected, _ = nnls(work / times[:, None], np.ones(30))
    np.testing.assert_allclose(fit_rates(work, times, huber=None), expected, rtol=1e-9, atol=1e-12)


def test_rows_that_are_ten_times_too_slow_hardly_move_the_rates() -> None:
    rng = np.random.default_rng(1)
    work = rng.uniform(0.5, 2.0, (40, 2))
    rates = np.array([3.0, 5.0])
    times = work @ rates
    times[:8] *= 10.0
    robust, squares = (fit_rates(work, times, huber=huber) for huber in (0.01, None))
    np.testing.assert_allclose(robust, rates, rtol=0.01)
    assert np.abs(squares / rates - 1.0).max() > 3.0 * np.abs(robust / rates - 1.0).max()


@given(seed=st.integers(0, 1000), unit=st.floats(1e-6, 1e6))
def test_the_unit_of_time_is_that_of_the_rates(seed: int, unit: float) -> None:
    rng = np.random.default_rng(seed)
    work = some_work(rng, 15, 3)
    times = work @ (np.ones(3) / work.mean(axis=0)) * rng.lognormal(0.0, 0.1, 15)
    np.testing.assert_allclose(fit_rates(work, times * unit), fit_rates(work, times) * unit, rtol=1e-3)


def test_a_feature_without_work_gets_no_rate() -> None:
    work = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    np.testing.assert_array_equal(fit_rates(work, np.array([2.0, 4.0, 6.0])), [2.0, 0.0])


def test_features_that_cannot_be_told_apart_are_right_in_sum() -> None:
    one = np.array([1.0, 2.0, 5.0])
    rates = fit_rates(np.column_stack([one, 10.0 * one]), 3.0 * one)
    assert rates[0] + 10.0 * rates[1] == pytest.approx(3.0)


def test_fewer_rows_than_features_are_fitted_exactly() -> None:
    work = np.array([[1.0, 2.0, 3.0]])
    assert (work @ fit_rates(work, np.array([7.0])))[0] == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("work", "times", "huber", "message"),
    [
        (np.ones((3, 2)), np.ones(2), 0.05, r"got \(3, 2\) and \(2,\)"),
        (np.ones(3), np.ones(3), 0.05, "shape"),
        (np.ones((0, 2)), np.ones(0), 0.05, "shape"),
        (np.ones((2, 0)), np.ones(2), 0.05, "shape"),
        (np.ones((2, 1)), np.array([1.0, 0.0]), 0.05, "times must be finite and positive"),
        (np.ones((2, 1)), np.array([1.0, np.nan]), 0.05, "times must be finite and positive"),
        (-np.ones((2, 1)), np.ones(2), 0.05, "work must be finite and not negative"),
        (np.full((2, 1), np.inf), np.ones(2), 0.05, "work must be finite"),
        (np.ones((2, 1)), np.ones(2), 0.0, "huber must be positive or None, but got 0.0"),
    ],
)
def test_nonsense_is_refused(work: Array, times: Array, huber: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_rates(work, times, huber=huber)
