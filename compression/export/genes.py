"""A recipe's values by the names of their genes, so that a refusal can name the gene in the way."""

from collections.abc import Iterator
from itertools import chain

from compression.recipe.recipe import Recipe


def layer_values(recipe: Recipe, stack: str, *fields: str) -> Iterator[tuple[str, int]]:
    """Pairs such as (`decoder.2.heads`, 6) for the given fields of every kept layer, numbered as in the original."""
    for index, layer in enumerate(getattr(recipe, stack)):
        if layer is not None:
            yield from ((f"{stack}.{index}.{field}", getattr(layer, field)) for field in fields)


def matrix_bits(recipe: Recipe) -> Iterator[tuple[str, int]]:
    """The bits of every matrix but the convolutions', by gene."""
    stacks = (layer_values(recipe, stack, "attention_bits", "ffn_bits") for stack in ("encoder", "decoder"))
    yield from chain(*stacks, [("embedding_bits", recipe.embedding_bits)])
