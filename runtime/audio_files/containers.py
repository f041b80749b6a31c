"""Which reader a file needs: its first bytes say so, not its name."""

from collections.abc import Iterator
from typing import BinaryIO

from runtime.audio_files import flac, libsndfile, mp3, ogg, wav
from runtime.audio_files.stream import Note, Stream
from runtime.audio_files.tags import after_tags


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
    return iter([libsndfile.stream(file, [range(stop)], note)])
