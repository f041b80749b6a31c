"""When a search stands still, on made-up fronts."""

from math import exp, log

import pytest

from evaluators.accuracy.divergence import Divergence
from search.engines.archive import Archive, Judged
from search.run.screening import HARMLESS, HOPELESS
from search.run.standstill import STILL, Standstill, mean_log_cost

TARGET = 0.03
LOW, HIGH = HARMLESS * TARGET, HOPELESS * TARGET


def judged(objective: float, divergence: float) -> Judged:
    found = Divergence(nats=(100 * divergence,), tokens=(100,))
    return Judged(recipe_id=f"{objective}/{divergence}", genes={}, objective=objective, divergence=found)


def by_sampling(front: list[Judged], points: int = 20_000) -> float:
    total = 0.0
    for index in range(points):
        divergence = exp(log(LOW) + (log(HIGH) - log(LOW)) * (index + 0.5) / points)
        within = [m.objective for m in front if m.divergence.mean <= divergence]
        total += log(min(within, default=1.0))
    return total / points


@pytest.mark.parametrize(
    "members",
    [
        [],
        [(0.5, LOW / 10)],
        [(0.5, 0.0), (0.4, LOW / 2), (0.3, 0.01), (0.2, TARGET), (0.1, 2 * TARGET), (0.05, 2 * HIGH)],
        [(0.2, 0.05), (0.3, 0.02)],
    ],
)
def test_the_mean_cost_is_that_of_the_cheapest_within_each_divergence(members: list[tuple[float, float]]) -> None:
    front = [judged(*member) for member in members]
    assert mean_log_cost(front, target=TARGET, most=1.0) == pytest.approx(by_sampling(front), abs=1e-3)


class World:
    def __init__(self, patience: int = 5) -> None:
        self.archive, self.target, self.bound = Archive(), TARGET, 0.5
        self.archive.add(judged(0.2, TARGET))
        self.standstill = Standstill(self.archive, lambda: self.target, lambda: self.bound, patience=patience, most=1.0)

    def judge(self, objective: float, divergence: float) -> bool:
        self.archive.add(judged(objective, divergence))
        return self.standstill.is_reached()


def test_so_many_recipes_that_change_nothing_are_a_standstill() -> None:
    world = World()
    assert [world.judge(0.3 + n / 100, 0.1) for n in range(6)] == [False] * 4 + [True] * 2


def test_asking_twice_about_a_recipe_counts_it_once() -> None:
    world = World()
    world.judge(0.3, 0.1)
    assert not any(world.standstill.is_reached() for _ in range(9))


@pytest.mark.parametrize(("cheaper", "moves"), [(1 - 3 * STILL, True), (1 - STILL, False)])
def test_a_front_that_moves_begins_the_count_anew(cheaper: float, moves: bool) -> None:
    """The mean cost falls by the share of the log of divergence behind the new member: log 4 of log 32."""
    world, share = World(), log(HOPELESS) / log(HOPELESS / HARMLESS)
    cost = cheaper if moves else exp(log(cheaper) / 2)
    for _ in range(3):
        world.judge(0.9, 0.1)
    world.judge(0.2 * cost ** (1 / share), TARGET)
    assert world.judge(0.9, 0.1) is not moves


def test_small_moves_add_up() -> None:
    world = World(patience=10)
    assert not any(world.judge(0.2 * (1 - STILL) ** n, TARGET) for n in range(1, 40))


def test_a_bound_that_moves_begins_the_count_anew_and_a_target_alone_does_not() -> None:
    world = World()
    for _ in range(3):
        world.judge(0.9, 0.1)
    world.bound = 0.49
    assert not any(world.judge(0.9, 0.1) for _ in range(5))
    assert world.judge(0.9, 0.1)
    moved = World()
    for _ in range(3):
        moved.judge(0.9, 0.1)
    moved.target = 2 * TARGET
    assert [moved.judge(0.9, 0.1) for _ in range(2)] == [False, True]


def test_nothing_stands_still_before_anything_is_within_the_budget() -> None:
    for target, bound in ((0.0, 0.5), (TARGET, float("inf"))):
        world = World()
        world.target, world.bound = target, bound
        assert not any(world.judge(0.9, 0.1) for _ in range(20))
