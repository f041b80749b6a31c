"""What libsndfile decodes, through the package soundfile, which is optional."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, BinaryIO

from runtime.audio_files.splice import Splice
from runtime.audio_files.stream import Floats, Note, Stream, block_frames
from runtime.errors import AudioError

READ = (
    "read are WAV, FLAC, MP3, OGG and what else libsndfile knows: convert it to WAV; raw samples need a header for that"
)
_UNKNOWN_FRAMES = 1 << 62
"""libsndfile counts this many and more where it does not know."""
_PLACEHOLDER_BYTES = 0x7FFF_F000
_CORRECTED = re.compile(r":\s*(\d+) \(should be (\d+)\)")
"""libsndfile reads a file that is shorter than its header states without complaint, and says so only in its log."""


def stream(file: BinaryIO, parts: Sequence[bytes | range], note: Note, *, frames: int | None = None) -> Stream:
    """What the parts decode to: bytes as they are, a range as that stretch of the file.

    `frames`: of a stream that states no length to libsndfile, those that its own header states, if any. More that
    follow are read as well, with a note. Raises AudioError, here or while reading, when it does not decode, or decodes
    to less than is stated.
    """
    with _decoder(Splice(file, parts)) as audio:
        _check_log(audio.extra_info)
        counted = audio.frames if audio.frames < _UNKNOWN_FRAMES else frames

        def blocks() -> Iterator[Floats]:
            with _decoder(Splice(file, parts)) as again:
                yield from _blocks(again, counted, note)

        return Stream(rate=audio.samplerate, channels=audio.channels, frames=counted, blocks=blocks)


def _blocks(audio: Any, stated: int | None, note: Note) -> Iterator[Floats]:
    size, read = block_frames(audio.channels), 0
    while stated is None or read < stated:
        block: Floats = audio.read(size if stated is None else min(size, stated - read), "float32", always_2d=True)
        if not len(block):
            break
        read += len(block)
        yield block
    if stated is None:
        return
    if read < stated:
        raise AudioError(f"is truncated: its header states {stated} frames, {read} decode")
    more = _first_after(audio)
    if more is not None:
        note(f"it holds more than the {stated} frames that its header states: all are read")
        yield more
        yield from _blocks(audio, None, note)


def _first_after(audio: Any) -> Floats | None:
    """The frame after those that are stated. What does not decode there, such as a tag, is no audio."""
    try:
        block: Floats = audio.read(1, "float32", always_2d=True)
    except RuntimeError:  # the root of soundfile's own errors
        return None
    return block if len(block) else None


@contextmanager
def _decoder(source: Splice) -> Iterator[Any]:
    """libsndfile's view of the source; whatever goes wrong becomes an AudioError."""
    soundfile = _soundfile()

    class Forward(soundfile.SoundFile):  # type: ignore[name-defined]
        """Never seeks, which soundfile else does after each block: some streams cannot, such as GSM 6.10."""

        def seekable(self) -> bool:
            return False

    try:
        with Forward(source) as audio:
            yield audio
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        raise AudioError(f"does not decode: {reason} ({READ})") from error
    except (RuntimeError, TypeError, ValueError, MemoryError) as error:  # what soundfile makes of absurd headers
        raise AudioError(f"does not decode: {error} ({READ})") from error


def _soundfile() -> ModuleType:
    try:
        import soundfile  # noqa: PLC0415 - an optional dependency, which WAV does not need
    except (ImportError, OSError) as error:  # OSError: the package without its library
        raise AudioError("is no WAV of whole or float numbers: convert it to one, or pip install soundfile") from error
    return soundfile


def _check_log(log: str) -> None:
    """Raise AudioError where libsndfile found less than a header states; by one byte the padding may be missing."""
    for stated, found in _CORRECTED.findall(log):
        if int(found) + 1 < int(stated) < _PLACEHOLDER_BYTES:
            raise AudioError(f"is truncated: its header states {stated} bytes, {found} are there")
