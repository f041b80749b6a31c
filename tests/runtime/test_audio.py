"""Reading and resampling audio, against libsndfile, soxr and exact tones."""

import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.audio import Floats, read_audio, resample
from runtime.errors import AudioError
from runtime.resampling import resampled


def noise(seconds: float, rate: int, channels: int = 1) -> Floats:
    values = np.random.default_rng(0).uniform(-0.9, 0.9, (round(seconds * rate), channels))
    return values.astype(np.float32)


def tone(hz: float, rate: int, seconds: float) -> Floats:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("container", ["WAV", "WAVEX"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_wav_samples_are_those_of_libsndfile(tmp_path: Path, subtype: str, container: str, channels: int) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, noise(5, 16_000, channels), 16_000, subtype=subtype, format=container)
    expected, _ = soundfile.read(file, dtype="float32", always_2d=True)
    np.testing.assert_allclose(read_audio(file), expected.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize(("name", "subtype"), [("a.flac", "PCM_16"), ("a.ogg", "VORBIS"), ("a.wav", "ULAW")])
def test_other_formats_are_read_by_soundfile(tmp_path: Path, name: str, subtype: str) -> None:
    soundfile.write(tmp_path / name, noise(1, 16_000, 2), 16_000, subtype=subtype)
    expected, _ = soundfile.read(tmp_path / name, dtype="float32")
    np.testing.assert_allclose(read_audio(tmp_path / name), expected.mean(axis=1), atol=1e-7)


def test_without_soundfile_wav_is_read_and_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1, 16_000), 16_000)
    soundfile.write(tmp_path / "a.flac", noise(1, 16_000), 16_000)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert len(read_audio(tmp_path / "a.wav")) == 16_000
    with pytest.raises(AudioError, match=r"a.flac is no WAV .* pip install soundfile"):
        read_audio(tmp_path / "a.flac")


def test_chunks_around_the_samples_are_skipped(tmp_path: Path) -> None:
    values = np.arange(-50, 50, dtype="<i2")
    layout = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    body = b"WAVE" + chunk(b"LIST", b"odd") + chunk(b"fmt ", layout) + chunk(b"data", values.tobytes())
    file = tmp_path / "a.wav"
    file.write_bytes(chunk(b"RIFF", body + chunk(b"LIST", b"later")))
    np.testing.assert_array_equal(read_audio(file), values / 32768)


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


@pytest.mark.parametrize("placeholder", [0xFFFF_FFFF, 0x7FFF_F000])
def test_a_wav_written_to_a_pipe_is_read_to_its_end(tmp_path: Path, placeholder: int) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(wav_stating(placeholder))
    assert len(read_audio(file)) == 100


def wav_stating(size: int, *, rate: int = 16_000) -> bytes:
    """100 samples behind a header that states `size` bytes."""
    layout = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    head = b"RIFF" + struct.pack("<I", 236) + b"WAVE" + chunk(b"fmt ", layout)
    return head + b"data" + struct.pack("<I", size) + bytes(200)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"no audio at all", "does not decode"),
        (wav_stating(201), "truncated: it ends before"),
        (wav_stating(200)[:30], "truncated: a WAV without samples"),
        (wav_stating(200)[:36], "truncated: a WAV without samples"),
        (wav_stating(0)[:44], "holds no audio"),
        (wav_stating(200, rate=0), "states 0 samples a second"),
        (wav_stating(200, rate=2_000_000_000), "states 2000000000 samples"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "broken.wav"
    file.write_bytes(content)
    with pytest.raises(AudioError, match=f"broken.wav .*{reason}") as raised:
        read_audio(file)
    assert "\n" not in str(raised.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"no\.wav does not exist"):
        read_audio(tmp_path / "no.wav")
    with pytest.raises(AudioError, match="cannot be read"):
        read_audio(tmp_path)


def test_samples_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    values = noise(1, 16_000)
    values[100] = np.nan
    soundfile.write(tmp_path / "a.wav", values, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="not finite"):
        read_audio(tmp_path / "a.wav")


def test_a_cut_flac_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.flac"
    soundfile.write(file, noise(1, 16_000), 16_000)
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(AudioError, match=r"a\.flac"):
        read_audio(file)


@given(st.binary(max_size=200))
@settings(max_examples=50)
def test_any_bytes_are_audio_or_an_error(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.wav"
    file.write_bytes(b"RIFF\0\0\0\0WAVEfmt " + tail)
    with pytest.raises(AudioError):
        read_audio(file)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 37_813])
def test_a_tone_below_both_bands_keeps_amplitude_and_phase(rate: int) -> None:
    heard = resample(tone(1234.5, rate, 23.4), rate)
    expected = tone(1234.5, 16_000, 23.4)
    assert len(heard) == round(23.4 * 16_000)
    inner = slice(800, -800)  # the ends fade, as with any filter
    np.testing.assert_allclose(heard[inner], expected[inner], atol=1e-5)


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_a_tone_above_8_khz_vanishes(rate: int) -> None:
    heard = resample(tone(8100, rate, 12), rate)
    assert np.abs(heard[800:-800]).max() < 1e-5


def test_upsampling_adds_nothing_above_the_old_band() -> None:
    heard = resample(noise(4, 8000)[:, 0], 8000)
    power = np.abs(np.fft.rfft(heard * np.hanning(len(heard)))) ** 2
    above = power[len(power) * 41 // 80 :].sum()
    assert above < 1e-8 * power.sum()


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_speech_is_that_of_soxr(clips: list[Floats], rate: int) -> None:
    speech = np.concatenate(clips[:3])
    original = soxr.resample(speech, 16_000, rate)
    expected, heard = soxr.resample(original, rate, 16_000), resample(original, rate)
    # both filters differ only in the last tenth of the band
    error = np.fft.rfft(heard - expected)[: int(0.9 * min(rate, 16_000) / 16_000 * len(heard) / 2)]
    assert np.linalg.norm(error) < 1e-3 * np.linalg.norm(np.fft.rfft(expected))


def test_16_khz_is_left_alone() -> None:
    samples = noise(1, 16_000)[:, 0]
    assert resample(samples, 16_000) is samples


@given(st.lists(st.integers(0, 90_000), min_size=1, max_size=8), st.sampled_from([8_000, 11_025, 48_000]))
@settings(max_examples=20, deadline=None)
def test_blocks_of_any_length_give_the_same_samples(lengths: list[int], rate: int) -> None:
    samples = noise(sum(lengths) / rate, rate)[:, 0]
    blocks = np.split(samples, np.cumsum(lengths)[:-1])
    heard = np.concatenate([np.empty(0, np.float32), *resampled(blocks, rate)])
    np.testing.assert_array_equal(heard, resample(samples, rate))
    assert len(heard) == round(len(samples) * 16_000 / rate)


@pytest.mark.parametrize(("name", "subtype"), [("a.flac", "PCM_16"), ("a.wav", "PCM_24")])
def test_long_audio_takes_little_more_memory_than_its_samples(tmp_path: Path, name: str, subtype: str) -> None:
    soundfile.write(tmp_path / name, noise(60, 48_000, 2), 48_000, subtype=subtype)
    read_audio(tmp_path / name)  # what is imported and cached does not count
    tracemalloc.start()
    samples = read_audio(tmp_path / name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # both channels at once would be 23 MB, and their mean 12; twelve seconds at 48 kHz are 2, with their transforms 15
    assert peak < 1.25 * samples.nbytes + 16e6
