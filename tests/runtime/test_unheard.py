"""What a text does not cover is found again: places by hand, on sounds with pauses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.audio import SAMPLE_RATE, Floats
from runtime.pieces import energies
from runtime.unheard import is_word, loud_frames, reached_s, unheard_s


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, level, round(seconds * SAMPLE_RATE)).astype(np.float32)


def with_pause(pause_s: float, level: float, *, before_s: float = 3.0, after_s: float = 3.0) -> Floats:
    return energies(np.concatenate([noise(before_s), noise(pause_s, level), noise(after_s)]))


@pytest.mark.parametrize("level", [0.0, 1e-4, 1e-3, 5e-3])
@pytest.mark.parametrize("pause_s", [0.5, 1.0, 3.0, 6.0, 10.0])
def test_sound_behind_a_pause_is_heard_again_from_shortly_before(pause_s: float, level: float) -> None:
    energy = with_pause(pause_s, level)
    for reached in (2.2, 2.9, 3.1):
        start = unheard_s(energy, reached)
        assert start is not None
        assert start == pytest.approx(3 + pause_s - min(0.5, pause_s / 2), abs=0.05)


@pytest.mark.parametrize("level", [0.0, 1e-3])
def test_what_was_heard_is_not_heard_again(level: float) -> None:
    assert unheard_s(with_pause(3.0, level), 8.5) is None
    assert unheard_s(with_pause(3.0, level, after_s=0.0), 2.5) is None  # a pause at the end
    assert unheard_s(with_pause(3.0, level, after_s=0.2), 2.5) is None  # a click behind it


def test_sound_behind_a_pause_at_the_beginning_is_heard_where_no_word_was_said() -> None:
    energy = with_pause(2.0, 0.0, before_s=0.0)
    assert unheard_s(energy, 0.0) == pytest.approx(1.5, abs=0.05)
    assert unheard_s(energies(noise(5.0)), 0.0) is None
    assert unheard_s(energies(np.zeros(5 * SAMPLE_RATE, np.float32)), 0.0) is None


def test_without_a_pause_much_sound_is_heard_again_from_the_quietest_moment_behind_the_word() -> None:
    """As in a noise that hides every pause: 0.3 s at half the level are no pause, but the best place."""
    samples = noise(6.0)
    samples[round(1.4 * SAMPLE_RATE) : round(1.7 * SAMPLE_RATE)] *= 0.5
    assert unheard_s(energies(samples), 1.0) == pytest.approx(1.55, abs=0.03)
    assert unheard_s(energies(samples), 4.5) is None


@settings(deadline=None)
@given(st.floats(0, 12), st.lists(st.floats(0.05, 2), min_size=1, max_size=8), st.integers(0, 9))
def test_what_is_heard_again_lies_behind_the_text(reached: float, parts: list[float], seed: int) -> None:
    sounds = [noise(seconds, 0.1 * (index % 2), seed) for index, seconds in enumerate(parts)]
    energy = energies(np.concatenate(sounds))
    start = unheard_s(energy, reached)
    if start is not None:
        assert start >= 0.5
        assert start >= reached - 0.5
        assert loud_frames(energy)[round(start * 100) :].sum() >= 30


def test_the_word_that_reaches_furthest_counts_signs_and_silence_behind_the_clip_do_not() -> None:
    attention = np.zeros((4, 100), np.float32)
    attention[[0, 1, 2, 3], [5, 40, 30, 80]] = 0.5
    attention[1, 90] = 0.9
    assert reached_s(attention, [True, True, True, False], 1.4) == pytest.approx(40 * 0.02)
    assert reached_s(attention, [True, True, True, True], 2.0) == pytest.approx(90 * 0.02)
    attention[1] = 0.01
    attention[1, 99] = 0.3  # a spike without most of the attention
    assert reached_s(attention, [True, True, True, False], 2.0) == pytest.approx(64 * 0.02)
    assert reached_s(attention, [False] * 4, 2.0) == 0.0


def test_words_have_a_letter_or_a_digit() -> None:
    assert all(map(is_word, (b" the", b"34", b"'s", "über".encode(), "日".encode(), b"\xe6\x97")))
    assert not any(map(is_word, (b".", b" ...", b",", b"", b" -", b'?"')))
