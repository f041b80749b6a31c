from dataclasses import replace
from fractions import Fraction
from itertools import permutations
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.accuracy.divergence import Divergence
from evaluators.accuracy.error_rate import GroupKey
from search.front import front, least_violating, recommend
from search.limits.budget import WerLimit
from search.limits.group_budget import find_group_limits
from search.outcome import ArtifactRecord, Confirmation, Outcome
from search.trial import GroupErrors
from tests.search.conftest import make_rate

LIMIT = WerLimit(rate=Fraction(65, 1000), words=1000)
POINTS = st.lists(
    st.tuples(
        st.integers(0, 6),  # objective
        st.one_of(st.none(), st.integers(3, 9)),  # errors in a hundred words
        st.sampled_from(["complete", "complete", "complete", "stopped", "rejected", "failed"]),
        st.dictionaries(st.sampled_from(["wer", "size", "memory"]), st.sampled_from([-0.5, 0.0, 0.25])),
    ),
    max_size=14,
)


def _trials(points, make_trial):
    return [
        make_trial(number, objective=float(objective), wer=errors and errors / 100, state=state, violations=violations)
        for number, (objective, errors, state, violations) in enumerate(points)
    ]


def _dominates(one, other):
    ours, theirs = (one.objective, one.accuracy.wer), (other.objective, other.accuracy.wer)
    return ours[0] <= theirs[0] and ours[1] <= theirs[1] and ours != theirs


def _same_place(one, other):
    return one.objective == other.objective and one.accuracy.wer == other.accuracy.wer


@given(points=POINTS)
def test_front_is_what_comparing_every_pair_leaves(points, make_trial):
    trials = _trials(points, make_trial)
    feasible = [
        t for t in trials if t.state == "complete" and t.accuracy and all(v <= 0 for v in t.violations.values())
    ]
    expected = {
        trial.number
        for trial in feasible
        if not any(_dominates(other, trial) for other in feasible)
        and not any(_same_place(other, trial) and other.number < trial.number for other in feasible)
    }
    found = front(trials)
    assert {trial.number for trial in found} == expected
    assert [t.objective for t in found] == sorted(t.objective for t in found)


@given(points=POINTS, data=st.data())
def test_front_does_not_depend_on_the_order_of_trials(points, data, make_trial):
    trials = _trials(points, make_trial)
    assert front(data.draw(st.permutations(trials))) == front(trials)


@given(points=POINTS)
def test_least_violating_has_the_smallest_sum_of_broken_limits(points, make_trial):
    trials = _trials(points, make_trial)
    nearest = least_violating(trials)
    complete = [trial for trial in trials if trial.state == "complete"]
    if nearest is None:
        assert not complete
        return

    def key(trial):
        return (sum(v for v in trial.violations.values() if v > 0), trial.objective)

    assert nearest in complete
    assert all(key(nearest) <= key(trial) for trial in complete)


def _confirmation(within_budget: bool) -> Confirmation:
    return Confirmation(rate=make_rate(5, 100), within_budget=within_budget)


def test_the_pick_is_the_cheapest_that_kept_its_promise(outcome: Outcome):
    cheap, middle, dear = (trial.recipe.id for trial in outcome.front)
    for kept in permutations((True, False, False)):
        confirmations = {name: _confirmation(within) for name, within in zip((cheap, middle, dear), kept, strict=True)}
        assert (
            recommend(outcome.front, confirmations, {}, wer_limit=LIMIT, baseline=outcome.baseline)
            == outcome.front[kept.index(True)]
        )


def test_the_pick_is_the_cheapest_whose_artifact_keeps_the_budget(outcome: Outcome, artifact_figures):
    cheap, middle, dear = (trial.recipe.id for trial in outcome.front)
    artifacts = {
        cheap: ArtifactRecord(figures=None, note="no artifact: no kernel"),
        middle: ArtifactRecord(figures=replace(artifact_figures, rate=make_rate(66, 1000)), note=""),
        dear: ArtifactRecord(figures=replace(artifact_figures, rate=make_rate(65, 1000)), note=""),
    }
    assert recommend(outcome.front, {}, artifacts, wer_limit=LIMIT, baseline=outcome.baseline) == outcome.front[2]


