"""WAV, also of more than 4 GB (RF64, BW64), of unknown length, and several in one file.

Whole and float numbers are read here, since the standard library's `wave` knows neither float samples nor, before
Python 3.12, the extensible headers that most tools write for 24 bits. MP3 in it goes to `mp3`, other codecs to
libsndfile.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from runtime.audio_files import libsndfile, mp3
from runtime.audio_files.stream import Floats, Note, Stream, block_frames
from runtime.errors import AudioError

FORMS = (b"RIFF", b"RF64", b"BW64")
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_MPEG = (0x50, 0x55)
_TYPES = {(_PCM, 1): "u1", (_PCM, 2): "<i2", (_PCM, 3): "i3", (_PCM, 4): "<i4", (_FLOAT, 4): "<f4", (_FLOAT, 8): "<f8"}
_UNKNOWN_LENGTH = 0x7FFF_F000
"""A WAV written to a pipe states a placeholder for its length: 0xFFFFFFFF (ffmpeg), 0x7FFFF000 and up (sox)."""
_LARGEST_BYTES = 0xFFFF_0000


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The chunk `fmt `: `tag` is the codec's number, `stored` the whole chunk."""

    tag: int
    channels: int
    rate: int
    frame_bytes: int
    stored: bytes

    @classmethod
    def parsed(cls, stored: bytes) -> "_Layout":
        tag, channels, rate, _, frame_bytes, _ = struct.unpack_from("<HHIIHH", stored)
        if tag == _EXTENSIBLE and len(stored) >= 26:
            (tag,) = struct.unpack_from("<H", stored, 24)
        return cls(tag=tag, channels=channels, rate=rate, frame_bytes=frame_bytes, stored=stored)

    @property
    def kind(self) -> str | None:
        """The type of the numbers; None for other codecs."""
        if not self.channels or self.frame_bytes % self.channels:
            return None
        return _TYPES.get((self.tag, self.frame_bytes // self.channels))


def is_wav(head: bytes) -> bool:
    """Whether a file that begins with these 12 bytes is a WAV."""
    return head[:4] in FORMS and head[8:12] == b"WAVE"


def streams(file: BinaryIO, start: int, note: Note) -> Iterator[Stream]:
    """A stream for each chunk `data`. Raises AudioError when there is none, or when it ends after the file."""
    found = False
    for layout, data in _data_chunks(file, start, note):
        found = True
        yield from _streams(file, layout, data, note)
    if not found:
        raise AudioError("is truncated: a WAV without samples")


def _data_chunks(file: BinaryIO, start: int, note: Note) -> Iterator[tuple[_Layout, range]]:
    """Where the samples lie, and how. A form within the chunks is another WAV, joined to the one before."""
    stop = file.seek(0, 2)
    layout, long_bytes = None, 0
    while len(head := _at(file, start, 8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if not _is_name(name):
            note(f"its last {stop - start} bytes are not part of what its header states, and were not read")
            return
        start += 8
        if name in FORMS:
            start += 4
            continue
        if name == b"ds64":
            long_bytes = struct.unpack("<8xQ", _at(file, start, 16).ljust(16, b"\0"))[0]
        elif name == b"fmt " and 16 <= size <= stop - start:
            layout = _Layout.parsed(_at(file, start, min(size, 1 << 16)))
        elif name == b"data" and layout:
            size = _data_bytes(file, start, long_bytes if size == 0xFFFF_FFFF and long_bytes else size, note)
            yield layout, range(start, start + size)
        start += size + size % 2


def _data_bytes(file: BinaryIO, start: int, stated: int, note: Note) -> int:
    """The length of the samples. Raises AudioError when more are stated than there are."""
    left = file.seek(0, 2) - start
    if stated <= left and (stated or _are_chunks(file, start)):
        return stated
    if 0 < stated < _UNKNOWN_LENGTH or stated > 0xFFFF_FFFF:
        raise AudioError("is truncated: it ends before the length that its header states")
    note("its header states no length, as after an interrupted recording or from a pipe: read to the end of the file")
    return left


def _are_chunks(file: BinaryIO, start: int) -> bool:
    """Whether chunks, and nothing else, fill the file from `start` to its end, if it does not end there."""
    stop = file.seek(0, 2)
    while start < stop:
        head = _at(file, start, 8)
        if len(head) < 8 or not _is_name(head[:4]):
            return False
        size = int.from_bytes(head[4:], "little")
        start += 12 if head[:4] in FORMS else 8 + size + size % 2
    return start - stop <= 1


def _is_name(name: bytes) -> bool:
    """Whether a chunk may be called so."""
    return all(32 <= letter < 127 for letter in name)


def _at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _streams(file: BinaryIO, layout: _Layout, data: range, note: Note) -> Iterator[Stream]:
    if layout.kind:
        yield Stream(
            rate=layout.rate,
            channels=layout.channels,
            frames=len(data) // layout.frame_bytes,
            blocks=partial(_blocks, file, layout, data),
        )
    elif layout.tag in _MPEG:
        yield from mp3.streams(file, data, note)
    else:
        yield _other(file, layout, data, note)


def _other(file: BinaryIO, layout: _Layout, data: range, note: Note) -> Stream:
    """Samples of another codec, behind a header that states their true length."""
    if len(data) > _LARGEST_BYTES:
        raise AudioError(f"has more than 4 GB of samples of the codec {layout.tag:#06x}: convert it to FLAC")
    head = b"WAVEfmt " + struct.pack("<I", len(layout.stored)) + layout.stored + b"\0" * (len(layout.stored) % 2)
    head += b"data" + struct.pack("<I", len(data))
    whole = b"RIFF" + struct.pack("<I", len(head) + len(data)) + head
    try:
        return libsndfile.stream(file, [whole, data], note)
    except AudioError as error:
        raise AudioError(f"is a WAV of the codec {layout.tag:#06x}: {error}") from error


def _blocks(file: BinaryIO, layout: _Layout, data: range) -> Iterator[Floats]:
    size = block_frames(layout.channels) * layout.frame_bytes
    stop = data.stop - len(data) % layout.frame_bytes
    for start in range(data.start, stop, size):
        stored = np.frombuffer(_at(file, start, min(size, stop - start)), np.uint8)
        yield _numbers(stored, str(layout.kind)).reshape(-1, layout.channels)


def _numbers(stored: npt.NDArray[np.uint8], kind: str) -> Floats:
    if kind == "i3":  # to the upper three bytes of four
        wide = np.zeros((stored.size // 3, 4), np.uint8)
        wide[:, 1:] = stored.reshape(-1, 3)
        stored, kind = wide.reshape(-1), "<i4"
    values = stored.view(kind)
    with np.errstate(over="ignore"):  # to infinity, which is refused
        numbers = values.astype(np.float32)
    if kind == "u1":
        numbers -= 128
    if "f" not in kind:
        numbers /= 2 ** (8 * values.itemsize - 1)
    return numbers
