"""Group budgets against arithmetic; stopping against what the whole set would have said."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from evaluators.accuracy.error_rate import GroupKey
from search.limits.budget import WerBudget
from search.limits.group_budget import (
    MIN_WORDS,
    GroupLimits,
    find_group_limits,
    group_wer_budget,
    surely_over_group_budget,
)
from search.limits.verdict import group_violation
from search.trial import GroupErrors, Trial, UtteranceErrors
from tests.search.conftest import make_rate


def group(name: str, errors: int, words: int = 200) -> GroupErrors:
    return GroupErrors(key=GroupKey(kind="language", name=name), rate=make_rate(errors, words), utterances=9)


def limits(budget: str, *original: GroupErrors) -> GroupLimits:
    return GroupLimits(budget=group_wer_budget(budget), original=original)


@pytest.mark.parametrize(
    ("budget", "errors", "allowed"),
    [
        ("+30%", 20, 26.0),
        ("+30%", 2, 3.0),  # one error more than the original is always allowed
        ("+30%", 0, 1.0),
        ("+0%", 20, 21.0),
        ("15%", 20, 30.0),
        ("0%", 20, 0.0),
    ],
)
def test_allowed_errors(budget: str, errors: int, allowed: float) -> None:
    (judged,) = limits(budget, group("de", errors)).judged([group("de", 31)])
    assert judged.limit.errors == allowed
    assert judged.violation == pytest.approx(31 / allowed - 1 if allowed else 1.0)


def test_the_worst_group_is_furthest_over_its_own_limit() -> None:
    """es has more errors, de lost more."""
    found = limits("+30%", group("de", 20), group("es", 60)).worst([group("de", 30), group("es", 70)])
    assert found
    assert found.original.key.name == "de"
    assert found.violation == pytest.approx(30 / 26 - 1)
    assert found.text == "language de: 15.00 %, at most 13.00 %"


def test_small_groups_are_not_judged() -> None:
    small = limits("+30%", group("de", 1, words=MIN_WORDS - 1), group("es", 20))
    found = [group("de", 50, words=MIN_WORDS - 1), group("es", 20)]
    assert small.broken(found) is None
    assert [judged_group.original.key.name for judged_group in small.judged(found)] == ["es"]
    assert limits("+30%", group("de", 1, words=MIN_WORDS)).broken([group("de", 50, words=MIN_WORDS)])
    assert limits("+30%").worst([]) is None


def test_without_a_budget_there_are_no_limits() -> None:
    assert find_group_limits(None, (group("de", 1),)) is None
    assert group_wer_budget("+30%") == WerBudget(value=Fraction(3, 10), is_relative=True)
    with pytest.raises(InputError, match="group budget 'thirty': write"):
        group_wer_budget("thirty")


@given(
    counts=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20), st.booleans()), min_size=20, max_size=60),
    budget=st.sampled_from(["+0%", "+30%", "20%", "0%"]),
    seen=st.integers(1, 60),
)
def test_what_is_stopped_is_over_the_budget_on_the_whole_set(
    counts: list[tuple[int, int, bool]], budget: str, seen: int
) -> None:
    """And what is not stopped at the end keeps it."""
    scored = [
        UtteranceErrors(id=f"u{n}", insertions=0, deletions=0, substitutions=errors, words=10)
        for n, (_, errors, _) in enumerate(counts)
    ]
    members = {
        GroupKey(kind="language", name=name): {f"u{n}" for n, row in enumerate(counts) if row[2] == (name == "de")}
        for name in ("de", "en")
    }
    original = tuple(
        group(key.name, sum(counts[int(u[1:])][0] for u in ids), words=10 * len(ids))
        for key, ids in members.items()
        if ids
    )
    found = tuple(
        group(key.name, sum(counts[int(u[1:])][1] for u in ids), words=10 * len(ids))
        for key, ids in members.items()
        if ids
    )
    asked = limits(budget, *original)
    is_over = asked.broken(found) is not None
    if surely_over_group_budget(scored[:seen], members, asked):
        assert is_over
    assert bool(surely_over_group_budget(scored, members, asked)) == is_over


def test_the_reason_names_the_group() -> None:
    scored = [UtteranceErrors(id="u0", insertions=9, deletions=9, substitutions=9, words=10)]
    members = {GroupKey(kind="language", name="de"): {"u0", "u1"}}
    reason = surely_over_group_budget(scored, members, limits("+30%", group("de", 20)))
    assert reason == "over the group budget in language de after 1 utterances, whatever the rest"


def test_on_a_part_of_the_set_only_a_broken_limit_is_known(make_trial) -> None:  # type: ignore[no-untyped-def]
    asked = limits("+30%", group("de", 20))
    accuracy = make_trial(1, objective=0.4, wer=0.05).accuracy
    kept, broken = (replace(accuracy, groups=(group("de", errors),)) for errors in (25, 39))
    assert group_violation(kept, asked, "stopped") == {}
    assert group_violation(kept, asked, "complete") == {"group": pytest.approx(25 / 26 - 1)}
    for state in ("stopped", "complete"):
        assert group_violation(broken, asked, state) == {"group": pytest.approx(0.5)}
    assert group_violation(broken, None, "complete") == {}


def test_groups_are_kept_with_a_trial_and_older_records_have_none(make_trial) -> None:  # type: ignore[no-untyped-def]
    trial = make_trial(1, objective=0.4, wer=0.05)
    grouped = replace(trial, accuracy=replace(trial.accuracy, groups=(group("de", 3), group("es", 4))))
    assert Trial.from_json(grouped.to_json()) == grouped
    old = json.loads(trial.to_json())
    del old["accuracy"]["groups"]
    assert Trial.from_json(json.dumps(old)) == trial
