"""The encoder's window for a clip."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.window import encoder_frames, encoder_window_s


@pytest.mark.parametrize(
    ("recipe_s", "audio_s", "window_s"),
    [(30, 5, 30), (15, 5, 15), (15, 11, 15), (15, 11.01, 15.5), (1, 10, 14), (1, 26, 30), (1, 29, 30), (7.3, 1, 7.5)],
)
def test_window_of_known_clips(recipe_s: float, audio_s: float, window_s: float) -> None:
    assert encoder_window_s(recipe_s, audio_s) == window_s
    assert encoder_frames(recipe_s, audio_s) == 100 * window_s


@given(st.floats(1, 30), st.floats(0.1, 60))
def test_window_holds_recipe_and_clip_in_half_seconds(recipe_s: float, audio_s: float) -> None:
    window_s = encoder_window_s(recipe_s, audio_s)
    assert window_s >= min(30, max(recipe_s, audio_s + 4))
    assert window_s < max(recipe_s, audio_s + 4) + 0.5
    assert (2 * window_s).is_integer()
    assert encoder_frames(recipe_s, audio_s) % 50 == 0
