"""Where a text ended in its audio, and where sound follows that it does not cover.

Without timestamps Whisper often ends at a pause. The last block's attention says where, by the furthest word.
Shared by `runtime.transcribe` and by what scores a recipe. See docs/transcribing.md for what was measured.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.audio import Floats
from runtime.pieces import HOP_S, PAUSE_S, quietest

POSITION_S = 0.02
"""Audio to one position of the encoder's output."""
SMOOTHED_S = 0.05
LOUD_PERCENTILE, QUIET_DB = 95, 20.0
"""Quiet is what is 20 dB below the loud moments of the same audio."""
WORD_S = 1.0
"""A word reaches at most so far behind the middle of its attention."""
LEAD_S = 0.5
"""So much of a pause is heard again before the sound that follows it."""
SOUND_S, SOUND_WITHOUT_PAUSE_S = 0.3, 1.5
"""The least sound that is heard again: behind a pause, and where there is no pause behind the last word."""
PROGRESS_S = 0.5

Frames = npt.NDArray[np.bool_]


def is_word(text: bytes) -> bool:
    """Whether a token holds a letter or digit. Signs are said while the next sentence is already listened to."""
    return any(byte >= 0x80 or chr(byte).isalnum() for byte in text)


def reached_s(attention: Floats, words: Sequence[bool], audio_s: float) -> float:
    """The furthest middle of a word's attention, in seconds of at most `audio_s`; 0 without words.

    Half of the attention to the audio lies before the middle. The place of most attention will not do: a word without
    a clear one may have it anywhere, often where the next sentence begins.

    `attention`: (tokens, positions), where the choice of each token listened. `words`: which tokens are parts of words.
    """
    within = attention[np.array(words, bool), : max(1, int(audio_s / POSITION_S))]
    if not len(within):
        return 0.0
    before = within.cumsum(axis=1)
    return int((before < before[:, -1:] / 2).sum(axis=1).max()) * POSITION_S


def unheard_s(energy: Floats, reached_s: float) -> float | None:
    """Where audio must be decoded again, in seconds; None where its text covers it.

    `energy`: of every hundredth of a second (`runtime.pieces.energies`). The text ended at `reached_s`. If a pause
    follows the last word: shortly before the sound behind the pause. If none does, and much sound follows: in the
    quietest moment behind the word.
    """
    loud, reached, word = loud_frames(energy), round(reached_s / HOP_S), round(WORD_S / HOP_S)
    pause = next((pause for pause in _pauses(loud) if pause.stop > reached), None)
    if pause is not None and pause.start <= reached + word:
        start = pause.stop - min((pause.stop - pause.start) // 2, round(LEAD_S / HOP_S))
        least_s = SOUND_S
    elif reached and reached + word < len(loud):
        start, least_s = reached + quietest(energy[reached : reached + word]), SOUND_WITHOUT_PAUSE_S
    else:
        return None
    heard_again = loud[start:].sum() * HOP_S
    return start * HOP_S if start * HOP_S >= PROGRESS_S and heard_again >= least_s else None


def loud_frames(energy: Floats) -> Frames:
    """Which hundredths of a second are not quiet, (frames,)."""
    width = round(SMOOTHED_S / HOP_S)
    if len(energy) < width:
        return np.zeros(len(energy), bool)
    smoothed = np.convolve(energy, np.ones(width), mode="same")
    loud: Frames = smoothed > np.percentile(smoothed, LOUD_PERCENTILE) * 10 ** (-QUIET_DB / 10)
    return loud


def _pauses(loud: Frames) -> list[slice]:
    """Stretches of at least PAUSE_S without a loud frame."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], loud, [True]]).astype(np.int8)))
    return [
        slice(start, stop) for start, stop in edges.reshape(-1, 2).tolist() if stop - start >= round(PAUSE_S / HOP_S)
    ]
