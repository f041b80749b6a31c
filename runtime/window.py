"""How much audio the encoder sees: shared by what scores a recipe and by what prices it."""

from math import ceil

WINDOW_LIMIT_S = 30.0
"""Whisper's own window: 1,500 positions of 20 ms."""
MARGIN_S = 4.0
"""Silence after the speech. Measured on tiny.en (WER on LibriSpeech / Arctic / VCTK clips): the clip plus 0.5 s
gives 25.6 / 70.9 / 16.4 %, plus 4 s 15.0 / 10.4 / 4.3 %, max(15 s, clip + 4 s) 15.2 / 4.4 / 3.4 %,
against 16.3 / 4.9 / 2.6 % at 30 s."""
STEP_S = 0.5
"""Windows are whole half seconds, so that clips of similar length share a batch."""
FRAMES_PER_S = 100
"""Mel frames; the second convolution halves them to 50 positions per second."""


def encoder_window_s(recipe_window_s: float, audio_s: float) -> float:
    """Seconds of audio that the encoder sees for a clip: min(30, max(recipe_window_s, audio_s + 4)).

    Rounded up to a whole half second. The recipe's window is the shortest one, so that speech is never cut.
    """
    window_s = max(recipe_window_s, audio_s + MARGIN_S)
    return min(WINDOW_LIMIT_S, ceil(window_s / STEP_S) * STEP_S)


def encoder_frames(recipe_window_s: float, audio_s: float) -> int:
    """Mel frames of that window; always even."""
    return round(encoder_window_s(recipe_window_s, audio_s) * FRAMES_PER_S)
