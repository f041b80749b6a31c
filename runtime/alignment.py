"""When each word of a text was said: dynamic time warping of the decoder's attention to the audio.

The algorithm of openai-whisper's `timing.py` in numpy: attention of the heads that follow the timing of words,
normalised over the tokens, smoothed by a median filter, then the cheapest monotonic path from the first token and
position to the last.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.audio import Floats
from runtime.unheard import POSITION_S
from runtime.words import Word, is_said

MEDIAN_POSITIONS = 7
LONGEST_USUAL_WORD_S = 0.7
"""A word that begins a sentence is at most twice as long as the median word, of which at most so much is believed."""
SENTENCE_ENDS = (b".", "。".encode(), b"!", "！".encode(), b"?", "？".encode())


def aligned(attention: Floats, spellings: Sequence[bytes], words: Sequence[slice], *, audio_s: float) -> list[Word]:
    """The words of a text with their times, in seconds from the window's beginning; none overlap.

    `attention`: (heads, tokens + 1, positions) of what the decoder asks before each token, and before the end token.
    `spellings`: the tokens' bytes. `words`: which of them make each word. `audio_s`: how much of the window is audio.
    """
    if not spellings:
        return []
    positions = min(attention.shape[2], max(1, int(audio_s / POSITION_S)))
    starts = first_columns(-_emphasised(attention[:, :, :positions])) * POSITION_S
    timed = []
    for tokens in words:
        said = [token for token in range(tokens.start, tokens.stop) if is_said(spellings[token])] or [tokens.start]
        text = b"".join(spellings[tokens]).decode("utf-8", errors="replace")
        timed.append((text, float(starts[said[0]]), float(starts[said[-1] + 1])))
    return _plausible(timed)


def _emphasised(attention: Floats) -> Floats:
    """Mean over heads of what is more than usual at a position: (tokens, positions)."""
    weights = attention / attention.sum(axis=2, keepdims=True)
    spread = weights.std(axis=1, keepdims=True)
    weights = (weights - weights.mean(axis=1, keepdims=True)) / np.maximum(spread, np.finfo(np.float32).tiny)
    mean: Floats = _median_filtered(weights).mean(axis=0)
    return mean


def _median_filtered(weights: Floats) -> Floats:
    """Along the last axis, mirrored at its ends; what is too short stays as it is."""
    margin = MEDIAN_POSITIONS // 2
    if weights.shape[-1] <= margin:
        return weights
    padded = np.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(margin, margin)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, MEDIAN_POSITIONS, axis=-1)
    median: Floats = np.partition(windows, margin, axis=-1)[..., margin]
    return median


def first_columns(costs: Floats) -> npt.NDArray[np.int64]:
    """Dynamic time warping: where the cheapest path through `costs` (rows, columns) enters each row, (rows,).

    A path goes from the first row and column to the last by steps of one row, one column or both. Cells of an
    anti-diagonal do not depend on each other, and are computed at once.
    """
    rows, columns = costs.shape
    width = columns + 1
    total = np.full((rows + 1) * width, np.inf)
    total[0] = 0
    steps = np.full(total.shape, 2, np.int8)  # 0: both, 1: from the row above, 2: from the column before
    flat = np.zeros((rows + 1, width))
    flat[1:, 1:] = costs
    cells = flat.ravel()
    for diagonal in range(2, rows + columns + 1):
        low, high = max(1, diagonal - columns), min(rows, diagonal - 1)
        first, stop = low * width + diagonal - low, high * width + diagonal - high + 1
        both, above, before = (total[first - back : stop - back : columns] for back in (width + 1, width, 1))
        total[first:stop:columns] = cells[first:stop:columns] + np.minimum(np.minimum(both, above), before)
        steps[first:stop:columns] = np.where(
            (both < above) & (both < before), 0, np.where((above < both) & (above < before), 1, 2)
        )
    return _entered(steps.reshape(rows + 1, width))


def _entered(steps: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """The path back from the last cell: the first column of each row."""
    row, column = steps.shape[0] - 1, steps.shape[1] - 1
    entered = np.zeros(row, np.int64)
    while row > 0:
        entered[row - 1] = column - 1
        step = 1 if column == 1 else 2 if row == 1 else steps[row, column]
        row -= step != 2
        column -= step != 1
        if column == 0:
            break
    return entered


def _plausible(words: Sequence[tuple[str, float, float]]) -> list[Word]:
    """Words that begin a sentence are no longer than words are: their attention often begins in the pause before."""
    lengths_s = [end_s - start_s for _, start_s, end_s in words if end_s > start_s]
    longest_s = 2 * min(LONGEST_USUAL_WORD_S, float(np.median(lengths_s))) if lengths_s else 0.0
    found: list[Word] = []
    for text, start_s, end_s in words:
        begins = not found or found[-1].text.rstrip().encode().endswith(SENTENCE_ENDS)
        start_s = max(start_s, end_s - longest_s) if begins else start_s  # noqa: PLW2901 - the corrected one
        found.append(Word(text=text, start_s=start_s, end_s=end_s))
    return found
