"""What a text does not cover is found again: places by hand, on sounds with pauses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.audio import SAMPLE_RATE, Floats
from runtime.pieces import energies
from runtime.unheard import POSITION_S, Listening, is_word, loud_frames, unheard


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, level, round(seconds * SAMPLE_RATE)).astype(np.float32)


def listening(*places_s: float, positions: int = 1000) -> Listening:
    """To the places, a word to each."""
    attention = np.eye(positions, dtype=np.float32)[[round(place_s / POSITION_S) for place_s in places_s]]
    return Listening(spellings=tuple(f" w{index}".encode() for index in range(len(places_s))), attention=attention)


def speaking(*stretches_s: tuple[float, float]) -> list[float]:
    """Four words a second in each of the stretches."""
    return [float(place_s) for start_s, stop_s in stretches_s for place_s in np.arange(start_s, stop_s, 0.25)]


def unheard_s(energy: Floats, reached_s: float) -> float | None:
    """With a word in every quarter of a second until `reached_s`."""
    rest = unheard(energy, listening(*speaking((0, reached_s)), reached_s))
    return None if rest is None else rest.start_s


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
    nothing = Listening(spellings=(b"...",), attention=np.ones((1, 250), np.float32))
    rest = unheard(energy, nothing)
    assert rest is not None
    assert (rest.start_s, rest.tokens, rest.text) == (pytest.approx(1.5, abs=0.05), 1, "...")
    assert unheard(energies(noise(5.0)), nothing) is None
    assert unheard(energies(np.zeros(5 * SAMPLE_RATE, np.float32)), nothing) is None


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
    found = unheard(energy, listening(reached))
    if found is not None:
        assert found.start_s >= 0.5
        if found.tokens:  # the word is kept: what is heard again begins at most half a second before its place
            assert found.start_s >= reached - 0.52
        assert loud_frames(energy)[round(found.start_s * 100) :].sum() >= 30


THREE = energies(np.concatenate([noise(3.0), noise(1.0, 0), noise(2.0), noise(1.0, 0), noise(3.0)]))
"""Sound from 0 to 3 s, 4 to 6 s and 7 to 10 s."""


def test_a_sound_that_the_words_pass_over_is_heard_again_with_all_that_follows() -> None:
    """Kept are the words before it; a first word that listens everywhere belongs to them all the same."""
    places = speaking((0.2, 2.9), (7.1, 9.9))
    before = sum(place < 3 for place in places)
    said = listening(*places)
    said.attention[0] = 1.0
    rest = unheard(THREE, said)
    assert rest is not None
    assert rest.start_s == pytest.approx(3.5, abs=0.05)
    assert (rest.tokens, rest.text) == (before, " ".join(f"w{index}" for index in range(before)))


def test_a_sign_stays_with_the_word_before_it() -> None:
    said = Listening(
        spellings=(b" One", b".", b" Two"), attention=np.eye(500, dtype=np.float32)[[50, 400, 450]]
    )  # fmt: skip
    rest = unheard(THREE, said)
    assert rest is not None
    assert (rest.tokens, rest.text) == (2, "One.")


def test_half_a_word_a_second_is_enough() -> None:
    """And so are words of which only parts listened there."""
    heard = speaking((0.2, 2.9)), speaking((7.1, 9.9))
    assert unheard(THREE, listening(*heard[0], 5.0, 5.5, *heard[1])) is None
    said = listening(*heard[0], 5.0, 7.0, *heard[1])
    said.attention[len(heard[0])] *= 0.4
    said.attention[len(heard[0]), 350] = 0.6
    assert unheard(THREE, said) is not None
    said.attention[len(heard[0]) + 1] *= 0.3
    said.attention[len(heard[0]) + 1, 250] = 0.7
    assert unheard(THREE, said) is None


def test_a_short_sound_or_one_at_the_very_beginning_is_left_out() -> None:
    short = energies(np.concatenate([noise(3.0), noise(1.0, 0), noise(0.4), noise(1.0, 0), noise(3.0)]))
    assert unheard(short, listening(*speaking((0.2, 2.9), (5.5, 8.3)))) is None
    assert unheard(THREE, listening(*speaking((4.1, 5.9), (7.1, 9.9)))) is None


def test_the_word_that_reaches_furthest_counts_signs_and_silence_behind_the_clip_do_not() -> None:
    def reached_s(signs: int, audio_s: float) -> float:
        spellings = (b" a", b" b", b" c", b"." if signs else b" d")
        return Listening.to(audio_s, spellings=spellings, attention=attention).reached_s

    attention = np.zeros((4, 100), np.float32)
    attention[[0, 1, 2, 3], [5, 40, 30, 80]] = 0.5
    attention[1, 90] = 0.9
    assert reached_s(1, 1.4) == pytest.approx(40 * 0.02)
    assert reached_s(0, 2.0) == pytest.approx(90 * 0.02)
    attention[1] = 0.01
    attention[1, 99] = 0.3  # a spike without most of the attention
    assert reached_s(1, 2.0) == pytest.approx(64 * 0.02)
    assert Listening.to(2.0, spellings=[b"."] * 4, attention=attention).reached_s == 0.0


def test_words_have_a_letter_or_a_digit() -> None:
    assert all(map(is_word, (b" the", b"34", b"'s", "über".encode(), "日".encode(), b"\xe6\x97")))
    assert not any(map(is_word, (b".", b" ...", b",", b"", b" -", b'?"')))
