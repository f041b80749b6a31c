"""Which rows of the token embedding have how many bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compression.recipe.dimensions import Dimensions
    from compression.recipe.recipe import Recipe

FREQUENT_BITS = 8
"""Of the rows of frequent text tokens and of special tokens, where the others have fewer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingRows:
    """The rows of a table in its order: `frequent` text tokens, the `rest` of them, `special` tokens.

    The first and the last have `FREQUENT_BITS`, those between them `bits`. Where all have the same bits, all of them
    are the `rest`.
    """

    frequent: int
    rest: int
    special: int
    bits: int

    @property
    def finer(self) -> int:
        """Rows of `FREQUENT_BITS` beside others with fewer."""
        return self.frequent + self.special

    @property
    def by_bits(self) -> tuple[tuple[int, int], ...]:
        """Bits and rows of each part that has rows."""
        finer = ((FREQUENT_BITS, self.finer),) if self.finer else ()
        return ((self.bits, self.rest), *finer)


def embedding_rows(recipe: Recipe, dimensions: Dimensions) -> EmbeddingRows:
    """Of the table that the recipe leaves of a model's.

    Token ids of byte pair encoding rise as pairs were merged, the most frequent ones first.
    """
    rows, bits = dimensions.embedding_rows(recipe.vocabulary), recipe.embedding_bits
    if not recipe.frequent_tokens or bits >= FREQUENT_BITS:
        return EmbeddingRows(frequent=0, rest=rows, special=0, bits=bits)
    text = recipe.vocabulary or dimensions.text_tokens
    if recipe.frequent_tokens >= text:
        return EmbeddingRows(frequent=0, rest=rows, special=0, bits=FREQUENT_BITS)
    return EmbeddingRows(
        frequent=recipe.frequent_tokens, rest=text - recipe.frequent_tokens, special=rows - text, bits=bits
    )
