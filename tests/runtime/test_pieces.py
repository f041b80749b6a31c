"""Where long audio is cut."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.audio import SAMPLE_RATE, Floats
from tests.runtime.cuts import cut


def noise(seconds: float, level: float = 0.1) -> Floats:
    return np.random.default_rng(1).normal(0, level, round(seconds * SAMPLE_RATE)).astype(np.float32)


@given(st.floats(0, 200), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_pieces_follow_each_other_and_fit_into_the_window(seconds: float, seed: int) -> None:
    samples = np.random.default_rng(seed).normal(size=round(seconds * SAMPLE_RATE)).astype(np.float32)
    pieces = list(cut(samples))
    assert (pieces[0].start, pieces[-1].stop) == (0, len(samples))
    assert all(before.stop == after.start for before, after in pairwise(pieces))
    assert all((piece.stop - piece.start) / SAMPLE_RATE <= 26 for piece in pieces)
    assert all((piece.stop - piece.start) / SAMPLE_RATE >= 14 for piece in pieces[:-1])
    assert len(pieces) == 1 or len(samples) - pieces[-1].start >= SAMPLE_RATE


@pytest.mark.parametrize(("pause_s", "level"), [(17.0, 0.0), (21.3, 1e-3), (25.5, 1e-2)])
def test_the_cut_is_in_the_pause(pause_s: float, level: float) -> None:
    samples = noise(40)
    pause = slice(round(pause_s * SAMPLE_RATE), round((pause_s + 0.4) * SAMPLE_RATE))
    samples[pause] = noise(0.4, level)
    first, *_ = cut(samples)
    assert pause_s + 0.1 <= first.stop / SAMPLE_RATE <= pause_s + 0.3


def test_the_quietest_pause_counts_by_brute_force() -> None:
    samples = noise(60) * np.linspace(1, 0.3, 60 * SAMPLE_RATE).astype(np.float32)
    first, *_ = cut(samples)
    places = range(16 * SAMPLE_RATE, 26 * SAMPLE_RATE - 4800 + 1, 160)
    quietest = min(places, key=lambda place: np.square(samples[place : place + 4800].astype(np.float64)).sum())
    assert first.stop == quietest + 2400


def test_silence_is_cut_as_late_as_possible() -> None:
    first, second = cut(np.zeros(40 * SAMPLE_RATE, np.float32))
    assert (first.stop, second.stop) == ((26 * 100 - 15) * 160, 40 * SAMPLE_RATE)
