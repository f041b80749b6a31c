"""Streams: pipes, files that grow, WAV headers, clocks."""

import io
import os
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import AudioError
from runtime.live.clock import SimulatedClock, WallClock
from runtime.live.pcm import PcmDecoder
from runtime.live.sources import Block, GrowingFile, PacedAudio, PipedAudio, Source

NUMBERS = np.random.default_rng(0).integers(-(2**15), 2**15, 5000, dtype=np.int16)
SAMPLES = NUMBERS.astype(np.float32) / 2**15


def wav(rate: int = 16_000, channels: int = 1, subtype: str = "PCM_16") -> bytes:
    held = io.BytesIO()
    soundfile.write(held, np.tile(SAMPLES[:, None], channels), rate, format="WAV", subtype=subtype)
    return held.getvalue()


def heard(source: Source) -> list[Block]:
    return list(source.blocks(threading.Event()))


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=20), st.booleans())
def test_samples_do_not_depend_on_the_portions(sizes: list[int], has_header: bool) -> None:
    content = wav() if has_header else NUMBERS.tobytes()
    decoder, found, place = PcmDecoder("a"), [], 0
    for size in [*sizes, len(content)]:
        found.append(decoder.feed(content[place : place + size]))
        place += size
    np.testing.assert_array_equal(np.concatenate(found), SAMPLES)


@pytest.mark.parametrize(
    ("content", "stated"),
    [
        (wav(rate=44_100), "44100 Hz, 1 channels, 16 bits"),
        (wav(channels=2), "16000 Hz, 2 channels, 16 bits"),
        (wav(subtype="FLOAT"), "codec 3, 16000 Hz"),
        (b"RIFF" + bytes(8) + struct.pack("<4sI", b"LIST", 100) + bytes(70_000), "holds no samples"),
    ],
)
def test_a_wav_of_another_kind_is_refused(content: bytes, stated: str) -> None:
    with pytest.raises(AudioError, match=stated):
        PcmDecoder("standard input").feed(content)


def test_a_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(NUMBERS.tobytes())
    with os.fdopen(reading, "rb") as file:
        blocks = heard(PipedAudio(file, WallClock(), name="pipe"))
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks]), SAMPLES)


def test_an_empty_pipe_is_an_error() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb") as file, pytest.raises(AudioError, match="pipe is empty; live audio is 16 kHz"):
        heard(PipedAudio(file, WallClock(), name="pipe"))


def test_a_file_that_grows_is_read_as_it_grows(tmp_path: Path) -> None:
    path, content = tmp_path / "a.wav", wav()
    path.write_bytes(content[:2000])

    def grow() -> None:
        time.sleep(0.3)
        with path.open("ab") as file:
            file.write(content[2000:])

    writer = threading.Thread(target=grow)
    writer.start()
    blocks = heard(GrowingFile(path, WallClock(), idle_s=1.0))
    writer.join()
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks]), SAMPLES)


def test_a_stream_that_is_stopped_ends(tmp_path: Path) -> None:
    stop = threading.Event()
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        os.write(writing, NUMBERS.tobytes())
        stream = PipedAudio(file, WallClock(), name="pipe").blocks(stop)
        assert len(next(stream).samples) == len(SAMPLES)
        stop.set()
        assert list(stream) == []
        os.close(writing)


def test_a_recording_comes_at_its_pace_and_says_when_one_is_behind() -> None:
    clock = SimulatedClock()
    began_s = clock.now_s()
    behind, arrived = [], []
    for block in PacedAudio(np.zeros(16_000, np.float32), clock).blocks(threading.Event()):
        arrived.append(block.arrived_s - began_s)
        behind.append(block.is_behind)
        assert clock.now_s() >= block.arrived_s
        if len(arrived) == 3:
            clock.wait_until(clock.now_s() + 0.35)
    np.testing.assert_allclose(arrived, np.arange(1, 11) / 10, atol=0.01)
    assert behind[:3] == [False] * 3
    assert sum(behind) in (2, 3)


def test_waiting_for_the_past_takes_no_time() -> None:
    for clock in (SimulatedClock(), WallClock()):
        now_s = clock.now_s()
        clock.wait_until(now_s - 5)
        assert clock.now_s() - now_s < 0.5
