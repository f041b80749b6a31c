"""Who is trained, how long and when to stop, on made-up fronts."""

from dataclasses import replace
from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.accuracy.divergence import Divergence
from search.engines.archive import Judged
from search.run.halving import (
    COMFORTABLE,
    MOST_TRAINED,
    WITHIN_REACH,
    Halving,
    NextTraining,
    Rung,
    Source,
    affordable,
    eligible,
    finalists,
    next_training,
    promise,
    spread,
    work,
)

TARGET, RATE = 0.03, 4.0


def judged(objective: float, divergence: float) -> Judged:
    return Judged(recipe_id=f"{objective}", genes={}, objective=objective, divergence=of(divergence))


def of(mean: float) -> Divergence:
    return Divergence(nats=(100 * mean,), tokens=(100,))


def source(objective: float, divergence: float = 0.08) -> Source:
    return Source(
        recipe_id=f"{objective}", trial=round(100 * objective), method="qat", objective=objective, divergence=divergence
    )


def halving(*sources: Source) -> Halving:
    return Halving(search_ended="time", target=TARGET, rate=RATE, sources=sources)


def after(state: Halving, training: NextTraining, divergence: float | None) -> Halving:
    """The state when the training has ended there; None: it brought nothing."""
    is_better = divergence is not None
    result = Rung(
        source_id=training.source.recipe_id,
        rung=training.rung,
        recipe_id=f"{training.source.recipe_id}/{training.rung}" if is_better else None,
        divergence=of(divergence) if divergence is not None else None,
        steps=10,
        seconds=60.0,
        problem="" if is_better else "NaN",
    )
    return replace(state, results=(*state.results, result))


def trained(state: Halving, course: dict[float, list[float | None]]) -> tuple[Halving, list[tuple[float, int]]]:
    """Train to the end, where each source's rungs come to these divergences; who was trained in which rung."""
    order = []
    while (training := next_training(state)) and len(order) < 50:
        order.append((training.source.objective, training.rung))
        state = after(state, training, course[training.source.objective][training.rung])
    return state, order


def test_eligible_is_what_is_cheaper_and_over_the_target_but_in_reach() -> None:
    front = [judged(0.5, 0.02), judged(0.3, TARGET), judged(0.2, 0.031), judged(0.1, WITHIN_REACH * TARGET)]
    front += [judged(0.05, 1.01 * WITHIN_REACH * TARGET), judged(0.25, 0.0305)]
    found = eligible(front, bound=0.25, target=TARGET)
    assert [member.objective for member in found] == [0.1, 0.2]
    assert eligible(front, bound=0.25, target=0.0) == []


@pytest.mark.parametrize(("count", "units"), [(1, 1), (2, 2 + 2), (3, 3 + 2 * 2 + 4), (4, 4 + 2 * 2 + 4)])
def test_the_work_of_a_halving_is_its_rungs_each_twice_as_long(count: int, units: int) -> None:
    assert work(count, count, 0) == units


@pytest.mark.parametrize(
    ("minutes", "count", "expected"),
    [
        *[(9.9, 4, 0), (10, 4, 1), (39, 4, 1), (40, 4, 2), (110, 4, 3), (119, 9, 3)],
        *[(120, 9, 4), (999, 9, 4), (999, 2, 2), (999, 0, 0)],
    ],
)
def test_as_many_begin_as_the_first_rung_has_time_for(minutes: float, count: int, expected: int) -> None:
    assert affordable(count, 60 * minutes, least_s=600) == expected
    assert expected <= MOST_TRAINED


def test_spread_takes_the_middle_of_equal_parts_of_the_log_of_cost() -> None:
    members = [judged(exp(log(0.1) + log(10) * n / 8), 0.08) for n in range(9)]
    assert spread(members, 4) == [members[n] for n in (1, 3, 5, 7)]
    assert spread(members, 1) == [members[4]]
    assert spread(members[:2], 4) == members[:2]
    assert spread([], 4) == []


def test_one_dear_member_far_away_is_still_one_of_the_spread() -> None:
    members = [judged(0.1 + 0.001 * n, 0.08) for n in range(20)] + [judged(0.4, 0.04)]
    assert members[-1] in spread(members, 2)


@given(
    st.lists(st.floats(0.01, 1), min_size=1, max_size=30, unique=True),
    st.integers(1, 6),
)
def test_spread_takes_each_once(objectives: list[float], count: int) -> None:
    members = [judged(objective, 0.08) for objective in objectives]
    chosen = spread(members, count)
    assert len({member.objective for member in chosen}) == len(chosen) == min(count, len(members))
    assert chosen == sorted(chosen, key=lambda member: member.objective)


def test_a_promise_is_the_cost_at_the_target_on_a_front_that_falls_by_that_power() -> None:
    def divergence(objective: float) -> float:
        return TARGET * (objective / 0.2) ** -RATE

    for objective in (0.15, 0.18, 0.2):
        assert promise(objective, divergence(objective), target=TARGET, rate=RATE) == pytest.approx(0.2)
    assert promise(0.3, 0.01, target=TARGET, rate=RATE) == 0.3


