"""Files as recorders, pipes and people leave them: all of the sound is read, or one line says why not.

The oracles are the samples of the parts, libsndfile on whole files, and ffmpeg (PyAV) as a second decoder.
"""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.audio import Floats, Sound, read_sound, stated_duration_s
from runtime.errors import AudioError
from tests.runtime.audio_bytes import (
    RATE,
    ape_tag,
    chunk,
    encoded,
    id3v1,
    id3v2,
    mp3,
    speechlike,
    stating_bytes,
    stating_frames,
    stating_samples,
    without_end_flag,
    without_first_frame,
)

Heard = Callable[[bytes], Sound]
FLAC = encoded("FLAC", "PCM_16", speechlike(1.5))
WAV = encoded("WAV", "PCM_16", speechlike(1.5))
SAMPLES = speechlike(1.5)[:, 0]


@pytest.fixture
def heard(tmp_path: Path) -> Heard:
    """Reads a file with that content, whose name tells nothing."""

    def read(content: bytes) -> Sound:
        (tmp_path / "sound").write_bytes(content)
        return read_sound(tmp_path / "sound")

    return read


def refused(heard: Heard, content: bytes, reason: str) -> None:
    with pytest.raises(AudioError, match=reason) as raised:
        heard(content)
    assert "\n" not in str(raised.value)


def is_pcm(samples: Floats, expected: Floats = SAMPLES) -> None:
    """Within a step of 16 bits."""
    assert len(samples) == len(expected)
    np.testing.assert_allclose(samples, expected, atol=2**-15)


def decoded_by_ffmpeg(content: bytes) -> int:
    """How many samples it finds, at the file's own rate."""
    with av.open(io.BytesIO(content)) as file:
        return sum(frame.samples for frame in file.decode(audio=0))


# several recordings in one file

CHAINS = {
    "mp3": (mp3(1.3), mp3(0.9, seed=1)),
    "mp3 of three rates": (mp3(1.0), mp3(0.8, rate=44_100, channels=2), mp3(0.5, rate=24_000)),
    "opus": (encoded("OGG", "OPUS", speechlike(1.3)), encoded("OGG", "OPUS", speechlike(0.9, seed=1))),
    "vorbis": (
        encoded("OGG", "VORBIS", speechlike(1.3)),
        encoded("OGG", "VORBIS", speechlike(0.9, seed=1, rate=44_100, channels=2), rate=44_100),
        encoded("OGG", "OPUS", speechlike(0.5, seed=2)),
    ),
    "flac": (FLAC, encoded("FLAC", "PCM_24", speechlike(0.7, rate=48_000, channels=2), rate=48_000)),
    "wav": (WAV, encoded("WAV", "FLOAT", speechlike(0.7, rate=8_000), rate=8_000), WAV),
    "telephone wav": (encoded("WAV", "ULAW", speechlike(0.5)), encoded("WAV", "GSM610", speechlike(0.7))),
}


@pytest.mark.parametrize("name", CHAINS)
def test_recordings_in_one_file_follow_one_another(heard: Heard, name: str, tmp_path: Path) -> None:
    alone = [heard(part).samples for part in CHAINS[name]]
    together = heard(b"".join(CHAINS[name]))
    np.testing.assert_array_equal(together.samples, np.concatenate(alone))
    assert together.notes == ()
    assert stated_duration_s(tmp_path / "sound") == pytest.approx(len(together.samples) / RATE, abs=1e-3)


# MP3


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_mp3_of_variable_rate_without_a_stated_length_is_read_whole(heard: Heard, rate: int, channels: int) -> None:
    whole = mp3(3.0, rate=rate, channels=channels, variable=True)
    bare = without_first_frame(whole)
    sound = heard(bare)
    # 529 samples are the decoder's own delay, which libsndfile leaves out
    assert len(sound.samples) == pytest.approx((decoded_by_ffmpeg(bare) - 529) * RATE / rate, abs=1)
    assert len(sound.samples) >= len(heard(whole).samples) == 3 * RATE
    assert sound.notes == ()