def test_an_artifact_over_the_group_budget_gives_way(outcome: Outcome, artifact_figures):
    def groups(errors: int) -> tuple[GroupErrors, ...]:
        return (GroupErrors(key=GroupKey(kind="noise", name="5 dB"), rate=make_rate(errors, 200), utterances=9),)

    good = replace(artifact_figures, rate=make_rate(60, 1000))
    artifacts = {
        trial.recipe.id: ArtifactRecord(figures=good, note="", groups=groups(errors))
        for trial, errors in zip(outcome.front, (27, 26, 20), strict=True)
    }
    limits = find_group_limits("+30%", groups(20))
    found = recommend(outcome.front, {}, artifacts, wer_limit=LIMIT, group_limits=limits, baseline=outcome.baseline)
    assert found == outcome.front[1]


def test_an_artifact_that_detects_too_few_languages_gives_way(outcome: Outcome, artifact_figures):
    good = replace(artifact_figures, rate=make_rate(60, 1000))
    artifacts = {
        trial.recipe.id: ArtifactRecord(figures=replace(good, language_accuracy=share), note="")
        for trial, share in zip(outcome.front, (0.94, 0.95, 1.0), strict=True)
    }
    given = {"wer_limit": LIMIT, "baseline": outcome.baseline}
    assert recommend(outcome.front, {}, artifacts, min_language_accuracy=0.95, **given) == outcome.front[1]
    assert recommend(outcome.front, {}, artifacts, **given) == outcome.front[0]


class Sure:
    """Every trial is within the budget, as divergence and both sets have it."""

    def scored(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(probability=1.0)


@pytest.mark.parametrize(
    ("original", "expected"), [(1.0, 2), (0.97, 1), (0.9, 0), (0.0, 0)], ids="original tells {}".format
)
def test_languages_of_the_confirm_set_count_beside_the_probability(outcome: Outcome, original, expected):
    """At least 98 % of them, or as many as the original tells there."""
    front = [replace(trial, divergence=Divergence(nats=(0.1,), tokens=(10,))) for trial in outcome.front]
    confirmations = {
        trial.recipe.id: replace(_confirmation(True), language_accuracy=share)
        for trial, share in zip(front, (0.9, 0.97, original), strict=True)
    }
    given = {"wer_limit": LIMIT, "baseline": front[2], "certainty": Sure()}
    assert recommend(front, confirmations, {}, min_language_accuracy=0.98, **given) == front[expected]
    assert recommend(front, confirmations, {}, **given) == front[0]


@pytest.mark.parametrize("confirmed", [{}, "all over"])
def test_the_pick_is_the_cheapest_when_no_promise_was_kept_or_tested(outcome: Outcome, confirmed):
    confirmations = {t.recipe.id: _confirmation(False) for t in outcome.front} if confirmed else {}
    assert recommend(outcome.front, confirmations, {}, wer_limit=LIMIT, baseline=outcome.baseline) == outcome.front[0]


@pytest.mark.parametrize(
    ("cheap", "middle", "expected"),
    [(None, None, 0), (False, None, 1), (None, True, 1), (True, None, 0), (False, False, 2)],
    ids=["only the original", "untried before the original", "kept before untried", "kept", "the original is left"],
)
def test_what_was_not_tried_gives_way_to_what_kept_its_promise_but_not_to_the_original(
    outcome: Outcome, cheap, middle, expected
):
    known = zip((cheap, middle, True), outcome.front, strict=True)
    confirmations = {trial.recipe.id: _confirmation(within) for within, trial in known if within is not None}
    picked = recommend(outcome.front, confirmations, {}, wer_limit=LIMIT, baseline=outcome.baseline)
    assert picked == outcome.front[expected]


def test_no_front_gives_no_pick(outcome: Outcome):
    assert front([]) == ()
    assert recommend((), {}, {}, wer_limit=LIMIT, baseline=outcome.baseline) is None
    assert least_violating([]) is None
