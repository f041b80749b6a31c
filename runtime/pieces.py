"""Long audio is cut into pieces that fit into Whisper's window, where it is quietest."""

import numpy as np

from runtime.audio import SAMPLE_RATE, Floats
from runtime.window import MARGIN_S, WINDOW_LIMIT_S

LONGEST_S = WINDOW_LIMIT_S - MARGIN_S
"""26 s, so that 4 s of silence still fit behind a piece: see runtime/window.py."""
SEARCHED_S = 10.0
"""The end of a piece is looked for in its last 10 s: read speech pauses many times in that."""
SHORTEST_S = 1.0
"""The last piece is not shorter: of a fragment of a word Whisper makes up a whole sentence."""
PAUSE_S, HOP_S = 0.3, 0.01


def next_piece(samples: Floats, start: int) -> slice:
    """The piece of 16 kHz audio (samples,) that begins at `start`.

    It ends in the middle of the 0.3 s with the least energy among its last 10 s, the last of several equal ones.
    """
    if len(samples) - start <= LONGEST_S * SAMPLE_RATE:
        return slice(start, len(samples))
    latest = min(start + round(LONGEST_S * SAMPLE_RATE), len(samples) - round(SHORTEST_S * SAMPLE_RATE))
    earliest = latest - round(SEARCHED_S * SAMPLE_RATE)
    hop = round(HOP_S * SAMPLE_RATE)
    return slice(start, earliest + quietest(energies(samples[earliest:latest])) * hop)


def energies(samples: Floats) -> Floats:
    """Of every whole hundredth of a second of 16 kHz audio (samples,): (frames,)."""
    hop = round(HOP_S * SAMPLE_RATE)
    energy: Floats = np.square(samples[: len(samples) // hop * hop].reshape(-1, hop)).sum(axis=1)
    return energy


def quietest(energy: Floats) -> int:
    """The frame in the middle of the quietest 0.3 s, the last of several, of at least as many frames."""
    frames = round(PAUSE_S / HOP_S)
    pauses = np.convolve(energy, np.ones(frames), mode="valid")
    last = len(pauses) - 1 - int(pauses[::-1].argmin())
    return last + frames // 2
