"""Text to tokens: byte-pair encoding with the artifact's own vocabulary.

A token's number is its rank: pairs are joined in the order in which GPT-2's tokenizer learned them, and tokens that a
shorter vocabulary lacks are never made. R. Sennrich et al., 2016; A. Radford et al., 2019.
"""

import re
from collections.abc import Mapping

_PARTS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
"""GPT-2's: words, numbers and signs with the space before them are encoded apart."""


def encoded(text: str, ranks: Mapping[bytes, int]) -> list[int]:
    """The tokens of a text. `ranks`: the token of each spelling; all single bytes must be among them."""
    return [token for part in _PARTS.findall(text) for token in _joined(part.encode(), ranks)]


def _joined(part: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    pieces = [part[place : place + 1] for place in range(len(part))]
    while len(pieces) > 1:
        pairs = [ranks.get(pieces[place] + pieces[place + 1], len(ranks)) for place in range(len(pieces) - 1)]
        first = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[first] == len(ranks):
            break
        pieces[first : first + 2] = [pieces[first] + pieces[first + 1]]
    return [ranks[piece] for piece in pieces]
