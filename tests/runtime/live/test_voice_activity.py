"""Voice activity on signals of known levels."""

import numpy as np
import pytest

from runtime.audio import SAMPLE_RATE, Floats
from runtime.live.voice_activity import FAINTEST_DB, VoiceActivity

RNG = np.random.default_rng(0)
BLOCK = 1600


def noise(seconds: float, level_db: float) -> Floats:
    """White noise of that mean power, in dB of full scale."""
    return (RNG.normal(0, 10 ** (level_db / 20), round(seconds * SAMPLE_RATE))).astype(np.float32)


def heard(activity: VoiceActivity, samples: Floats) -> list[bool]:
    """Whether there is speech after each tenth of a second."""
    found = []
    for start in range(0, len(samples) - BLOCK + 1, BLOCK):
        activity.hear(samples[start : start + BLOCK])
        found.append(activity.is_speech)
    return found


def test_before_anything_was_heard_it_is_quiet() -> None:
    assert VoiceActivity().quiet_s == float("inf")


@pytest.mark.parametrize("level_db", [-90.0, -58.0])
def test_what_is_faint_is_never_speech(level_db: float) -> None:
    assert level_db < FAINTEST_DB
    assert not any(heard(VoiceActivity(), noise(5, level_db)))


@pytest.mark.parametrize("floor_db", [-70.0, -50.0, -30.0])
def test_a_burst_above_the_floor_is_speech_while_it_lasts(floor_db: float) -> None:
    activity = VoiceActivity()
    heard(activity, noise(12, floor_db))
    assert activity.floor_db == pytest.approx(floor_db, abs=0.5)
    assert not activity.is_speech
    assert all(heard(activity, noise(1, floor_db + 20))[1:])
    assert not any(heard(activity, noise(1, floor_db))[1:])
    assert activity.quiet_s == pytest.approx(1, abs=0.06)


def test_the_floor_follows_noise_that_begins() -> None:
    """Noise of a fan counts as speech at first, and no longer when a fifth of what is remembered is fan."""
    activity = VoiceActivity()
    heard(activity, noise(12, -60))
    found = heard(activity, noise(12, -30))
    assert all(found[1:20])
    assert not any(found[90:])


def test_between_the_two_thresholds_what_was_before_stays() -> None:
    activity = VoiceActivity()
    heard(activity, noise(12, -50))
    assert not any(heard(activity, noise(0.5, -46)))
    heard(activity, noise(0.2, -30))
    assert all(heard(activity, noise(0.3, -46))[1:])


def test_a_click_is_no_speech() -> None:
    activity = VoiceActivity()
    heard(activity, noise(2, -70))
    click = noise(0.1, -70)
    click[:300] = 0.5
    assert not any(heard(activity, click))
    assert activity.quiet_s > 1
