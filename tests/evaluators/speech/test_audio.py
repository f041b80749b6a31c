"""Audio: what was written as a sine comes back as that sine; what is broken is named."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from evaluators.speech.audio import SAMPLE_RATE, read_audio, stated_duration_s
from runtime import audio as runtime_audio

FREQUENCY_HZ = 440.0
AMPLITUDE = 0.4


def sine(rate: int, seconds: float) -> npt.NDArray[np.float64]:
    return AMPLITUDE * np.sin(2 * np.pi * FREQUENCY_HZ * np.arange(round(rate * seconds)) / rate)


def noisy_sine(rate: int, seconds: float) -> npt.NDArray[np.float64]:
    tone = sine(rate, seconds)
    return tone + 0.05 * np.random.default_rng(0).standard_normal(len(tone))


def written(path: Path, samples: npt.NDArray[np.float64], rate: int) -> Path:
    soundfile.write(path, samples, rate)
    return path


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("ending", "rate"),
    [
        ("wav", 8_000),
        ("wav", 44_100),
        ("flac", 16_000),
        ("flac", 48_000),
        ("mp3", 44_100),
        ("mp3", 16_000),
        ("ogg", 22_050),
    ],
)
def test_a_sine_keeps_its_frequency_level_and_length(tmp_path: Path, ending: str, rate: int, channels: int) -> None:
    seconds = 1.3
    tone = sine(rate, seconds)
    path = written(tmp_path / f"tone.{ending}", np.stack([tone] * channels, axis=1), rate)

    audio = read_audio(path)

    assert audio.dtype == np.float32
    assert abs(len(audio) - seconds * SAMPLE_RATE) <= 1
    inner = audio[SAMPLE_RATE // 10 : SAMPLE_RATE // 10 + SAMPLE_RATE]  # one second: bins are 1 Hz apart
    assert np.argmax(np.abs(np.fft.rfft(inner))) == FREQUENCY_HZ
    assert np.sqrt(np.mean(inner**2)) == pytest.approx(AMPLITUDE / np.sqrt(2), rel=0.02)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=st.integers(1, 5000), rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])
)
def test_the_length_is_the_duration_at_16_khz(tmp_path: Path, samples: int, rate: int) -> None:
    path = written(tmp_path / "a.wav", np.zeros(samples), rate)

    assert stated_duration_s(path) == samples / rate
    assert abs(len(read_audio(path)) - samples * SAMPLE_RATE / rate) < 1
    expected = samples * SAMPLE_RATE / rate
    assert expected - 1 < len(read_audio(path)) < expected + 1 if expected >= 1 else True


def test_16_khz_pcm_comes_back_exactly(tmp_path: Path) -> None:
    pcm = np.random.default_rng(1).integers(-32768, 32767, 4000, dtype=np.int16)
    soundfile.write(tmp_path / "a.flac", pcm, SAMPLE_RATE)

    np.testing.assert_array_equal(read_audio(tmp_path / "a.flac"), pcm / np.float32(32768))


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = np.full(1000, 0.5), np.full(1000, -0.25)
    path = written(tmp_path / "a.wav", np.stack([left, right], axis=1), SAMPLE_RATE)

    np.testing.assert_allclose(read_audio(path), 0.125, atol=1 / 32768)


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "ogg"])
def test_a_truncated_file_is_refused(tmp_path: Path, ending: str, kept: float) -> None:
    whole = written(tmp_path / f"whole.{ending}", noisy_sine(44_100, 2.0), 44_100).read_bytes()
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(whole[: int(len(whole) * kept)])

    with pytest.raises(InputError, match=r"cut\.\w+ (is truncated|does not decode)"):
        read_audio(path)


def test_a_wav_that_promises_more_than_it_holds_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", sine(16_000, 1.0), 16_000)
    path.write_bytes(path.read_bytes()[:-2])

    with pytest.raises(InputError, match=r"a\.wav is truncated: it ends before the length that its header states"):
        read_audio(path)


def test_a_wav_from_a_pipe_has_no_length_and_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", sine(16_000, 1.0), 16_000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)

    assert len(read_audio(path)) == 16_000


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_an_mp3_without_a_stated_length_is_read_whole(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.mp3"
    tone = noisy_sine(48_000, 3.0)
    tone[len(tone) // 2 :] = 0
    soundfile.write(path, tone, 48_000, bitrate_mode=mode, compression_level=0.6)
    content = path.read_bytes()
    path.write_bytes(content[content.find(content[:2], 4) :])  # without the first frame, which states the length

    assert len(read_audio(path)) == pytest.approx(3 * SAMPLE_RATE, abs=3 * 1152)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    samples = sine(16_000, 1.0)
    samples[100] = value
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")

    with pytest.raises(InputError, match=r"a\.wav has samples that are not finite"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"this is a text file, not audio" * 50, "does not decode: Format not recognised"),
    ],
)
def test_what_is_no_audio_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(InputError, match=rf"a\.wav {reason}"):
        read_audio(path)


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no audio"):
        read_audio(written(tmp_path / "a.wav", np.zeros(0), 16_000))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_audio(tmp_path)


@pytest.mark.parametrize(("ending", "rate"), [("wav", 8_000), ("flac", 48_000), ("mp3", 44_100), ("ogg", 22_050)])
def test_what_is_scored_is_what_the_runtime_hears(tmp_path: Path, ending: str, rate: int) -> None:
    path = written(tmp_path / f"a.{ending}", noisy_sine(rate, 1.3), rate)

    np.testing.assert_array_equal(read_audio(path), runtime_audio.read_audio(path))