def test_the_better_half_goes_on_for_twice_the_time_until_one_is_left() -> None:
    state = halving(*(source(objective) for objective in (0.1, 0.12, 0.14, 0.16)))
    # at the target these would cost 0.132, 0.129, 0.167 and 0.164, and after the second rung 0.127 and 0.125
    course = {0.1: [0.09, 0.078], 0.12: [0.04, 0.035, 0.031], 0.14: [0.06], 0.16: [0.033]}
    ended, order = trained(state, course)
    assert order == [(0.1, 0), (0.12, 0), (0.14, 0), (0.16, 0), (0.1, 1), (0.12, 1), (0.12, 2)]
    assert [standing.divergence for standing in ended.standings] == pytest.approx([0.078, 0.031, 0.06, 0.033])


def test_the_shares_of_what_is_left_make_rungs_of_one_time_each_twice_the_last() -> None:
    state, left, seconds = halving(*(source(objective) for objective in (0.1, 0.12, 0.14, 0.16))), 1200.0, []
    while training := next_training(state):
        seconds.append(training.share * left)
        left -= seconds[-1]
        state = after(state, training, 0.08)
    assert seconds == pytest.approx([100] * 4 + [200] * 2 + [400])
    assert left == pytest.approx(0)


def test_what_is_comfortably_within_the_target_is_trained_no_more_and_beats_what_costs_more() -> None:
    state = halving(*(source(objective) for objective in (0.1, 0.12, 0.14, 0.16)))
    enough = COMFORTABLE * TARGET
    _, order = trained(state, {0.1: [0.06, 0.05, 0.04], 0.12: [enough], 0.14: [0.031], 0.16: [0.031]})
    assert order == [(0.1, 0), (0.12, 0), (0.1, 1)]


def test_who_survived_a_rung_does_not_change_with_later_ones() -> None:
    state = halving(*(source(objective) for objective in (0.1, 0.12, 0.14, 0.16)))
    _, order = trained(state, {0.1: [0.06, 0.01], 0.12: [0.033], 0.14: [0.08], 0.16: [0.09]})
    assert order == [(0.1, 0), (0.12, 0), (0.14, 0), (0.16, 0), (0.1, 1)]


def test_what_failed_goes_on_no_more_and_the_others_take_its_place() -> None:
    state = halving(*(source(objective) for objective in (0.1, 0.12, 0.14, 0.16)))
    _, order = trained(state, {0.1: [None], 0.12: [None], 0.14: [0.05, None], 0.16: [0.05, 0.04, 0.035]})
    assert order == [(0.1, 0), (0.12, 0), (0.14, 0), (0.16, 0), (0.14, 1), (0.16, 1), (0.16, 2)]
    alone = halving(source(0.1))
    assert trained(alone, {0.1: [None]})[1] == [(0.1, 0)]


def test_a_halving_goes_on_in_the_middle() -> None:
    state = halving(*(source(objective) for objective in (0.1, 0.12)))
    first = next_training(state)
    assert first
    state = after(state, first, 0.05)
    second = next_training(state)
    assert second
    assert (second.source.objective, second.rung) == (0.12, 0)
    assert second.share == pytest.approx(1 / 3)


def test_the_cheapest_within_the_target_get_a_wer_else_what_promises_most() -> None:
    state = halving(*(source(objective) for objective in (0.1, 0.12, 0.14)))
    both, _ = trained(state, {0.1: [0.029, 0.029, 0.029], 0.12: [0.029, 0.029, 0.029], 0.14: [0.05, 0.05, 0.05]})
    assert [standing.source.objective for standing in finalists(both)] == [0.1, 0.12]
    one, _ = trained(state, {0.1: [0.07] * 3, 0.12: [0.05] * 3, 0.14: [0.0299] * 3})
    assert [standing.source.objective for standing in finalists(one)] == [0.14]
    none, _ = trained(state, {0.1: [0.07] * 3, 0.12: [0.031] * 3, 0.14: [0.031] * 3})
    assert [standing.source.objective for standing in finalists(none)] == [0.12]
    worse, _ = trained(state, {0.1: [0.09] * 3, 0.12: [0.08] * 3, 0.14: [0.1] * 3})
    assert finalists(worse) == []
    nothing, _ = trained(state, {0.1: [None], 0.12: [None], 0.14: [None]})
    assert finalists(nothing) == []


def test_a_failed_rung_leaves_what_the_one_before_made() -> None:
    state, _ = trained(halving(source(0.1), source(0.2)), {0.1: [0.05, None], 0.2: [0.2]})
    [best] = finalists(state)
    assert best.best
    assert (best.best.recipe_id, best.problem, best.divergence) == ("0.1/0", "NaN", pytest.approx(0.05))
