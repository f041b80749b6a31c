"""Ogg (RFC 3533): Vorbis, Opus, FLAC and Speex; several streams one after another, and without an end flag."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

from runtime.audio_files import libsndfile
from runtime.audio_files.stream import Note, Stream
from runtime.errors import AudioError

MARKER = b"OggS"
_FIRST, _LAST = 2, 4
"""Flags of a page: the first and the last one of a stream."""
_HEADER_BYTES = 27
_CHECKSUM = slice(22, 26)


@dataclass(frozen=True, kw_only=True)
class _Page:
    place: range
    flags: int


def streams(file: BinaryIO, start: int, note: Note) -> Iterator[Stream]:
    """One for each link of a chain. Raises AudioError when the last page is incomplete."""
    for link in _links(list(_pages(file, start))):
        place = range(link[0].place.start, link[-1].place.stop)
        parts: list[bytes | range] = [place]
        if not link[-1].flags & _LAST:
            note("its last page is not marked as the last: read to that page")
            last = link[-1].place
            parts = [range(place.start, last.start), _marked_last(_at(file, last.start, len(last)))]
        yield libsndfile.stream(file, parts, note)


def _links(pages: list[_Page]) -> Iterator[list[_Page]]:
    """Each begins with the first pages of its streams, all before any other page."""
    link: list[_Page] = []
    for page in pages:
        if page.flags & _FIRST and link and not link[-1].flags & _FIRST:
            yield link
            link = []
        link.append(page)
    yield link


def _pages(file: BinaryIO, position: int) -> Iterator[_Page]:
    """From `position` on; what lies between pages, or after them, is no audio."""
    stop = file.seek(0, 2)
    while position < stop:
        head = _at(file, position, _HEADER_BYTES + 255)
        if head[:4] != MARKER:
            position = _next_marker(file, position + 1)
            continue
        lengths = head[_HEADER_BYTES : _HEADER_BYTES + head[26]] if len(head) > 26 else b""
        size = _HEADER_BYTES + len(lengths) + sum(lengths)
        if len(head) < _HEADER_BYTES or len(lengths) < head[26] or position + size > stop:
            raise AudioError("is truncated: its last page is incomplete")
        yield _Page(place=range(position, position + size), flags=head[5])
        position += size


def _next_marker(file: BinaryIO, position: int) -> int:
    """Where the next page begins; the end of the file where there is none."""
    while len(searched := _at(file, position, 1 << 16)) >= len(MARKER):
        found = searched.find(MARKER)
        if found >= 0:
            return position + found
        position += len(searched) - len(MARKER) + 1
    return position + len(searched)


def _at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _marked_last(page: bytes) -> bytes:
    """The page with the flag of the last one, and the checksum that belongs to it."""
    marked = bytearray(page)
    marked[5] |= _LAST
    marked[_CHECKSUM] = bytes(4)
    checksum = 0
    for byte in marked:
        checksum = checksum << 8 & 0xFFFF_FFFF ^ _remainders()[checksum >> 24 ^ byte]
    marked[_CHECKSUM] = checksum.to_bytes(4, "little")
    return bytes(marked)


@lru_cache
def _remainders() -> tuple[int, ...]:
    """Of each byte, by Ogg's polynomial 0x04C11DB7."""
    remainders = list(range(0, 256 << 24, 1 << 24))
    for _ in range(8):
        remainders = [value << 1 & 0xFFFF_FFFF ^ (0x04C1_1DB7 if value >> 31 else 0) for value in remainders]
    return tuple(remainders)
