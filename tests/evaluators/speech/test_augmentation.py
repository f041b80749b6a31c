"""Speed and noise against their definitions."""

import numpy as np
import pytest

from evaluators.speech.augmentation import Conditions, at_speed, generator_of, with_noise

RATE = 16_000


def tone(frequency: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(RATE * seconds)) / RATE).astype(np.float32)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0, 30.0])
@pytest.mark.parametrize("length", [1000, RATE, 50_000])
def test_noise_is_mixed_at_the_ratio_that_was_asked_for(snr_db: float, length: int) -> None:
    speech = tone(440)
    noise = np.random.default_rng(0).normal(0, 3, length).astype(np.float32)
    added = with_noise(speech, noise, snr_db=snr_db).astype(np.float64) - speech
    ratio = 10 * np.log10(np.mean(speech.astype(np.float64) ** 2) / np.mean(added**2))
    assert ratio == pytest.approx(snr_db, abs=0.01)


def test_silence_stays_as_it_is() -> None:
    silence, noise = np.zeros(100, np.float32), np.ones(100, np.float32)
    assert np.array_equal(with_noise(silence, noise, snr_db=10), silence)
    assert np.array_equal(with_noise(noise, silence, snr_db=10), noise)


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.25])
def test_a_faster_tone_is_shorter_and_higher(speed: float) -> None:
    changed = at_speed(tone(400), speed)
    assert len(changed) == pytest.approx(RATE / speed, abs=2)
    spectrum = np.abs(np.fft.rfft(changed))
    assert np.argmax(spectrum) * RATE / len(changed) == pytest.approx(400 * speed, rel=0.01)


def test_the_same_copy_is_the_same_and_others_are_not() -> None:
    conditions = Conditions(speeds=(0.9, 1.1), snr_db=(10, 30))
    first, again, other_copy, other_clip, other_seed = (
        conditions.applied(tone(300), generator_of(*which))
        for which in ((1, 1, "a"), (1, 1, "a"), (1, 2, "a"), (1, 1, "b"), (2, 1, "a"))
    )
    assert np.array_equal(first, again)
    assert not any(np.array_equal(first, other) for other in (other_copy, other_clip, other_seed))


def test_conditions_stay_within_their_ranges_and_within_30_s() -> None:
    noise = np.random.default_rng(1).normal(0, 1, 500).astype(np.float32)
    conditions = Conditions(speeds=(0.8, 1.2), snr_db=(20, 20), noises=(noise,))
    lengths = [len(conditions.applied(tone(300), generator_of(0, n, "a"))) / RATE for n in range(20)]
    assert 1 / 1.2 - 0.01 < min(lengths) < 0.95
    assert 1.05 < max(lengths) < 1 / 0.8 + 0.01
    long = [len(conditions.applied(tone(300, 29.0), generator_of(0, n, "a"))) / RATE for n in range(10)]
    assert max(long) == pytest.approx(30, abs=0.01)
