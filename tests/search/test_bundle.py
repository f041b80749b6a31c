"""Which points of a run a bundle takes."""

from types import SimpleNamespace

import pytest

from common.errors import InputError
from search.commands.bundle import bundled


def trial(number: int, latency_ms: float | None) -> SimpleNamespace:
    recipe = SimpleNamespace(id=f"id{number}")
    return SimpleNamespace(number=number, recipe=recipe, costs=SimpleNamespace(latency_ms=latency_ms))


TRIALS = [trial(number, latency_ms) for number, latency_ms in enumerate([900.0, 100.0, 400.0, 200.0, 300.0, None])]


def outcome(recommended: int | None, front: list[int]) -> SimpleNamespace:
    pick = None if recommended is None else TRIALS[recommended]
    return SimpleNamespace(
        trials=TRIALS, front=[TRIALS[number] for number in front], recommended=pick, baseline=TRIALS[0]
    )


@pytest.mark.parametrize(
    ("recommended", "front", "wanted", "taken"),
    [
        (3, [1, 2, 3, 4], None, [2, 3, 1]),
        (1, [1, 2, 3], None, [2, 1]),
        (None, [1, 2, 3], None, [2, 1]),
        (3, [0, 1, 2, 3, 4], None, [2, 3, 1]),
        (3, [1, 2, 3], "1, id4,2", [2, 4, 1]),
        (3, [1, 2, 3], "1,2,3,4", [2, 4, 3, 1]),
    ],
)
def test_points_are_the_slowest_first(recommended: int | None, front: list[int], wanted: str | None, taken: list[int]):
    assert [point.number for point in bundled(outcome(recommended, front), wanted)] == taken


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("1", "takes 2 to 4 trials, but got 1"),
        ("1,1", "but got 1"),
        ("0,1,2,3,4", "but got 5"),
        ("1,9", "--trial 9: no trial"),
        ("1,5", "trial 5 has no latency"),
    ],
)
def test_what_makes_no_bundle_is_one_line(wanted: str, message: str):
    with pytest.raises(InputError, match=message):
        bundled(outcome(3, [1, 2, 3]), wanted)
