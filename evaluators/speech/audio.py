"""Reads audio files as Whisper wants them: mono, 16 kHz, float32."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from common.errors import InputError

SAMPLE_RATE = 16_000

_MP3_FRAME = 1152
# A WAV written to a pipe states a placeholder for its length: 0xFFFFFFFF (ffmpeg), 0x7FFFF000 and up (sox).
_UNKNOWN_LENGTH = 0x7FFF_F000


def read_audio(path: Path) -> npt.NDArray[np.float32]:
    """The file's samples, shape (samples,): channels averaged, resampled to 16 kHz by soxr.

    WAV, FLAC, MP3, OGG and whatever else libsndfile decodes. Raises InputError when the file is missing,
    empty, no audio, truncated (it holds less than its own header says), or has samples that are not finite.
    """
    content = _content(path)
    with _decoder(path, content) as (audio, stream):
        frames: npt.NDArray[np.float32] = audio.read(dtype="float32", always_2d=True)
        _check_length(path, audio, decoded=len(frames), consumed=stream.tell() / len(content))
        rate = audio.samplerate
    if len(frames) == 0:
        raise InputError(f"audio file {path} holds no audio")
    if not np.isfinite(frames).all():
        raise InputError(f"audio file {path} has samples that are not finite (NaN or infinity)")
    resampled: npt.NDArray[np.float32] = soxr.resample(frames.mean(axis=1), rate, SAMPLE_RATE)
    return resampled


def stated_duration_s(path: Path) -> float:
    """Seconds of audio by the file's header, without decoding it. Raises InputError as `read_audio` does."""
    with _decoder(path, _content(path)) as (audio, _):
        return float(audio.frames / audio.samplerate)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"audio file {path} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(f"audio file {path} cannot be read: {error}") from error
    if not content:
        raise InputError(f"audio file {path} is empty")
    if _is_cut_wav(content) or _is_cut_ogg(content):
        raise InputError(f"audio file {path} is truncated: it ends before the length that its header states")
    return content


@contextmanager
def _decoder(path: Path, content: bytes) -> Iterator[tuple[soundfile.SoundFile, io.BytesIO]]:
    """libsndfile's view of the content, and the stream that it reads; its errors become InputError."""
    stream = io.BytesIO(content)
    try:
        with soundfile.SoundFile(stream) as audio:
            yield audio, stream
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        raise InputError(f"audio file {path} does not decode: {reason} (WAV, FLAC, MP3 and OGG are read)") from error


def _check_length(path: Path, audio: soundfile.SoundFile, *, decoded: int, consumed: float) -> None:
    """Raise InputError when fewer frames decode than the header states; `consumed` is the share of bytes read.

    An MP3 without a Xing header states no length; libsndfile guesses it from the first frame's bit rate. The guess
    is at most one MPEG frame off at a constant rate, and far too short at a variable one: then bytes stay unread.
    """
    is_mp3 = audio.format == "MP3"
    if decoded < audio.frames - (_MP3_FRAME if is_mp3 else 0):
        raise InputError(f"audio file {path} is truncated: its header states {audio.frames} frames, {decoded} decode")
    if is_mp3 and consumed < 0.9:
        raise InputError(f"audio file {path} is an MP3 of variable rate that states no length: convert it to FLAC")


def _is_cut_wav(content: bytes) -> bool:
    """Whether the data chunk ends after the file: libsndfile reads such a file without complaint."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return False
    start = 12
    while start + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, start)
        start += 8
        if name == b"data":
            return bool(len(content) - start < size < _UNKNOWN_LENGTH)
        start += size + size % 2
    return False


def _is_cut_ogg(content: bytes) -> bool:
    """Whether the last page is incomplete or lacks the end-of-stream flag (RFC 3533, section 6)."""
    if content[:4] != b"OggS":
        return False
    last = content.rfind(b"OggS")
    if last + 27 > len(content):
        return True
    segments = content[last + 26]
    body = sum(content[last + 27 : last + 27 + segments])
    is_last = content[last + 5] & 4
    return not is_last or last + 27 + segments + body > len(content)
