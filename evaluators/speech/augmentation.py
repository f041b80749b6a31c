"""The same speech under other conditions: slower or faster, and with noise."""

import zlib
from dataclasses import dataclass

import numpy as np
import soxr
from scipy.signal import fftconvolve

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


def at_level(samples: Samples, level_db: float) -> Samples:
    """So many decibels louder, and at most full scale."""
    scaled: Samples = samples * np.float32(10 ** (level_db / 20))
    return (scaled / max(1.0, float(np.abs(scaled).max(initial=0.0)))).astype(np.float32)


def reverberated(samples: Samples, rng: np.random.Generator, *, decay_s: float, reverberant_db: float) -> Samples:
    """The clip in a room, as long and as loud as before.

    The room's response is the direct sound and noise that decays by 60 dB in `decay_s` (Polack 1988, "La transmission
    de l'energie sonore dans les salles"), whose energy is `reverberant_db` of the direct sound's.
    """
    times = np.arange(round(decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(times)) * 10 ** (-3 * times / decay_s)
    response = tail * np.sqrt(10 ** (reverberant_db / 10) / np.square(tail).sum())
    response[0] += 1
    heard = fftconvolve(samples, response)[: len(samples)]
    loudness = power(heard.astype(np.float32))
    return (heard * np.sqrt(power(samples) / loudness)).astype(np.float32) if loudness else samples
