"""Intervals against formulas, scipy, and how often they hold the truth in simulated sets."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from evaluators.accuracy.intervals import effective_words, rate_interval, resampled_interval

UNITS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 40)), min_size=1, max_size=12)


def columns(units: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    errors, words = zip(*units, strict=True)
    return np.array(errors), np.array(words)


@given(units=UNITS)
def test_the_rate_is_inside_and_no_side_is_narrower_than_the_bootstraps(units: list[tuple[int, int]]) -> None:
    errors, words = columns(units)
    low, high = rate_interval(errors, words, seed=0)
    boot_low, boot_high = resampled_interval(errors, words, seed=0)
    assert 0 <= low <= errors.sum() / words.sum() <= high
    assert low <= boot_low
    assert high >= boot_high
    assert low < high


def test_faultless_clips_are_not_certain_and_more_of_them_are_more_so() -> None:
    """Without errors it is Wilson's for n words over (t / z)^2: z^2 / (n + z^2)."""
    highs = []
    for clips in (1, 2, 3, 5, 10, 30, 100):
        low, high = rate_interval(np.zeros(clips, dtype=int), np.full(clips, 20), seed=0)
        n = 20 * clips * (1.959964 / t.ppf(0.975, max(1, clips - 1))) ** 2
        assert low == 0
        assert high == pytest.approx(1.959964**2 / (n + 1.959964**2), rel=1e-5)
        highs.append(high)
    assert all(before > after for before, after in pairwise(highs))
    assert highs[2] == pytest.approx(0.236, abs=0.001)


def test_of_many_units_whose_words_err_independently_it_is_wilsons() -> None:
    """A thousand units with as many errors each as any other: no design effect."""
    errors, words = np.ones(1000, dtype=int), np.full(1000, 20)
    assert effective_words(errors, words) == pytest.approx(20_000, rel=3e-3)
    expected = binomtest(1000, 20_000).proportion_ci(0.95, method="wilson")
    low, high = rate_interval(errors, words, seed=0)
    assert (low, high) == (pytest.approx(expected.low, rel=1e-3), pytest.approx(expected.high, rel=1e-3))


def test_the_design_effect_is_the_variance_between_units_over_that_of_words() -> None:
    """Half of the units all wrong, half all right: a unit tells as much as one word."""
    units, each = 400, 25
    errors, words = np.repeat([0, each], units // 2), np.full(units, each)
    factor = (t.ppf(0.975, units - 1) / 1.959964) ** 2
    assert effective_words(errors, words) == pytest.approx((units - 1) / factor, rel=1e-4)


def test_on_a_large_set_it_is_that_of_the_ratio_estimator() -> None:
    """Cochran, Sampling Techniques, 1977, 6.4: var(R) = sum((e - R w)^2) / (n (n - 1) mean(w)^2), by unit."""
    rng, units = np.random.default_rng(1), 400
    errors, words = rng.integers(0, 15, units), rng.integers(24, 90, units)
    ratio = errors.sum() / words.sum()
    deviation = np.sqrt(((errors - ratio * words) ** 2).sum() / (units * (units - 1))) / words.mean()
    low, high = rate_interval(errors, words, seed=3)
    assert low == pytest.approx(ratio - 1.96 * deviation, abs=0.15 * deviation)
    assert high == pytest.approx(ratio + 1.96 * deviation, abs=0.15 * deviation)


def test_more_errors_than_words_stay_inside() -> None:
    low, high = rate_interval(np.array([30, 10]), np.array([10, 10]), seed=0)
    assert low < 1
    assert high >= 2


def test_two_units_say_little_and_units_without_words_nothing() -> None:
    low, high = rate_interval(np.array([1, 4]), np.array([10, 10]), seed=0)
    assert low < 0.1
    assert high > 0.4
    alone = rate_interval(np.array([1, 0]), np.array([4, 0]), seed=0)
    assert alone[0] < 0.25 < alone[1]


@pytest.mark.parametrize(
    ("units", "words", "rate", "alike"),
    [
        (1, 15, 0.05, 20),
        (3, 15, 0.02, 20),
        (3, 15, 0.05, 20),
        (3, 15, 0.2, 20),
        (3, 60, 0.05, 5),
        (10, 20, 0.02, 20),
        (10, 20, 0.05, 20),
        (10, 100, 0.05, 20),
        (10, 100, 0.2, 5),
        (40, 30, 0.05, 20),
    ],
)
def test_in_simulated_sets_nine_of_ten_intervals_hold_the_truth(
    units: int, words: int, rate: float, alike: float
) -> None:
    """Each unit has its own rate (beta; the smaller `alike`, the more they differ), its words err by it."""
    rng, runs, held, held_by_bootstrap = np.random.default_rng(0), 300, 0, 0
    for run in range(runs):
        spoken = rng.integers(words // 2, 3 * words // 2 + 1, units)
        errors = rng.binomial(spoken, rng.beta(rate * alike, (1 - rate) * alike, units))
        low, high = rate_interval(errors, spoken, seed=run)
        held += low <= rate <= high
        low, high = resampled_interval(errors, spoken, seed=run)
        held_by_bootstrap += low <= rate <= high
    assert held / runs >= 0.9
    assert held >= held_by_bootstrap
