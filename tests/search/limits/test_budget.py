from dataclasses import replace
from math import exp, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import lognorm

from common.errors import InputError
from evaluators.accuracy.error_rate import ErrorRate
from search.limits.budget import CostLimits, Objective, WerBudget
from search.trial import TrialCosts

COSTS = TrialCosts(
    size_mb=40,
    flops_g=6,
    latency_ms=500,
    latency_low_ms=400,
    latency_high_ms=700,
    rtf=0.05,
    peak_memory_mb=90,
    energy_mj=300,
    parameters_m=37,
    source="estimated",
    energy_above_idle_mj=200,
    occupancy=0.12,
)


def rate(errors: int, words: int) -> ErrorRate:
    return ErrorRate(errors=errors, words=words, low=0.0, high=1.0)


@pytest.mark.parametrize(
    ("text", "errors", "allowed"),
    [
        ("8.5%", 50, 85),
        ("8.5%", 500, 85),
        (" 500 % ", 50, 5000),
        ("0%", 50, 0),
        ("+10%", 50, 55),
        ("+10%", 59, 64),  # 64.9
        ("+0%", 50, 50),
        ("+ 10%", 50, None),
        ("+10 %", 0, 0),
        ("+150%", 40, 100),
    ],
)
def test_limit_of_a_thousand_words(text, errors, allowed):
    if allowed is None:
        with pytest.raises(InputError, match="write 8.5%"):
            WerBudget.parse(text)
    else:
        assert WerBudget.parse(text).limit(rate(errors, 1000)).errors == allowed


def test_the_issues_example():
    """181 errors in 2,544 words: +10 % are 199.1, so 199."""
    limit = WerBudget.parse("+10%").limit(rate(181, 2544))
    assert (limit.errors, limit.allows(199), limit.allows(200)) == (199, True, False)
    assert limit.wer == pytest.approx(1.1 * 181 / 2544)


def test_with_no_room_the_original_itself_is_always_within_the_budget():
    """Every pair up to 220 words; by rates in floating point 5.6 % of them were not."""
    budget, lost = WerBudget.parse("+0%"), 0
    for words in range(1, 221):
        for errors in range(words + 3):
            limit = budget.limit(rate(errors, words))
            lost += not limit.allows(errors) or limit.violation(errors) > 0 or limit.allows(errors + 1)
    assert lost == 0


