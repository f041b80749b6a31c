"""A file put together from stretches of another one and bytes of our own, without copying it."""

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, BinaryIO


class Splice(io.RawIOBase):
    """Reads `parts` one after another: bytes as they are, a range as that stretch of `file`."""

    def __init__(self, file: BinaryIO, parts: Sequence[bytes | range]) -> None:
        super().__init__()
        self._file = file
        self._parts = [part for part in parts if part]
        self._starts = [0, *accumulate(map(len, self._parts))]
        self._position = 0

    def __len__(self) -> int:
        return self._starts[-1]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self)}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the whole buffer unless the end comes first."""
        target = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(target) and (found := self._next(len(target) - filled)):
            target[filled : filled + len(found)] = found
            filled += len(found)
            self._position += len(found)
        return filled

    def _next(self, most: int) -> bytes:
        """At most `most` bytes from the position on, of a single part; none at the end."""
        number = bisect_right(self._starts, self._position) - 1
        if number >= len(self._parts):
            return b""
        part, inside = self._parts[number], self._position - self._starts[number]
        if isinstance(part, bytes):
            return part[inside : inside + most]
        self._file.seek(part.start + inside)
        return self._file.read(min(most, len(part) - inside))
