"""FLAC (RFC 9639): also of unknown length, of more samples than its header states, and several in one file."""

import re
from collections.abc import Iterator
from typing import BinaryIO

from runtime.audio_files import libsndfile
from runtime.audio_files.stream import Note, Stream

MARKER = b"fLaC"
_BEGINNING = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
"""The marker and the header of the block that must come first."""
_BEGINNING_BYTES = 8
_LENGTH = slice(18, 26)
"""64 bits, the last 36 of them the number of frames, 0 where it is not known."""
_LENGTH_MASK = (1 << 36) - 1
_SEARCH_BYTES = 1 << 20


def streams(file: BinaryIO, start: int, note: Note) -> Iterator[Stream]:
    """One for each beginning; libsndfile would stop at the first one's stated length."""
    starts = list(_beginnings(file, start)) or [start]
    for first, after in zip(starts, [*starts[1:], file.seek(0, 2)], strict=True):
        yield _stream(file, range(first, after), note)


def _beginnings(file: BinaryIO, position: int) -> Iterator[int]:
    while True:
        file.seek(position)
        searched = file.read(_SEARCH_BYTES)
        if len(searched) < _BEGINNING_BYTES:
            return
        yield from (position + match.start() for match in _BEGINNING.finditer(searched))
        position += len(searched) - (_BEGINNING_BYTES - 1)


def _stream(file: BinaryIO, place: range, note: Note) -> Stream:
    """libsndfile is told that the length is not known, so that it decodes all there is."""
    file.seek(place.start)
    head = bytearray(file.read(_LENGTH.stop))
    stored = int.from_bytes(head[_LENGTH], "big")
    head[_LENGTH] = (stored & ~_LENGTH_MASK).to_bytes(8, "big")
    return libsndfile.stream(file, [bytes(head), place[len(head) :]], note, frames=stored & _LENGTH_MASK or None)
