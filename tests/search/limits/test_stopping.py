from fractions import Fraction
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.limits.budget import WerLimit
from search.limits.racing import ALPHA
from search.limits.stopping import surely_over_budget, wer_violation
from search.trial import UtteranceErrors


def utterances(errors: list[int], words: int = 10) -> list[UtteranceErrors]:
    """Errors spread over the three kinds."""
    return [
        UtteranceErrors(id=f"u{n}", insertions=e // 3, deletions=(e + 1) // 3, substitutions=(e + 2) // 3, words=words)
        for n, e in enumerate(errors)
    ]


def by_id(errors: list[int]) -> dict[str, UtteranceErrors]:
    return {utterance.id: utterance for utterance in utterances(errors)}


def limit_of(baseline: list[int], rate: Fraction) -> WerLimit:
    return WerLimit(rate=rate, words=10 * len(baseline))


def reason(candidate: list[int], baseline: list[int], rate: Fraction, *, seen: int) -> str | None:
    limit = limit_of(baseline, rate)
    return surely_over_budget(utterances(candidate)[:seen], by_id(baseline), wer_limit=limit)


@pytest.mark.parametrize(("errors", "stops"), [(10, False), (11, True)])
def test_certain_is_more_errors_than_the_whole_set_allows(errors, stops):
    baseline = [1] * 20  # 200 words: a limit of 5 % allows 10 errors
    found = reason([0, errors, 0], baseline, Fraction(5, 100), seen=3)
    assert (found == "over the budget after 3 of 20 utterances, whatever the rest") == stops
    assert bool(found) == stops


@given(
    errors=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=15), limit=st.fractions(0, 1)
)
def test_on_the_whole_set_only_certainty_counts(errors, limit):
    candidate, baseline = (list(column) for column in zip(*errors, strict=True))
    over = sum(candidate) > limit * 10 * len(baseline)  # exactly: these are fractions
    assert bool(reason(candidate, baseline, limit, seen=len(baseline))) == over


@settings(max_examples=200, deadline=None)
@given(
    baseline=st.lists(st.integers(0, 9), min_size=1, max_size=120),
    share=st.floats(0.1, 1),
    gamma=st.fractions(0, 1),
)
def test_a_candidate_like_the_baseline_is_never_stopped(baseline, share, gamma):
    """Whatever the order: also where the hard utterances come first."""
    limit = (1 + gamma) * sum(baseline) / (10 * len(baseline))
    seen = max(1, round(share * len(baseline)))
    assert reason(baseline, baseline, limit, seen=seen) is None


@pytest.mark.parametrize("seed", range(5))
def test_twice_the_errors_are_stopped_long_before_the_end(seed):
    rng = np.random.default_rng(seed)
    baseline = rng.poisson(1.0, 200).tolist()
    candidate = [2 * errors for errors in baseline]
    limit = Fraction(11 * sum(baseline), 20_000)
    found = reason(candidate, baseline, limit, seen=60)
    assert found == "over the budget after 60 of 200 utterances with 95% confidence"


def test_few_candidates_at_the_limit_are_stopped():
    """Candidates that truly keep the budget are stopped less often than the confidence allows, over four looks."""
    rng, stopped, runs = np.random.default_rng(1), 0, 200
    for _ in range(runs):
        baseline = rng.poisson(1.0, 100)
        candidate = rng.permutation(baseline)  # the same WER, other utterances
        looks = [
            reason(candidate.tolist(), baseline.tolist(), Fraction(11 * int(baseline.sum()), 10_000), seen=s)
            for s in (20, 40, 60, 80)
        ]
        stopped += any(looks)
    assert stopped / runs <= ALPHA


@pytest.mark.parametrize("limit", [Fraction(0), Fraction(5, 100)])
def test_a_perfect_baseline_leaves_only_certainty(limit):
    assert reason([0] * 20, [0] * 20, limit, seen=20) is None
    assert bool(reason([1] * 20, [0] * 20, limit, seen=20))


NOTHING = WerLimit(rate=Fraction(0), words=20)
PAIRS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40)


@given(pairs=PAIRS, limit=st.fractions(Fraction(1, 100), 2))
def test_violation_of_the_whole_set_is_wer_over_limit_minus_one(pairs, limit):
    candidate, baseline = (list(column) for column in zip(*pairs, strict=True))
    wer = sum(candidate) / (10 * len(pairs))
    whole = limit_of(baseline, limit)
    found = wer_violation(utterances(candidate), by_id(baseline), wer_limit=whole)
    assert found == pytest.approx(wer / limit - 1)
    assert (found <= 0) == whole.allows(sum(candidate))


@given(baseline=st.lists(st.integers(1, 9), min_size=4, max_size=40), share=st.floats(0.1, 1), times=st.integers(0, 4))
def test_violation_of_a_part_is_that_of_the_whole_for_a_multiple_of_the_baseline(baseline, share, times):
    """Hard utterances first or last make no difference to a candidate that errs in proportion."""
    limit = limit_of(baseline, Fraction(11 * sum(baseline), 100 * len(baseline)))
    seen = max(1, round(share * len(baseline)))
    candidate = utterances([times * errors for errors in baseline])
    assert wer_violation(candidate[:seen], by_id(baseline), wer_limit=limit) == pytest.approx(times / 1.1 - 1)


def test_no_errors_allowed():
    assert wer_violation(utterances([0, 0]), by_id([0, 0]), wer_limit=NOTHING) == 0
    assert 0 < wer_violation(utterances([0, 1]), by_id([0, 0]), wer_limit=NOTHING) < inf
