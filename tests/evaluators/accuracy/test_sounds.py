"""The sounds in which nobody speaks: levels and frequencies by hand."""

import numpy as np
import pytest

from evaluators.accuracy.sounds import BATTERY, click, coloured_noise, fragment, tones
from runtime.audio import SAMPLE_RATE, Floats


def level_db(samples: Floats) -> float:
    return float(10 * np.log10(np.mean(np.square(samples.astype(np.float64)))))


def power(samples: Floats) -> Floats:
    """By frequency, in steps of 0.2 Hz."""
    return np.square(np.abs(np.fft.rfft(samples)))


@pytest.mark.parametrize("name", sorted(BATTERY.keys() - {"silence"}))
def test_every_sound_is_the_same_again_short_and_not_silent(name: str) -> None:
    samples = BATTERY[name]()
    assert samples.dtype == np.float32
    assert np.array_equal(samples, BATTERY[name]())
    assert len(samples) in {20, 5 * SAMPLE_RATE, 10 * SAMPLE_RATE}
    assert 1e-3 < np.abs(samples).max() <= 1


@pytest.mark.parametrize(("name", "decibels"), [("noise", -20), ("faint noise", -60)])
def test_white_noise_has_the_level_named_and_silence_none(name: str, decibels: float) -> None:
    assert level_db(BATTERY[name]()) == pytest.approx(decibels, abs=0.1)
    assert not BATTERY["silence"]().any()


def test_tones_are_those_named_at_the_level_named() -> None:
    hum = tones(-40, 50, 150)
    assert level_db(hum) == pytest.approx(-40, abs=0.01)
    assert sorted(np.argsort(power(hum))[-2:] * 0.2) == pytest.approx([50.0, 150.0])


@pytest.mark.parametrize(("slope", "decibels"), [(1.0, -10.0), (2.0, -20.0)])
def test_pink_noise_falls_by_10_and_brown_by_20_decibels_a_decade(slope: float, decibels: float) -> None:
    samples = coloured_noise(-30, slope)
    low, high = (power(samples)[round(f * 4.5) : round(f * 5.5)].mean() for f in (300, 3000))
    assert level_db(samples) == pytest.approx(-30, abs=0.01)
    assert 10 * np.log10(high / low) == pytest.approx(decibels, abs=1.5)


def test_a_click_is_one_sample_and_a_fragment_20() -> None:
    assert np.count_nonzero(click()) == 1
    assert len(fragment()) == 20
