"""Lognormal times against the standard library's normal distribution."""

from math import exp, log
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.interval import COVERAGE, UncertainTime, Z, probability_within

milliseconds = st.floats(1e-3, 1e6)
deviations = st.floats(1e-3, 1.5)


def test_z_leaves_half_of_the_rest_on_either_side() -> None:
    assert pytest.approx(NormalDist().inv_cdf((1 + COVERAGE) / 2), rel=1e-12) == Z


@given(milliseconds, deviations)
def test_the_interval_holds_nine_times_of_ten(ms: float, log_std: float) -> None:
    time, logarithm = UncertainTime(ms=ms, log_std=log_std), NormalDist(log(ms), log_std)
    inside = logarithm.cdf(log(time.high_ms)) - logarithm.cdf(log(time.low_ms))
    assert inside == pytest.approx(0.9, abs=1e-6)
    assert time.low_ms * time.high_ms == pytest.approx(ms**2)


@given(milliseconds, deviations, milliseconds)
def test_probability_is_that_of_the_lognormal(ms: float, log_std: float, limit_ms: float) -> None:
    time = UncertainTime(ms=ms, log_std=log_std)
    found = probability_within(limit_ms, low_ms=time.low_ms, high_ms=time.high_ms)
    assert found == pytest.approx(NormalDist(log(ms), log_std).cdf(log(limit_ms)), abs=1e-9)


def test_landmarks() -> None:
    time = UncertainTime(ms=100.0, log_std=0.2)
    for limit_ms, probability in ((time.low_ms, 0.05), (100.0, 0.5), (time.high_ms, 0.95), (100 * exp(0.2), 0.8413)):
        found = probability_within(limit_ms, low_ms=time.low_ms, high_ms=time.high_ms)
        assert found == pytest.approx(probability, abs=1e-4)


def test_a_certain_time_is_within_its_limit_or_not() -> None:
    certain = UncertainTime(ms=5.0, log_std=0.0)
    assert certain.low_ms == certain.high_ms == 5.0
    assert [probability_within(limit, low_ms=5.0, high_ms=5.0) for limit in (4.9, 5.0, 5.1)] == [0.0, 1.0, 1.0]


@given(milliseconds, deviations, st.lists(milliseconds, min_size=2, max_size=5).map(sorted))
def test_a_longer_limit_is_kept_as_often_or_more(ms: float, log_std: float, limits_ms: list[float]) -> None:
    time = UncertainTime(ms=ms, log_std=log_std)
    found = [probability_within(limit, low_ms=time.low_ms, high_ms=time.high_ms) for limit in limits_ms]
    assert found == sorted(found)
