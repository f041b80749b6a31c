"""A recipe's values by the names of their genes, so that a refusal can name the gene in the way."""

from collections.abc import Iterator
from itertools import chain

from compression.dimensions import Dimensions
from compression.recipe import Recipe


def layer_values(recipe: Recipe, stack: str, *fields: str) -> Iterator[tuple[str, int]]:
    """Pairs such as (`decoder.2.heads`, 6) for the given fields of every kept layer, numbered as in the original."""
    for index, layer in enumerate(getattr(recipe, stack)):
        if layer is not None:
            yield from ((f"{stack}.{index}.{field}", getattr(layer, field)) for field in fields)


def matrix_bits(recipe: Recipe) -> Iterator[tuple[str, int]]:
    """The bits of every matrix but the convolutions', by gene."""
    stacks = (layer_values(recipe, stack, "attention_bits", "ffn_bits") for stack in ("encoder", "decoder"))
    yield from chain(*stacks, [("embedding_bits", recipe.embedding_bits)])


def ranks(recipe: Recipe, dimensions: Dimensions) -> Iterator[tuple[str, int]]:
    """The rank of every layer whose feed-forward matrices are low-rank factors, by gene."""
    for stack, width in (("encoder", dimensions.n_audio_state), ("decoder", dimensions.n_text_state)):
        for index, layer in enumerate(getattr(recipe, stack)):
            if layer is not None and layer.factor_rank(width):
                yield f"{stack}.{index}.ffn_rank", layer.ffn_rank
