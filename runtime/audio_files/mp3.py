"""MPEG audio (ISO 11172-3, 13818-3): MP3, and the layers I and II.

Its frames are found here, each by the length of the one before: libsndfile believes the length that the first frame
states, and where it states none, guesses it from the first bit rate.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO

from runtime.audio_files import libsndfile
from runtime.audio_files.stream import Note, Stream
from runtime.audio_files.tags import tag_bytes
from runtime.errors import AudioError

_MPEG1 = 3
_RATES = {_MPEG1: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KBITS_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KBITS = {
    (True, 1): tuple(range(32, 449, 32)),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): _KBITS_1,
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): _KBITS_2,
    (False, 3): _KBITS_2,
}
"""By whether it is MPEG 1, and layer."""
_HEAD_BYTES = 48
"""Of a frame, enough for the name that marks a first frame without sound."""
_SEARCHED_BYTES = 1 << 16
"""The first frame must begin within them."""
_SURE_FRAMES = 3
_HAS_FRAMES, _HAS_BYTES = 1, 2
_SLACK_FRAMES = 3
"""Encoder delay and padding, which a first frame may state and the decoder then leaves out."""


@dataclass(frozen=True, kw_only=True)
class _Header:
    """Of a frame: four bytes."""

    is_mpeg1: bool
    layer: int
    rate: int
    is_mono: bool
    size_bytes: int

    @property
    def kind(self) -> tuple[bool, int, int, bool]:
        """What stays the same within one recording."""
        return self.is_mpeg1, self.layer, self.rate, self.is_mono

    @property
    def samples(self) -> int:
        """Per frame and channel."""
        if self.layer == 1:
            return 384
        return 576 if self.layer == 3 and not self.is_mpeg1 else 1152

    @property
    def info_offset(self) -> int:
        """Where the name of a first frame stands, behind the header and the side information."""
        if self.is_mpeg1:
            return 4 + (17 if self.is_mono else 32)
        return 4 + (9 if self.is_mono else 17)


@lru_cache(maxsize=1 << 12)
def _header(stored: bytes) -> _Header | None:
    """None where no frame of a known length begins with these four bytes."""
    if len(stored) < 4 or stored[0] != 0xFF or stored[1] < 0xE0:
        return None
    version, layer = stored[1] >> 3 & 3, 4 - (stored[1] >> 1 & 3)
    bit_rate, rate = stored[2] >> 4, stored[2] >> 2 & 3
    if version == 1 or layer == 4 or rate == 3 or not 0 < bit_rate < 15:
        return None
    is_mpeg1, rate_hz = version == _MPEG1, _RATES[version][rate]
    bits_s = 1000 * _KBITS[is_mpeg1, layer][bit_rate - 1]
    padding = stored[2] >> 1 & 1
    if layer == 1:
        size = (12 * bits_s // rate_hz + padding) * 4
    else:
        size = (72 if layer == 3 and not is_mpeg1 else 144) * bits_s // rate_hz + padding
    return _Header(is_mpeg1=is_mpeg1, layer=layer, rate=rate_hz, is_mono=stored[3] >> 6 == 3, size_bytes=size)


@dataclass(kw_only=True)
class _Run:
    """Frames of one kind in a row: a recording. `first`: the frame before them that states their number, if any."""

    header: _Header
    stored_header: bytes
    first: bytes = b""
    frames: int = 0
    places: list[range] = field(default_factory=list)

    def add(self, place: range) -> None:
        self.frames += 1
        if self.places and self.places[-1].stop == place.start:
            place = range(self.places.pop().start, place.stop)
        self.places.append(place)


def is_mp3(file: BinaryIO, start: int) -> bool:
    """Whether frames follow one another from `start` on, or a little later."""
    file.seek(start)
    searched = file.read(_SEARCHED_BYTES)
    position = searched.find(b"\xff")
    stop = file.seek(0, 2)
    while position >= 0:
        if _header(searched[position : position + 4]) and _chain(file, range(start + position, stop), _SURE_FRAMES):
            return True
        position = searched.find(b"\xff", position + 1)
    return False


def _chain(file: BinaryIO, place: range, frames: int) -> bool:
    """Whether that many frames of one kind follow one another, or as many as there is room for: the last may be cut."""
    position, kind = place.start, None
    for number in range(frames):
        if number and (position >= place.stop or tag_bytes(file, position)):
            return number > 1 or position <= place.stop
        header = _header(_at(file, position, 4))
        if header is None or (kind or header.kind) != header.kind:
            return False
        position, kind = position + header.size_bytes, header.kind
    return True


def streams(file: BinaryIO, place: range, note: Note) -> Iterator[Stream]:
    """A stream for each recording in that stretch of the file. Raises AudioError when a header states more frames."""
    runs = list(_runs(file, place, note))
    if not runs:
        raise AudioError("is truncated: an MP3 without a whole frame")
    for run in runs:
        yield _stream(file, run, note)


def _runs(file: BinaryIO, place: range, note: Note) -> Iterator[_Run]:
    """Each begins with a frame that states a length, or where the kind changes; the last one may be without frames."""
    run, position, strange = None, place.start, 0
    while position < place.stop:
        head = _at(file, position, _HEAD_BYTES)
        header = _header(head[:4])
        known = header and run and header.kind == run.header.kind
        if header is None or not (known or _chain(file, range(position, place.stop), 2)):
            skipped = tag_bytes(file, position)
            strange += not skipped
            position += skipped or 1
            continue
        if position + header.size_bytes > place.stop:
            note("its last frame is incomplete: less than a tenth of a second is missing at the end")
            break
        stating = _states_length(head, header)
        if run is None or stating or not known:
            if run and run.frames:
                yield run
            run = _Run(header=header, stored_header=head[:4])
        if stating:
            run.first = _at(file, position, header.size_bytes)
        else:
            run.add(range(position, position + header.size_bytes))
        position += header.size_bytes
    if run:
        yield run
    if 2 * strange > len(place):
        raise AudioError("holds MP3 frames among other data: take the sound out of it, into a file of its own")
    if strange:
        note(f"{strange} bytes in it are no MP3 frames and were skipped")


def _at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _states_length(head: bytes, header: _Header) -> bool:
    """Whether it is a frame without sound that states the length of the recording."""
    name = head[header.info_offset :][:4]
    return header.layer == 3 and (name in {b"Xing", b"Info"} or head[36:40] == b"VBRI")


def _stream(file: BinaryIO, run: _Run, note: Note) -> Stream:
    stated = _stated_frames(run)
    if stated and stated > run.frames + 1:  # some encoders count the frame that states it
        raise AudioError(f"is truncated: its header states {stated} MP3 frames, {run.frames} are there")
    if stated and stated < run.frames:
        note(f"its header states {stated} MP3 frames, but there are {run.frames}: all are read")
    first = [_first_frame(run)] if run.header.layer == 3 else []
    stream = libsndfile.stream(file, [*first, *run.places], note)
    if (stream.frames or 0) < (run.frames - _SLACK_FRAMES) * run.header.samples:
        raise AudioError(f"is an MP3 of which only {stream.frames} of {run.frames * run.header.samples} samples decode")
    return stream


def _stated_frames(run: _Run) -> int | None:
    if run.first[36:40] == b"VBRI":
        return int.from_bytes(run.first[50:54], "big")
    info = run.first[run.header.info_offset :]
    return int.from_bytes(info[8:12], "big") if len(info) >= 12 and info[7] & _HAS_FRAMES else None


def _first_frame(run: _Run) -> bytes:
    """A frame without sound that states the true length, as Xing's does: the run's own where it has one.

    That one also states how much silence the encoder added, which the decoder leaves out.
    """
    info = run.header.info_offset
    if _stated_frames(run) is None or run.first[36:40] == b"VBRI":
        return _made_first_frame(run)
    frame = bytearray(run.first)
    frame[info + 8 : info + 12] = run.frames.to_bytes(4, "big")
    if frame[info + 7] & _HAS_BYTES:
        size = len(frame) + sum(map(len, run.places))
        frame[info + 12 : info + 16] = size.to_bytes(4, "big")
    return bytes(frame)


def _made_first_frame(run: _Run) -> bytes:
    """At 64 kbit/s there is room for it at every rate; without checksum and padding."""
    stored = run.stored_header
    bit_rate = _KBITS[run.header.is_mpeg1, 3].index(64) + 1
    head = bytes([stored[0], stored[1] | 1, bit_rate << 4 | stored[2] & 0b1100, stored[3]])
    header = _header(head)
    size = header.size_bytes if header else 0
    body = head.ljust(run.header.info_offset, b"\0") + b"Xing" + bytes([0, 0, 0, _HAS_FRAMES])
    return (body + run.frames.to_bytes(4, "big")).ljust(size, b"\0")
