"""Where a stream comes from: a pipe, a file that grows, a recording at its own pace."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Thread
from typing import BinaryIO, Protocol

from runtime.audio import SAMPLE_RATE, Floats
from runtime.errors import AudioError
from runtime.live.clock import Clock
from runtime.live.listener import BLOCK_S
from runtime.live.pcm import HOW, PcmDecoder

PORTION_BYTES = 1 << 14
POLL_S = 0.1
IDLE_S = 10.0
"""A file that did not grow for so long is complete."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Audio (samples,), 16 kHz, that came at a time; `is_behind`: more is there already."""

    samples: Floats
    arrived_s: float
    is_behind: bool


class Source(Protocol):
    """A stream of audio."""

    def blocks(self, stop: Flag) -> Iterator[Block]:
        """Its blocks as they come, until it ends or is stopped. Raises AudioError when it is no audio."""


class PipedAudio:
    """A pipe or standard input. It is emptied by a thread of its own: audio that waits is held in memory."""

    def __init__(self, file: BinaryIO, clock: Clock, *, name: str) -> None:
        self._file, self._clock, self._name = file, clock, name
        self._portions: SimpleQueue[tuple[bytes, float]] = SimpleQueue()

    def blocks(self, stop: Flag) -> Iterator[Block]:
        """As `Source`. Raises AudioError when the pipe ends without any sample."""
        Thread(target=self._read, daemon=True).start()
        decoder, heard = PcmDecoder(self._name), False
        while not stop.is_set():
            try:
                portion, arrived_s = self._portions.get(timeout=POLL_S)
            except Empty:
                continue
            if not portion:
                break
            samples = decoder.feed(portion)
            heard = heard or len(samples) > 0
            yield Block(samples=samples, arrived_s=arrived_s, is_behind=not self._portions.empty())
        if not heard and not stop.is_set():
            raise AudioError(f"{self._name} is empty; {HOW}")

    def _read(self) -> None:
        """An empty portion says that the pipe is at its end."""
        portion = b"-"
        while portion:
            try:
                portion = os.read(self._file.fileno(), PORTION_BYTES)
            except OSError:
                portion = b""
            self._portions.put((portion, self._clock.now_s()))


class GrowingFile:
    """A file of raw samples or a WAV that somebody still writes: all that is there, then what comes, as it comes."""

    def __init__(self, path: Path, clock: Clock, *, idle_s: float = IDLE_S) -> None:
        self._path, self._clock, self._idle_s = path, clock, idle_s

    def blocks(self, stop: Flag) -> Iterator[Block]:
        """As `Source`; it ends when the file has not grown for `idle_s`."""
        decoder = PcmDecoder(f"audio file {self._path}")
        size = round(BLOCK_S * SAMPLE_RATE) * 2
        try:
            with self._path.open("rb") as file:
                grown_s = self._clock.now_s()
                while not stop.is_set() and self._clock.now_s() - grown_s < self._idle_s:
                    portion = file.read(size)
                    if portion:
                        grown_s = self._clock.now_s()
                        yield Block(samples=decoder.feed(portion), arrived_s=grown_s, is_behind=len(file.peek(1)) > 0)
                    else:
                        self._clock.wait_until(self._clock.now_s() + POLL_S)
        except OSError as error:
            raise AudioError(f"audio file {self._path} cannot be read: {error.strerror}") from error


class PacedAudio:
    """A recording (samples,) at the pace at which it was spoken."""

    def __init__(self, samples: Floats, clock: Clock) -> None:
        self._samples, self._clock = samples, clock

    def blocks(self, stop: Flag) -> Iterator[Block]:
        """As `Source`."""
        began_s, size = self._clock.now_s(), round(BLOCK_S * SAMPLE_RATE)
        for start in range(0, len(self._samples), size):
            if stop.is_set():
                return
            arrived_s = began_s + min(start + size, len(self._samples)) / SAMPLE_RATE
            self._clock.wait_until(arrived_s)
            is_behind = self._clock.now_s() >= arrived_s + BLOCK_S and start + size < len(self._samples)
            yield Block(samples=self._samples[start : start + size], arrived_s=arrived_s, is_behind=is_behind)
