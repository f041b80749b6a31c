"""Sounds in which nobody speaks, synthesised: what a model hears in them is invented.

Always the same samples; decibels are of full scale, by root mean square where the sound is steady.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from runtime.audio import SAMPLE_RATE

Floats = npt.NDArray[np.float32]

SOUND_S, NOISE_S = 5.0, 10.0
CLICK_LEVEL = 0.5


def white_noise(level: float) -> Floats:
    """With this root mean square; digital silence for 0."""
    samples = np.random.default_rng(0).normal(0, 1, round(NOISE_S * SAMPLE_RATE))
    return (level * samples).astype(np.float32)


def tones(level_db: float, *hertz: float) -> Floats:
    """Sines of equal amplitude, together at the level."""
    seconds = np.arange(round(SOUND_S * SAMPLE_RATE)) / SAMPLE_RATE
    return _at(level_db, np.sum([np.sin(2 * np.pi * frequency * seconds) for frequency in hertz], axis=0))


def coloured_noise(level_db: float, slope: float) -> Floats:
    """Noise whose power falls with frequency to the power of `slope`: 1 is pink, 2 brown; flat below 20 Hz."""
    count = round(SOUND_S * SAMPLE_RATE)
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=count))
    frequencies = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 20.0)
    return _at(level_db, np.fft.irfft(spectrum / frequencies ** (slope / 2), count))


def click() -> Floats:
    """One sample in digital silence."""
    samples = np.zeros(round(SOUND_S * SAMPLE_RATE), np.float32)
    samples[len(samples) // 2] = CLICK_LEVEL
    return samples


def fragment() -> Floats:
    """20 samples of noise, as a recorder leaves that was stopped at once."""
    return np.random.default_rng(0).normal(0, 0.1, 20).astype(np.float32)


def _at(level_db: float, samples: npt.NDArray[np.float64]) -> Floats:
    level = 10 ** (level_db / 20) / np.sqrt(np.mean(np.square(samples)))
    return (level * samples).astype(np.float32)


BATTERY: dict[str, Callable[[], Floats]] = {
    "silence": lambda: white_noise(0.0),
    "faint noise": lambda: white_noise(0.001),
    "noise": lambda: white_noise(0.1),
    "faint hum": lambda: tones(-40, 50, 150),
    "loud hum": lambda: tones(-20, 50, 150),
    "a click": click,
    "a faint dial tone": lambda: tones(-40, 350, 440),
    "a loud dial tone": lambda: tones(-20, 350, 440),
    "faint pink noise": lambda: coloured_noise(-50, 1),
    "loud pink noise": lambda: coloured_noise(-20, 1),
    "faint brown noise": lambda: coloured_noise(-50, 2),
    "loud brown noise": lambda: coloured_noise(-20, 2),
    "20 samples": fragment,
}
"""By what a sound is called in JSON, notes and warnings. The faint noise is as loud as a quiet room."""
