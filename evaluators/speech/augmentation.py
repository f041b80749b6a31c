"""The same speech under other conditions: slower or faster, and with noise."""

import zlib
from dataclasses import dataclass

import numpy as np
import soxr

from evaluators.speech.audio import SAMPLE_RATE
from evaluators.speech.noise import Samples, noise_gain, power
from runtime.window import WINDOW_LIMIT_S


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Ranges to draw from: `speeds`, where 1.1 is a tenth faster, and `snr_db`. `noises`: recordings; white if none."""

    speeds: tuple[float, float]
    snr_db: tuple[float, float]
    noises: tuple[Samples, ...] = ()

    def applied(self, samples: Samples, rng: np.random.Generator) -> Samples:
        """The clip at a drawn speed, at most 30 s long, with a drawn noise at a drawn SNR."""
        speed = max(rng.uniform(*self.speeds), len(samples) / (WINDOW_LIMIT_S * SAMPLE_RATE))
        changed = at_speed(samples, speed)
        if self.noises:
            noise = self.noises[rng.integers(len(self.noises))]
            noise = np.roll(noise, rng.integers(len(noise)))
        else:
            noise = rng.standard_normal(len(changed), dtype=np.float32)
        return with_noise(changed, noise, snr_db=rng.uniform(*self.snr_db))


def generator_of(seed: int, copy: int, utterance_id: str) -> np.random.Generator:
    """Random numbers of one copy of one utterance, whatever was drawn before."""
    return np.random.default_rng([seed, copy, zlib.crc32(utterance_id.encode())])


def at_speed(samples: Samples, speed: float) -> Samples:
    """Resampled so that it lasts 1 / `speed` times as long; the pitch rises with it (Ko et al. 2015)."""
    changed: Samples = soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE)
    return changed


def with_noise(samples: Samples, noise: Samples, *, snr_db: float) -> Samples:
    """The sum of a clip and noise, repeated or cut to its length, at 10 log10(power / power of the noise) = `snr_db`.

    Powers are means over the whole clip. A silent clip or noise stays as it is.
    """
    fitted = np.resize(noise, len(samples))
    if not (power(samples) and power(fitted)):
        return samples
    mixed: Samples = (samples + noise_gain(samples, fitted, snr_db=snr_db) * fitted).astype(np.float32)
    return mixed
