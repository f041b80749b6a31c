"""Audio as Whisper wants it: mono, 16 kHz, float32. Scoring and transcribing both read it here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from runtime.audio_files.containers import streams
from runtime.audio_files.stream import Floats, Note, Stream
from runtime.errors import AudioError
from runtime.levels import ChannelLevels, Loudness
from runtime.resampling import SAMPLE_RATE, resample, resampled

__all__ = ["SAMPLE_RATE", "Floats", "Sound", "read_audio", "read_sound", "resample", "stated_duration_s"]

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Hz; a header that states anything else is damaged."""


@dataclass(frozen=True, kw_only=True)
class Sound:
    """What a file holds: `samples` at 16 kHz, (samples,), and in `notes` what is not as it should be, in sentences."""

    samples: Floats
    notes: tuple[str, ...]


def read_audio(path: Path) -> Floats:
    """The samples of `read_sound`."""
    return read_sound(path).samples


def read_sound(path: Path) -> Sound:
    """All that the file holds: the mean of its channels, resampled to 16 kHz, block by block.

    Of two channels with opposite signs the louder one counts. Several recordings in one file, such as joined MP3
    files or chained Ogg streams, follow one another.
    Raises AudioError when the file is missing, empty, truncated, no audio that can be read here, or has samples that
    are not finite.
    """
    notes: dict[str, None] = {}  # in order, each once

    def note(text: str) -> None:
        notes[f"audio file {path}: {text}"] = None

    with _opened(path) as file:
        samples = _read(file, note)
    return Sound(samples=samples, notes=tuple(notes))


def stated_duration_s(path: Path) -> float | None:
    """Seconds of audio by the file's headers, without decoding it; None where they do not say.

    Raises AudioError as `read_sound` does.
    """
    with _opened(path) as file:
        lengths = [stream.frames and stream.frames / stream.rate for stream in _checked(file, lambda _: None)]
    return None if None in lengths else sum(length for length in lengths if length)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file; an AudioError within says which it is."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise AudioError("cannot be read: it is no regular file")
        with path.open("rb") as file:
            if not file.read(1):
                raise AudioError("is empty and cannot be read")
            yield file
    except AudioError as error:
        raise AudioError(f"audio file {path} {error}") from error
    except FileNotFoundError as error:
        raise AudioError(f"audio file {path} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise AudioError(f"audio file {path} cannot be read: {error}") from error


def _checked(file: BinaryIO, note: Note) -> Iterator[Stream]:
    """The streams of a file, with rates that can be true."""
    for stream in streams(file, note):
        if not LOWEST_RATE <= stream.rate <= HIGHEST_RATE:
            raise AudioError(f"is damaged: it states {stream.rate} samples a second")
        yield stream


def _read(file: BinaryIO, note: Note) -> Floats:
    held, loudness = bytearray(), Loudness()
    for stream in _checked(file, note):
        _add(held, stream, loudness.see, note)
    if not loudness.samples:
        raise AudioError("holds no audio")
    samples = np.frombuffer(held, np.float32)
    full_scale = loudness.full_scale()
    if full_scale != 1:
        note(f"it has samples up to {loudness.peak:.6g}, where 1 is full scale: all are divided by {full_scale:.10g}")
        samples /= np.float32(full_scale)
    return samples


def _add(held: bytearray, stream: Stream, see: Callable[[Floats], Floats], note: Note) -> None:
    """Append the stream's samples; a second time without some channels, if the first shows that those cancel others."""
    start, channels = len(held), ChannelLevels(stream.channels)
    blocks = (channels.see(see(block)).mean(axis=1) for block in stream.blocks())
    for block in resampled(blocks, stream.rate):
        held += block.tobytes()
    opposites = channels.opposites()
    if not opposites:
        return
    for channel, other in opposites.items():
        note(f"its channel {channel + 1} is the opposite of channel {other + 1} and was left out")
    del held[start:]
    kept = [channel for channel in range(stream.channels) if channel not in opposites]
    blocks = (block[:, kept].mean(axis=1) for block in stream.blocks())
    for block in resampled(blocks, stream.rate):
        held += block.tobytes()
