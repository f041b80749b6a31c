"""All pieces of a recording."""

from collections.abc import Iterator

from runtime.audio import Floats
from runtime.pieces import next_piece


def cut(samples: Floats) -> Iterator[slice]:
    """Piece after piece, as where every text covers its piece."""
    piece = next_piece(samples, 0)
    yield piece
    while piece.stop < len(samples):
        piece = next_piece(samples, piece.stop)
        yield piece
