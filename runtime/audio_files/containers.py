"""Which reader a file needs: its first bytes say so, not its name."""

import re
from collections.abc import Iterator
from typing import BinaryIO

from runtime.audio_files import flac, libsndfile, mp3, ogg, wav
from runtime.audio_files.stream import Note, Stream
from runtime.audio_files.tags import after_tags
from runtime.errors import AudioError

_MARK_BYTES = 8
_SEARCH_BYTES = 1 << 20
_SPHERE_BYTES = 1024
_SPHERE_FRAMES = re.compile(rb"^NIST_1A\n.*^sample_count -i (\d+)$", re.DOTALL | re.MULTILINE)


def streams(file: BinaryIO, note: Note) -> Iterator[Stream]:
    """The recordings in a file that can seek, in order. Raises AudioError, then or when they are read."""
    start, stop = after_tags(file), file.seek(0, 2)
    file.seek(start)
    head = file.read(12)
    if wav.is_wav(head):
        return wav.streams(file, start, note)
    if head.startswith(flac.MARKER):
        return flac.streams(file, start, note)
    if head.startswith(ogg.MARKER):
        return ogg.streams(file, start, note)
    if mp3.is_mp3(file, start):
        return mp3.streams(file, range(start, stop), note)
    if head[:1] == b"\xff" and head[1:2] >= b"\xe0":
        raise AudioError("is MPEG audio without frames of stated lengths (AAC, or a free bit rate): convert it to FLAC")
    return iter([_other(file, range(stop), note)])


def _other(file: BinaryIO, place: range, note: Note) -> Stream:
    """A format that only libsndfile knows. It reads the first of joined files, and SPHERE up to where it is cut."""
    stream = libsndfile.stream(file, [place], note)
    if _is_joined(file):
        raise AudioError("holds several recordings, one behind the other: give each a file of its own")
    file.seek(0)
    stated = _SPHERE_FRAMES.match(file.read(_SPHERE_BYTES))
    if stated and stream.frames is not None and stream.frames < int(stated[1]):
        raise AudioError(f"is truncated: its header states {int(stated[1])} frames, {stream.frames} are there")
    return stream


def _is_joined(file: BinaryIO) -> bool:
    """Whether the bytes with which the file begins come again."""
    file.seek(0)
    mark, found = file.read(_MARK_BYTES), b""
    while searched := file.read(_SEARCH_BYTES):
        if mark in (found := found[-(_MARK_BYTES - 1) :] + searched):
            return True
    return False