def test_without_a_stated_length_the_same_samples_are_heard(heard: Heard) -> None:
    whole = mp3(3.0, variable=True)
    with_length, without = heard(whole).samples, heard(without_first_frame(whole)).samples
    delay = 576  # of LAME's encoder
    np.testing.assert_allclose(without[delay:][: len(with_length)], with_length, atol=1e-6)


TAGGED = {
    "before": id3v2() + mp3(),
    "twice before": id3v2(300) + id3v2() + mp3(),
    "after": mp3() + id3v1(),
    "ape after": mp3() + ape_tag() + id3v1(),
    "between": mp3() + id3v1() + id3v2() + mp3(),
}


@pytest.mark.parametrize("place", TAGGED)
def test_tags_are_no_sound(heard: Heard, place: str) -> None:
    sound, alone = heard(TAGGED[place]), heard(mp3()).samples
    np.testing.assert_array_equal(sound.samples, np.tile(alone, 2 if place == "between" else 1))
    assert sound.notes == ()


def test_a_tag_within_a_recording_is_no_sound(heard: Heard) -> None:
    content = mp3()
    frame = content.find(content[:2], len(content) // 2)
    assert len(heard(content[:frame] + id3v2() + content[frame:]).samples) == 2 * RATE


def test_what_is_no_frame_is_skipped_and_said(heard: Heard) -> None:
    sound = heard(b"no frame" * 50 + mp3())
    np.testing.assert_array_equal(sound.samples, heard(mp3()).samples)
    assert sound.notes[0].endswith("400 bytes in it are no MP3 frames and were skipped")


def test_a_first_frame_that_states_too_few_is_not_believed(heard: Heard) -> None:
    whole = mp3()
    sound = heard(stating_frames(whole, -20))
    np.testing.assert_array_equal(sound.samples, heard(whole).samples)
    assert "all are read" in sound.notes[0]


def test_an_mp3_of_fewer_frames_than_stated_is_truncated(heard: Heard) -> None:
    refused(heard, stating_frames(mp3(), 5), r"is truncated: its header states \d+ MP3 frames, \d+ are there")
    refused(heard, mp3()[: len(mp3()) // 2], "is truncated")
    second = mp3(seed=1)
    refused(heard, mp3() + second[: second.find(second[:2], 4)], "is truncated")  # the frame that states it alone


def test_an_incomplete_last_frame_is_said(heard: Heard) -> None:
    bare = without_first_frame(mp3())
    sound = heard(bare[:-10])
    assert len(heard(bare).samples) - len(sound.samples) == 576
    assert "last frame is incomplete" in sound.notes[0]


def test_mp3_among_other_data_is_refused(heard: Heard) -> None:
    refused(heard, without_first_frame(mp3(0.5)) + bytes(100_000), "among other data")


def test_frames_of_free_bit_rate_are_refused(heard: Heard) -> None:
    free = bytearray(without_first_frame(mp3(1.0)))
    size = free.find(free[:2], 4)
    for place in range(2, len(free), size):
        free[place] &= 0x0F
    refused(heard, bytes(free), "a free bit rate")


def test_layer_2_is_read(heard: Heard) -> None:
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp2") as file:
        track = file.add_stream("mp2", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray((speechlike(2, rate=48_000).T * 2**15).astype(np.int16), "s16", "mono")
        frame.sample_rate = 48_000
        file.mux(track.encode(frame))
        file.mux(track.encode(None))
    content = stream.getvalue()
    assert len(heard(content).samples) == pytest.approx(decoded_by_ffmpeg(content) / 3, abs=529 / 3)


@pytest.mark.parametrize("content", [mp3(3.0, variable=True), without_first_frame(mp3(3.0, variable=True))])
def test_mp3_in_a_wav_is_that_mp3(heard: Heard, content: bytes) -> None:
    layout = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 4000, 1, 0, 12, 1, 2, 576, 1, 0)
    body = b"WAVE" + chunk(b"fmt ", layout) + chunk(b"fact", struct.pack("<I", 48_000)) + chunk(b"data", content)
    np.testing.assert_array_equal(heard(chunk(b"RIFF", body)).samples, heard(content).samples)


# Ogg


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_without_an_end_flag_is_read(heard: Heard, subtype: str) -> None:
    whole = encoded("OGG", subtype, speechlike(2.0))
    sound = heard(without_end_flag(whole))
    np.testing.assert_array_equal(sound.samples, heard(whole).samples)
    assert "not marked as the last" in sound.notes[0]
    np.testing.assert_array_equal(heard(without_end_flag(whole) + whole).samples, np.tile(heard(whole).samples, 2))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("missing", [1, 100, 2000])
def test_an_ogg_whose_last_page_is_cut_is_truncated(heard: Heard, subtype: str, missing: int) -> None:
    whole = encoded("OGG", subtype, speechlike(2.0))
    refused(heard, whole[:-missing], "is truncated: its last page is incomplete")
    refused(heard, whole + whole[:-missing], "is truncated: its last page is incomplete")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_page_missing_in_the_middle_is_noticed(heard: Heard, subtype: str) -> None:
    whole = encoded("OGG", subtype, speechlike(12.0))
    starts = [place for place in range(len(whole)) if whole.startswith(b"OggS", place)]
    gap = len(starts) // 2
    refused(heard, whole[: starts[gap]] + whole[starts[gap + 1] :], "truncated|does not decode")


# FLAC


@pytest.mark.parametrize(("stated", "is_noted"), [(0, False), (24_000, False), (10_000, True), (23_999, True)])
def test_a_flac_is_read_to_its_end_whatever_it_states(heard: Heard, stated: int, is_noted: bool) -> None:
    sound = heard(stating_samples(FLAC, stated))
    is_pcm(sound.samples)
    assert [note.rpartition(": ")[2] for note in sound.notes] == ["all are read"] * is_noted


@pytest.mark.parametrize("content", [FLAC + id3v1(), FLAC + b"rubbish" * 9, id3v2() + FLAC, id3v2() + FLAC + FLAC])
def test_what_lies_around_a_flac_is_no_sound(heard: Heard, content: bytes) -> None:
    is_pcm(heard(content).samples, np.tile(SAMPLES, content.count(b"fLaC")))


@pytest.mark.parametrize("content", [FLAC[:-100], stating_samples(FLAC, 0)[:-100], stating_samples(FLAC, 30_000)])
def test_a_flac_that_ends_too_early_is_refused(heard: Heard, content: bytes) -> None:
    refused(heard, content, "truncated|does not decode")


# WAV and its kin


@pytest.mark.parametrize("stated", [0, 0xFFFF_FFFF, 0x8000_0000, 0x7FFF_F000])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
def test_a_wav_that_states_no_length_is_read_to_its_end(heard: Heard, stated: int, subtype: str) -> None:
    whole = encoded("WAV", subtype, speechlike(1.5))
    sound = heard(stating_bytes(whole, stated))
    np.testing.assert_array_equal(sound.samples, heard(whole).samples)
    assert "states no length" in sound.notes[0]


def test_samples_beyond_the_stated_length_are_said(heard: Heard) -> None:
    sound = heard(stating_bytes(WAV, 32_000))
    is_pcm(sound.samples, SAMPLES[:16_000])
    assert "its last 16000 bytes are not part of what its header states, and were not read" in sound.notes[0]


@pytest.mark.parametrize("after", [b"", chunk(b"LIST", b"INFOISFT\6\0\0\0Lavf58")])
def test_a_wav_that_holds_nothing_says_so(heard: Heard, after: bytes) -> None:
    empty = WAV[: WAV.find(b"data")] + chunk(b"data", b"") + after
    refused(heard, empty, "holds no audio")


@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW", "IMA_ADPCM", "GSM610"])
def test_a_wav_that_states_more_than_it_holds_is_truncated(heard: Heard, subtype: str) -> None:
    refused(heard, encoded("WAV", subtype, speechlike(1.5))[:-1000], "is truncated: it ends before")


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
def test_a_wav_with_a_long_header_is_read(heard: Heard, name: bytes) -> None:
    long = encoded("RF64", "PCM_16", speechlike(1.5)).replace(b"RF64", name, 1)
    is_pcm(heard(long).samples)
    refused(heard, long[:-1000], "is truncated")


OTHER = [
    *[("WAV", codec) for codec in ("ALAW", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "NMS_ADPCM_32")],
    *[(kind, "PCM_16") for kind in ("AIFF", "AU", "CAF", "W64", "VOC", "NIST", "IRCAM")],
    *[("AIFF", "PCM_24"), ("AIFF", "FLOAT"), ("CAF", "ALAC_16")],
]


@pytest.mark.parametrize(("kind", "subtype"), OTHER)
def test_other_formats_are_those_of_libsndfile(heard: Heard, kind: str, subtype: str) -> None:
    content = encoded(kind, subtype, speechlike(1.52))  # an even number of GSM 6.10's blocks, which libsndfile needs
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        expected = file.read(file.frames, "float32")
    np.testing.assert_array_equal(heard(content).samples, expected)


@pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF", "W64", "NIST"])
def test_other_formats_that_are_cut_are_refused(heard: Heard, kind: str) -> None:
    refused(heard, encoded(kind, "PCM_16", speechlike(1.5))[:-5000], "truncated|does not decode")


@pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF", "W64", "NIST", "VOC"])
def test_other_formats_that_are_joined_are_refused(heard: Heard, kind: str) -> None:
    content = encoded(kind, "PCM_16", speechlike(1.5))
    refused(heard, content + content, "several recordings, one behind the other|does not decode")


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_24_bits_of_any_rate_and_channels(heard: Heard, rate: int, channels: int) -> None:
    content = encoded("WAV", "PCM_24", speechlike(1.5, rate=rate, channels=channels), rate=rate)
    flac = encoded("FLAC", "PCM_24", speechlike(1.5, rate=rate, channels=channels), rate=rate)
    assert len(heard(content).samples) == 1.5 * RATE
    np.testing.assert_allclose(heard(content).samples, heard(flac).samples, atol=1e-6)


def test_raw_samples_are_told_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes((SAMPLES * 2**15).astype("<i2").tobytes())
    with pytest.raises(AudioError, match=r"a\.raw does not decode: .*convert it to WAV; raw samples need a header"):
        read_sound(tmp_path / "a.raw")


@pytest.mark.parametrize("content", [FLAC, WAV, mp3(1.5)])
def test_names_do_not_count(tmp_path: Path, content: bytes) -> None:
    for name in ("a.raw", "a.wav", "a.mp3", "a.sd2", "what? 50% #1 & more.txt", "ein Lied – mit Ümlaut.gsm"):
        (tmp_path / name).write_bytes(content)
        assert len(read_sound(tmp_path / name).samples) == 1.5 * RATE


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    for path, reason in (
        (tmp_path / "empty.wav", "is empty"),
        (tmp_path, "cannot be read"),
        (Path("/dev/zero"), "no reg"),
    ):
        with pytest.raises(AudioError, match=reason):
            read_sound(path)


SEEDS = [
    WAV,
    FLAC,
    mp3(0.5),
    without_first_frame(mp3(0.5)),
    encoded("OGG", "VORBIS", speechlike(0.5)),
    encoded("OGG", "OPUS", speechlike(0.5)),
    *[encoded(kind, subtype, speechlike(0.3)) for kind, subtype in OTHER],
    encoded("WAV", "DOUBLE", speechlike(0.3, channels=2)),
]


@given(st.sampled_from(SEEDS), st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_sound_or_one_line(heard: Heard, seed: bytes, data: st.DataObject) -> None:
    content = bytearray(seed)
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, data.draw(st.sampled_from([60, 200, len(seed)])))) % len(seed)
        content[place : place + 4] = data.draw(
            st.sampled_from([b"\0" * 4, b"\xff" * 4]) | st.binary(min_size=1, max_size=4)
        )
    kept = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    try:
        assert np.isfinite(heard(bytes(content[:kept])).samples).all()
    except AudioError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"fLaC", b"OggS", b"\xff\xfb\x90\x64", b"ID3\3\0\0\0\0\0\0", b".snd"]),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_one_line(heard: Heard, tail: bytes, head: bytes) -> None:
    try:
        heard(head + tail)
    except AudioError as error:
        assert "\n" not in str(error)  # noqa: PT017
