"""Titles, names and pictures that MP3 and FLAC files carry before, between and after their sound."""

from typing import BinaryIO

_ID3V1_BYTES = 128
_ID3V2_HEADER_BYTES = 10
_APE_FOOTER_BYTES = 32


def tag_bytes(file: BinaryIO, position: int) -> int:
    """The length of the tag that begins there: ID3v2, ID3v1 or APE; 0 where none does."""
    file.seek(position)
    head = file.read(_APE_FOOTER_BYTES)
    if head[:3] == b"ID3" and len(head) >= _ID3V2_HEADER_BYTES and max(head[6:10]) < 0x80:
        size = sum(septet << 7 * (3 - place) for place, septet in enumerate(head[6:10]))
        return _ID3V2_HEADER_BYTES + size + (_ID3V2_HEADER_BYTES if head[5] & 0x10 else 0)
    if head[:8] == b"APETAGEX" and len(head) == _APE_FOOTER_BYTES:
        is_header = head[23] & 0x20
        return _APE_FOOTER_BYTES + (int.from_bytes(head[12:16], "little") if is_header else 0)
    return _ID3V1_BYTES if head[:3] == b"TAG" else 0


def after_tags(file: BinaryIO) -> int:
    """Where the sound begins."""
    position = 0
    while size := tag_bytes(file, position):
        position += size
    return position
