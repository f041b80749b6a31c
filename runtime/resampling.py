"""From any sample rate to Whisper's, block by block."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
BLOCK_S, BLOCK_MARGIN_S = 10, 1
PASSBAND = 0.92
"""The share of the lower of the two bands that resampling leaves alone; above, the gain falls to 0."""


def resample(samples: Floats, rate: int) -> Floats:
    """Band-limited resampling of (samples,) from `rate` to 16 kHz; the result has the same duration."""
    if rate == SAMPLE_RATE:
        return samples
    return np.concatenate([np.empty(0, np.float32), *resampled([samples], rate)])


def resampled(blocks: Iterable[Floats], rate: int) -> Iterator[Floats]:
    """The same of samples that come in blocks of any length (samples,), together as long as the blocks are.

    Blocks of 10 s are cut or filled up in the frequency domain, where a block of whole seconds has whole numbers of
    samples at any rate. The gain falls from 1 to 0 as a squared cosine over the last 8 % of the lower band: the
    response to an edge of the block is then below 1e-6 after the second of margin that is thrown away on each side.
    """
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    margin, whole_s = BLOCK_MARGIN_S * rate, BLOCK_S + 2 * BLOCK_MARGIN_S
    window, filled, heard, given = np.zeros(whole_s * rate, np.float32), margin, 0, 0
    for block in blocks:
        heard += len(block)
        while len(block):
            taken = block[: len(window) - filled]
            window[filled : filled + len(taken)] = taken
            filled, block = filled + len(taken), block[len(taken) :]  # noqa: PLW2901 - what is left of it
            if filled == len(window):
                yield _inner(window, rate)
                given += BLOCK_S * SAMPLE_RATE
                window[: 2 * margin], filled = window[-2 * margin :].copy(), 2 * margin
    while (left := round(heard * SAMPLE_RATE / rate) - given) > 0:
        window[filled:] = 0
        needed_s = min(whole_s, -(-filled // rate) + BLOCK_MARGIN_S)  # short audio takes less time
        yield _inner(window[: needed_s * rate], rate)[:left]
        given += BLOCK_S * SAMPLE_RATE
        window[: 2 * margin], filled = window[-2 * margin :].copy(), 2 * margin


def _inner(window: Floats, rate: int) -> Floats:
    """The window, of whole seconds, at 16 kHz without its margins."""
    whole_s = len(window) // rate
    gain = _gain(whole_s, min(rate, SAMPLE_RATE) / 2)
    spectrum = np.zeros(whole_s * SAMPLE_RATE // 2 + 1, np.complex64)
    spectrum[: len(gain)] = np.fft.rfft(window)[: len(gain)] * gain
    samples = np.fft.irfft(spectrum, whole_s * SAMPLE_RATE) * np.float32(SAMPLE_RATE / rate)
    return samples[BLOCK_MARGIN_S * SAMPLE_RATE :][: (whole_s - 2 * BLOCK_MARGIN_S) * SAMPLE_RATE].astype(
        np.float32, copy=False
    )


@lru_cache(maxsize=16)
def _gain(block_s: int, band_hz: float) -> Floats:
    """Of the frequencies k / block_s Hz up to `band_hz`, which gets 0."""
    share = np.arange(int(band_hz * block_s) + 1) / (band_hz * block_s)
    falling = np.clip((share - PASSBAND) / (1 - PASSBAND), 0, 1)
    return (np.cos(np.pi / 2 * falling) ** 2).astype(np.float32)
