"""Audio files of a speech set, read as the runtime reads them: what is scored is what a device hears."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import runtime.audio
from common.errors import InputError
from runtime.audio import SAMPLE_RATE, Floats, Sound
from runtime.errors import AudioError

__all__ = ["READING_VERSION", "SAMPLE_RATE", "read_audio", "read_sound", "stated_duration_s"]

READING_VERSION = 2
"""To be raised whenever the same file would give other samples."""


def read_audio(path: Path) -> Floats:
    """The file's samples: mono, 16 kHz, (samples,). Raises InputError as `read_sound` does."""
    return read_sound(path).samples


def read_sound(path: Path) -> Sound:
    """`runtime.audio.read_sound`, with InputError instead of AudioError."""
    with _as_input():
        return runtime.audio.read_sound(path)


def stated_duration_s(path: Path) -> float | None:
    """`runtime.audio.stated_duration_s`, with InputError instead of AudioError."""
    with _as_input():
        return runtime.audio.stated_duration_s(path)


@contextmanager
def _as_input() -> Iterator[None]:
    try:
        yield
    except AudioError as error:
        raise InputError(str(error)) from error
