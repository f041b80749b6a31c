"""Long audio is cut into pieces that fit into Whisper's window, where it is quietest."""

from collections.abc import Iterator

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


def cut(samples: Floats) -> Iterator[slice]:
    """Pieces of at most 26 s, without gap or overlap, of 16 kHz audio (samples,).

    A piece ends in the middle of the 0.3 s with the least energy among its last 10 s, the last of several equal ones.
    """
    start = 0
    while len(samples) - start > LONGEST_S * SAMPLE_RATE:
        latest = min(start + round(LONGEST_S * SAMPLE_RATE), len(samples) - round(SHORTEST_S * SAMPLE_RATE))
        earliest = latest - round(SEARCHED_S * SAMPLE_RATE)
        stop = earliest + _quietest(samples[earliest:latest])
        yield slice(start, stop)
        start = stop
    yield slice(start, len(samples))


def _quietest(samples: Floats) -> int:
    """The middle of the quietest 0.3 s, in samples."""
    hop, hops = round(HOP_S * SAMPLE_RATE), round(PAUSE_S / HOP_S)
    energy = np.square(samples[: len(samples) // hop * hop].reshape(-1, hop)).sum(axis=1)
    pauses = np.convolve(energy, np.ones(hops), mode="valid")
    last = len(pauses) - 1 - int(pauses[::-1].argmin())
    return (last + hops // 2) * hop