@given(
    hundredths=st.integers(0, 30_000),
    is_relative=st.booleans(),
    words=st.integers(1, 10_000),
    errors=st.integers(0, 2_000),
    near=st.integers(-2, 2),
)
def test_within_the_budget_is_decided_by_whole_numbers(hundredths, is_relative, words, errors, near):
    """The same by integers alone: errors x 10,000 <= baseline x (10,000 + hundredths of a percent)."""
    text = f"{'+' if is_relative else ''}{hundredths // 100}.{hundredths % 100:02}%"
    limit = WerBudget.parse(text).limit(rate(errors, words))
    top = errors * (10_000 + hundredths) if is_relative else words * hundredths
    found = max(0, top // 10_000 + near)
    assert limit.allows(found) == (found * 10_000 <= top)
    assert (limit.violation(found) <= 0) == limit.allows(found)
    assert limit.errors == top // 10_000
    assert limit.keeps(rate(found, words)) == limit.allows(found)


@pytest.mark.parametrize("text", ["", "%", "10", "0.1", "+10", "8,5%", "1e3%", "nan%", "inf%", "ten%", "+-5%", "5%%"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(InputError, match="write 8.5%"):
        WerBudget.parse(text)


@pytest.mark.parametrize("text", ["-5%", "-0.1 %"])
def test_a_negative_budget_says_so(text):
    with pytest.raises(InputError, match=f"WER budget '{text}' is negative"):
        WerBudget.parse(text)


@given(alpha=st.floats(0, 100), beta=st.floats(0.01, 100))
def test_objective_of_the_original_is_the_sum_of_the_weights(alpha, beta):
    objective = Objective.parse(f"{alpha},{beta}")
    assert objective == Objective(alpha=alpha, beta=beta)
    assert objective.value(COSTS, COSTS) == pytest.approx(alpha + beta)


def test_objective_weighs_size_and_flops_apart():
    costs = replace(COSTS, size_mb=COSTS.size_mb / 4, flops_g=COSTS.flops_g / 2)
    assert Objective.parse("1,0").value(costs, COSTS) == pytest.approx(1 / 4)
    assert Objective.parse("0, 1").value(costs, COSTS) == pytest.approx(1 / 2)
    assert Objective.parse("0.5,0.5").value(costs, COSTS) == pytest.approx(3 / 8)


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "1;2", "-1,2", "0,0", "nan,1", "inf,0"])
def test_what_is_no_objective_is_refused(text):
    with pytest.raises(InputError, match="objective"):
        Objective.parse(text)


def test_violations_are_relative_and_only_of_limits_that_exist():
    limits = CostLimits(max_memory_mb=100, max_size_mb=32, max_rtf=0.05)
    assert limits.violations(COSTS) == pytest.approx({"memory": -0.1, "size": 0.25, "rtf": 0.0})
    assert CostLimits(max_memory_mb=inf, max_latency_ms=400).violations(COSTS) == pytest.approx(
        {"memory": -1.0, "latency": 0.25}
    )
    assert CostLimits(max_memory_mb=100, max_occupancy=0.15).violations(COSTS) == pytest.approx(
        {"memory": -0.1, "occupancy": -0.2}
    )


def uncertain(log_std: float) -> TrialCosts:
    """500 ms with that relative error, as the costs of a profile state it: 90 % within."""
    factor = lognorm(s=log_std).ppf(0.95) if log_std else 1.0
    return replace(COSTS, latency_low_ms=500 / factor, latency_high_ms=500 * factor)


@given(
    log_std=st.floats(0.01, 0.8),
    confidence=st.floats(0.02, 0.98),
    limit=st.sampled_from(
        [("latency", "max_latency_ms", 500), ("rtf", "max_rtf", 0.05), ("occupancy", "max_occupancy", 0.12)]
    ),
    ratio=st.floats(0.3, 3),
)
def test_limits_on_time_hold_with_the_asked_probability(log_std, confidence, limit, ratio):
    name, option, median = limit
    limits = CostLimits(max_memory_mb=100, latency_confidence=confidence, **{option: ratio * median})
    time = lognorm(s=log_std, scale=median)
    costs = uncertain(log_std)
    assert limits.violations(costs)[name] == pytest.approx(time.ppf(confidence) / (ratio * median) - 1, abs=1e-9)
    assert limits.probability(costs) == pytest.approx(time.cdf(ratio * median), abs=1e-9)


def test_one_probability_is_that_of_the_tightest_limit_on_time():
    costs = uncertain(0.3)
    limits = CostLimits(max_memory_mb=1, max_latency_ms=500 * exp(0.3), max_rtf=0.05, max_occupancy=0.12 * exp(0.6))
    assert limits.probability(costs) == pytest.approx(0.5)
    assert replace(limits, max_rtf=None).probability(costs) == pytest.approx(0.841344746, abs=1e-9)  # one sigma
    assert CostLimits(max_memory_mb=1, max_size_mb=1).probability(costs) is None


def test_the_median_is_compared_exactly_and_a_measured_time_is_certain():
    limits = CostLimits(max_memory_mb=100, max_latency_ms=500)
    assert limits.violations(uncertain(0.4))["latency"] == 0
    certain = replace(limits, latency_confidence=0.999)
    assert certain.violations(uncertain(0))["latency"] == 0
    assert certain.probability(uncertain(0)) == 1
    assert replace(certain, max_latency_ms=499).probability(uncertain(0)) == 0


def test_what_is_not_known_breaks_no_limit():
    unknown = replace(
        COSTS, latency_ms=None, latency_low_ms=None, latency_high_ms=None, rtf=None, energy_mj=None, occupancy=None
    )
    limits = CostLimits(max_memory_mb=100, max_latency_ms=1, max_rtf=0.1, max_occupancy=0.1)
    assert limits.violations(unknown) == pytest.approx({"memory": -0.1})
    assert limits.probability(unknown) is None
