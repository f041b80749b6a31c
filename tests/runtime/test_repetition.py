"""When a transcript is a loop, and what it says once."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.repetition import is_loop, without_repeats


@given(
    st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), min_size=1, max_size=16), st.integers(0, 60)
)
def test_a_loop_is_a_short_unit_over_48_tokens(begin: list[int], unit: list[int], length: int) -> None:
    tokens = begin + (unit * 60)[:length]
    tail = tokens[-48:]
    expected = len(tail) == 48 and any(all(tail[i] == tail[i % n] for i in range(48)) for n in range(1, 13))
    assert is_loop(tokens) == expected


@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(3, 14), min_size=1, max_size=12, unique=True))
def test_of_a_loop_its_beginning_and_its_unit_are_left(begin: list[int], unit: list[int]) -> None:
    for length in range(36, 60):
        assert without_repeats(begin + (unit * 60)[:length]) == begin + unit
    short = begin + (unit * 60)[: 35 - len(begin)]
    assert without_repeats(short) == short


def test_what_comes_behind_a_loop_is_kept() -> None:
    """As in a clip of 2.5 s: `Press 2 to enter a different number.` five times, then `Press 2 to enter the number.`"""
    unit = [11, 12, 13, 14, 15, 16, 17, 18]
    assert without_repeats([*unit * 5, *unit[:4], 20, 17, 18]) == [*unit, 20, 17, 18]
    assert without_repeats([1, *[2] * 36, 3, *unit * 5, 4]) == [1, 2, 3, *unit, 4]


def test_a_unit_that_begins_as_what_is_before_it_ends_is_said_once() -> None:
    assert without_repeats([7, 1, 2, *[0, 1, 2] * 20]) == [7, 1, 2, 0]
