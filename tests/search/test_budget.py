from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from search.budget import CostLimits, Objective, WerBudget
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
)


@pytest.mark.parametrize(
    ("text", "baseline", "limit"),
    [
        ("8.5%", 0.05, 0.085),
        ("8.5%", 0.5, 0.085),
        (" 500 % ", 0.05, 5.0),
        ("0%", 0.05, 0.0),
        ("+10%", 0.05, 0.055),
        ("+0%", 0.05, 0.05),
        ("+ 10%", 0.05, None),
        ("+10 %", 0.0, 0.0),
        ("+150%", 0.04, 0.1),
    ],
)
def test_limit(text, baseline, limit):
    if limit is None:
        with pytest.raises(InputError, match="write 8.5%"):
            WerBudget.parse(text)
    else:
        assert WerBudget.parse(text).limit(baseline) == pytest.approx(limit)


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
