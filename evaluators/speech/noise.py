"""Noise added to a clip at a chosen signal-to-noise ratio."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.errors import InputError
from evaluators.speech.audio import read_audio

MIXING_VERSION = 2
"""To be raised whenever the same noise would give other samples."""
_HELD_FILES = 16

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class AddedNoise:
    """Noise in one clip: `file` from its sample `start` (at 16 kHz) on, and again from its beginning where it ends."""

    file: Path
    sha256: str
    start: int
    snr_db: float

    @property
    def identity(self) -> str:
        """All that decides what is added, wherever the file lies."""
        return f"{self.sha256}/{self.start}/{self.snr_db!r}/{MIXING_VERSION}"

    def added_to(self, speech: Samples) -> Samples:
        """Speech at 16 kHz with this noise in it (see `mix`)."""
        positions = np.arange(self.start, self.start + len(speech))
        return mix(speech, read_noise(self.file).take(positions, mode="wrap"), snr_db=self.snr_db)


def mix(speech: Samples, noise: Samples, *, snr_db: float) -> Samples:
    """speech + g noise, where g makes 10 log10(mean(speech^2) / mean((g noise)^2)) equal to `snr_db`.

    Both have the same shape (samples,). The means go over the whole clip, its pauses included. Where the sum exceeds
    full scale, all of it is made quieter until its peak is 1: nothing is clipped, and the ratio stays.
    Raises InputError when one of the two is digital silence, which has no ratio.
    """
    for samples, what in ((speech, "speech"), (noise, "noise")):
        if not power(samples):
            raise InputError(f"the {what} is digital silence, so no signal-to-noise ratio can be set")
    mixed = speech + noise_gain(speech, noise, snr_db=snr_db) * noise.astype(np.float64)
    return (mixed / max(1.0, np.abs(mixed).max())).astype(np.float32)


def power(samples: Samples) -> float:
    """The mean of their squares; 0 only for digital silence."""
    return float(np.mean(np.square(samples, dtype=np.float64)))


def noise_gain(speech: Samples, noise: Samples, *, snr_db: float) -> float:
    """The g of `mix`; neither may be digital silence."""
    return float(np.sqrt(power(speech) / power(noise)) * 10 ** (-snr_db / 20))


@lru_cache(maxsize=_HELD_FILES)
def read_noise(file: Path) -> Samples:
    """The file's samples at 16 kHz, kept in memory: it must not change while it is in use. Raises InputError."""
    samples = read_audio(file)
    samples.setflags(write=False)
    return samples
