"""Whisper's log-mel spectrogram in numpy, float32 throughout."""

from functools import cache

import numpy as np
import numpy.typing as npt

from runtime.audio import SAMPLE_RATE, Floats

FFT_SAMPLES, HOP_SAMPLES = 400, 160
WINDOW_SAMPLES, WINDOW_FRAMES = 480_000, 3000
FLOOR = 1e-10
BLOCK_FRAMES = 500
"""Frames at a time: the complex spectra of a block are 0.8 MB, and stay in the cache."""


def log_mel(samples: Floats, n_mels: int) -> Floats:
    """The spectrogram of at most 30 s of 16 kHz audio, padded with silence to 30 s: (n_mels, 3000).

    log10 of the power in Slaney's mel bands, clamped to 8 below its maximum over the 30 s, then (x + 4) / 4.
    Agrees with whisper.audio.log_mel_spectrogram to 3e-5. Frames without any sound are not computed.
    """
    if len(samples) > WINDOW_SAMPLES:
        raise ValueError(f"at most {WINDOW_SAMPLES} samples are expected, but got {len(samples)}")
    padded = _padded(samples)
    window = _hann()
    filters = mel_filters(n_mels)
    # frame i sees the samples from 160 i - 200 to 160 i + 199 (the padding shifts them by 200)
    sounding = min(WINDOW_FRAMES, (len(samples) + FFT_SAMPLES // 2) // HOP_SAMPLES + 1)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SAMPLES)[::HOP_SAMPLES]
    mel = np.full((n_mels, WINDOW_FRAMES), np.log10(FLOOR), np.float32)
    for start in range(0, sounding, BLOCK_FRAMES):
        stop = min(start + BLOCK_FRAMES, sounding)
        spectrum = np.fft.rfft(frames[start:stop] * window).astype(np.complex64, copy=False)
        power = spectrum.real**2 + spectrum.imag**2
        mel[:, start:stop] = np.log10(np.maximum(filters @ power.T, FLOOR))
    np.maximum(mel, mel.max() - 8, out=mel)
    mel += 4
    mel /= 4
    return mel


def _padded(samples: Floats) -> Floats:
    """30 s, with 200 samples mirrored at each end (torch.stft's reflection)."""
    half = FFT_SAMPLES // 2
    padded = np.zeros(WINDOW_SAMPLES + 2 * half, np.float32)
    padded[half : half + len(samples)] = samples
    padded[:half] = padded[2 * half : half : -1]
    padded[-half:] = padded[-half - 2 : -2 * half - 2 : -1]
    return padded


@cache
def _hann() -> Floats:
    """The periodic Hann window."""
    turns = np.arange(FFT_SAMPLES) / FFT_SAMPLES
    return (0.5 - 0.5 * np.cos(2 * np.pi * turns)).astype(np.float32)


@cache
def mel_filters(n_mels: int) -> Floats:
    """Triangles of equal area on Slaney's mel scale, 0 to 8 kHz: (n_mels, 201), as librosa.filters.mel makes them."""
    edges = _slaney_hz(np.linspace(0, _slaney_mel(SAMPLE_RATE / 2), n_mels + 2))
    bins = np.linspace(0, SAMPLE_RATE / 2, FFT_SAMPLES // 2 + 1)
    widths = np.diff(edges)
    rising = (bins - edges[:-2, None]) / widths[:-1, None]
    falling = (edges[2:, None] - bins) / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def _slaney_mel(hz: float) -> float:
    """Linear to 1 kHz (15 mel), then 27 mel per factor of 6.4 (M. Slaney, Auditory Toolbox, 1998)."""
    return 15 + 27 * np.log(hz / 1000) / np.log(6.4) if hz >= 1000 else hz * 15 / 1000


def _slaney_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(mel < 15, mel * 1000 / 15, 1000 * 6.4 ** ((mel - 15) / 27))
