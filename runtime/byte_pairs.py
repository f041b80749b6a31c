"""Text to tokens: byte-pair encoding with the artifact's own vocabulary.

A token's number is its rank: pairs are joined in the order in which GPT-2's tokenizer learned them, and tokens that a
shorter vocabulary lacks are never made. R. Sennrich et al., 2016; A. Radford et al., 2019.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from math import inf

_PARTS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
"""GPT-2's: words, numbers and signs with the space before them are encoded apart."""


def encoded(text: str, ranks: Mapping[bytes, int]) -> list[int]:
    """The tokens of a text. `ranks`: the token of each spelling; all single bytes must be among them."""
    return [ranks[piece] for part in _PARTS.findall(text) for piece in byte_pair_pieces(part.encode(), ranks)]


def byte_pair_pieces(text: bytes, ranks: Mapping[bytes, int], *, below: float = inf) -> list[bytes]:
    """Byte pair encoding of one text: of two neighbours that have a rank together, the lowest are merged first.

    Ends where no pair has a rank under `below`. As in tiktoken (Sennrich et al. 2016, on bytes).
    """
    parts = [bytes([byte]) for byte in text]
    while len(parts) > 1:
        pairs = [ranks.get(left + right, inf) for left, right in pairwise(parts)]
        lowest = min(pairs)
        if lowest >= below:
            break
        first = pairs.index(lowest)
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    return parts
