"""Channels that cancel each other, and numbers beyond full scale."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from runtime.audio import Floats, Sound, read_sound
from runtime.errors import AudioError
from tests.runtime.audio_bytes import RATE, speechlike

VOICE, OTHER = speechlike(2.0)[:, 0], speechlike(2.0, seed=3)[:, 0]
HISS = np.random.default_rng(1).normal(0, 0.02, (len(VOICE), 2)).astype(np.float32)
ZEROS = np.zeros_like(VOICE)


def sound_of(folder: Path, *channels: Floats, subtype: str = "FLOAT", rate: int = RATE) -> Sound:
    soundfile.write(folder / "a.wav", np.stack(channels, axis=1), rate, subtype=subtype)
    return read_sound(folder / "a.wav")


CANCELLING = {
    "a pair": ((VOICE, -VOICE), VOICE),
    "the louder counts": ((0.1 * VOICE, -VOICE), -VOICE),
    "with an offset": ((VOICE + 0.2, 0.2 - VOICE), VOICE + 0.2),
    "third silent": ((VOICE, -VOICE, ZEROS), VOICE / 2),
    "third another voice": ((VOICE, OTHER, -VOICE), (VOICE + OTHER) / 2),
    "in noise": ((VOICE + HISS[:, 0], HISS[:, 1] - VOICE), None),
}


@pytest.mark.parametrize("name", CANCELLING)
def test_of_channels_that_cancel_one_counts(tmp_path: Path, name: str) -> None:
    channels, expected = CANCELLING[name]
    sound = sound_of(tmp_path, *channels)
    if expected is None:
        power = np.mean(np.square(channels), axis=1)
        expected = channels[int(power.argmax())]
    np.testing.assert_allclose(sound.samples, expected, atol=1e-6)
    assert len(sound.notes) == 1
    assert "is the opposite of channel" in sound.notes[0]


ORDINARY = {
    "mono twice": (VOICE, VOICE),
    "two voices": (VOICE, OTHER),
    "one channel only": (VOICE, ZEROS),
    "late by a millisecond": (VOICE, np.roll(VOICE, 16)),
    "two voices, one turned": (VOICE + 0.5 * OTHER, OTHER - 0.5 * VOICE),
    "silence": (ZEROS, ZEROS),
    "six": (VOICE, OTHER, HISS[:, 0], ZEROS, 0.2 * VOICE, 0.3 * OTHER),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_channels_are_averaged(tmp_path: Path, name: str) -> None:
    sound = sound_of(tmp_path, *ORDINARY[name])
    np.testing.assert_allclose(sound.samples, np.mean(ORDINARY[name], axis=0), atol=1e-6)
    assert sound.notes == ()


def test_cancelling_is_noticed_at_any_rate_and_in_whole_numbers(tmp_path: Path) -> None:
    voice = speechlike(12.0, rate=48_000)[:, 0]
    expected = sound_of(tmp_path, voice, rate=48_000, subtype="PCM_24").samples
    turned = sound_of(tmp_path, voice, -voice, rate=48_000, subtype="PCM_24").samples
    np.testing.assert_allclose(np.abs(turned), np.abs(expected), atol=1e-6)  # either of the two, equally loud


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("level", [0.05, 1.0, 1.9])
def test_whole_numbers_stored_as_floats_are_scaled(tmp_path: Path, bits: int, level: float) -> None:
    voice = level * VOICE / np.abs(VOICE).max()
    sound = sound_of(tmp_path, np.rint(voice.astype(np.float64) * 2 ** (bits - 1)))
    np.testing.assert_allclose(sound.samples, voice, atol=2**-14)
    assert f"divided by {2 ** (bits - 1)}" in sound.notes[0]


@pytest.mark.parametrize("peak", [0.001, 0.5, 1.0, 1.2, 2.9])
def test_a_little_over_full_scale_is_left_alone(tmp_path: Path, peak: float) -> None:
    voice = (peak * VOICE / np.abs(VOICE).max()).astype(np.float32)
    sound = sound_of(tmp_path, voice)
    np.testing.assert_array_equal(sound.samples, voice)
    assert sound.notes == ()


@pytest.mark.parametrize("peak", [3.5, 9.0])
def test_what_is_far_over_full_scale_is_brought_to_it(tmp_path: Path, peak: float) -> None:
    voice = VOICE / np.abs(VOICE).max()
    sound = sound_of(tmp_path, (peak * voice).astype(np.float32))
    np.testing.assert_allclose(sound.samples, voice, atol=1e-6)
    assert "where 1 is full scale: all are divided by" in sound.notes[0]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32"])
def test_full_scale_of_whole_numbers_is_left_alone(tmp_path: Path, subtype: str) -> None:
    square = np.where(np.sin(np.arange(RATE) / 10) > 0, 1.0, -1.0).astype(np.float32)
    sound = sound_of(tmp_path, square, subtype=subtype)
    np.testing.assert_allclose(sound.samples, square, atol=2**-15)
    assert sound.notes == ()


@pytest.mark.parametrize("value", [30_000.0, 1e12])
def test_numbers_that_are_no_samples_are_refused(tmp_path: Path, value: float) -> None:
    voice = VOICE.copy()
    voice[1000] = value
    with pytest.raises(AudioError, match="where 1 is full scale: it is damaged or no audio"):
        sound_of(tmp_path, voice)
