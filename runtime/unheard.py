"""Which sound of its audio a text leaves out, and where it must be decoded again.

Without timestamps Whisper often ends at a pause, or passes over a sentence between two. The last block's attention to
the audio says so: where the words of the text listened. Shared by `runtime.transcribe` and by what scores a recipe. See
docs/transcribing.md for what was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
LEFT_OUT_S, WORDS_PER_S = 0.5, 0.5
"""Sound of this length between two pauses is left out where fewer tokens of words a second listened to it."""
PROGRESS_S = 0.5

Frames = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Listening:
    """Where the tokens of a text listened, in the order of the text.

    `spellings`: their bytes. `attention`: (tokens, positions), of what is audio.
    """

    spellings: tuple[bytes, ...]
    attention: Floats

    @classmethod
    def to(cls, audio_s: float, *, spellings: Sequence[bytes], attention: Floats) -> "Listening":
        """`attention`: (tokens, positions) of a window, which begins with `audio_s` seconds of audio."""
        return cls(spellings=tuple(spellings), attention=attention[:, : max(1, int(audio_s / POSITION_S))])

    @property
    def words(self) -> Frames:
        """Which tokens are parts of words: (tokens,)."""
        return np.array([is_word(spelling) for spelling in self.spellings], bool)

    @property
    def middles_s(self) -> Floats:
        """Of every token: half of its attention lies before it. Seconds, (tokens,).

        The place of most attention will not do: a word without a clear one may have it anywhere, often where the next
        sentence begins.
        """
        before = self.attention.cumsum(axis=1)
        middles: Floats = (before < before[:, -1:] / 2).sum(axis=1) * POSITION_S
        return middles

    @property
    def reached_s(self) -> float:
        """The furthest middle of a word; 0 without words."""
        return float(self.middles_s[self.words].max(initial=0.0))

    def words_in(self, start_s: float, stop_s: float) -> float:
        """How many tokens of words listened there, each in parts as its attention is."""
        shares = self.attention[self.words]
        there = shares[:, int(start_s / POSITION_S) : int(stop_s / POSITION_S)]
        return float((there.sum(axis=1) / shares.sum(axis=1)).sum())

    def tokens_before(self, start_s: float) -> int:
        """How many tokens come first, so that most words listened on their side of `start_s`."""
        (words,) = self.words.nonzero()
        earlier = np.where(self.middles_s[words] < start_s, 1, -1)
        kept = int(np.concatenate([[0], earlier.cumsum()]).argmax())
        return int(words[kept]) if kept < len(words) else len(self.spellings)


@dataclass(frozen=True, kw_only=True)
class Unheard:
    """Where audio must be decoded again, and what of the text comes before: so many `tokens`, and their text."""

    start_s: float
    tokens: int
    text: str


def is_word(text: bytes) -> bool:
    """Whether a token holds a letter or digit. Signs are said while the next sentence is already listened to."""
    return any(byte >= 0x80 or chr(byte).isalnum() for byte in text)


def unheard(energy: Floats, listening: Listening) -> Unheard | None:
    """The first sound that a text leaves out; None where the text covers its audio.

    `energy`: of every hundredth of a second (`runtime.pieces.energies`).
    """
    loud = loud_frames(energy)
    pauses = _pauses(loud)
    skipped, behind = _skipped(pauses, len(loud), listening), _behind(energy, loud, pauses, listening.reached_s)
    starts = [start for start in (skipped, behind) if start is not None]
    if not starts:
        return None
    start_s, tokens = min(starts) * HOP_S, len(listening.spellings)
    if min(starts) != behind:
        tokens = listening.tokens_before(start_s)
    text = b"".join(listening.spellings[:tokens]).decode("utf-8", errors="replace").strip()
    return Unheard(start_s=start_s, tokens=tokens, text=text)


def _skipped(pauses: list[slice], frames: int, listening: Listening) -> int | None:
    """The frame shortly before the first sound between two pauses to which no word listened."""
    for pause, following in pairwise([*pauses, slice(frames, frames)]):
        start_s, stop_s = pause.stop * HOP_S, following.start * HOP_S
        is_long = stop_s - start_s >= LEFT_OUT_S and _lead(pause) * HOP_S >= PROGRESS_S
        if is_long and listening.words_in(start_s, stop_s) < WORDS_PER_S * (stop_s - start_s):
            return _lead(pause)
    return None


def _behind(energy: Floats, loud: Frames, pauses: list[slice], reached_s: float) -> int | None:
    """The frame from which to decode again behind a text that ended at `reached_s`, where enough sound follows.

    If a pause follows the last word: shortly before the sound behind the pause. If none does, and much sound follows:
    in the quietest moment behind the word.
    """
    reached, word = round(reached_s / HOP_S), round(WORD_S / HOP_S)
    pause = next((pause for pause in pauses if pause.stop > reached), None)
    if pause is not None and pause.start <= reached + word:
        start, least_s = _lead(pause), SOUND_S
    elif reached and reached + word < len(loud):
        start, least_s = reached + quietest(energy[reached : reached + word]), SOUND_WITHOUT_PAUSE_S
    else:
        return None
    heard_again_s = loud[start:].sum() * HOP_S
    return start if start * HOP_S >= PROGRESS_S and heard_again_s >= least_s else None


def _lead(pause: slice) -> int:
    """The frame of a pause from which the sound that follows it is decoded."""
    return int(pause.stop - min((pause.stop - pause.start) // 2, round(LEAD_S / HOP_S)))


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
