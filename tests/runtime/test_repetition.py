"""When a transcript is a loop."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.repetition import is_loop


@given(
    st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), min_size=1, max_size=16), st.integers(0, 60)
)
def test_a_loop_is_a_short_unit_over_48_tokens(begin: list[int], unit: list[int], length: int) -> None:
    tokens = begin + (unit * 60)[:length]
    tail = tokens[-48:]
    expected = len(tail) == 48 and any(all(tail[i] == tail[i % n] for i in range(48)) for n in range(1, 13))
    assert is_loop(tokens) == expected
