"""Heads of a compressed network that follow the timing of words."""

from itertools import product

from whisper.model import Whisper

from compression.recipe.recipe import Recipe


def alignment_heads(recipe: Recipe, network: Whisper) -> list[tuple[int, int]]:
    """(layer, head) pairs that follow the timing of words.

    The model's own as long as their layers are kept and no head left its layer; else, as openai-whisper does
    for models that it does not know, every head of the later half of the layers.
    """
    kept = [index for index, layer in enumerate(recipe.decoder) if layer]
    heads = network.decoder.blocks[0].cross_attn.n_head
    if heads == network.dims.n_text_head:
        known = [(layer, head) for layer, head in network.alignment_heads.indices().T.tolist()]
        mapped = [(kept.index(layer), head) for layer, head in known if layer in kept]
        if mapped:
            return mapped
    return list(product(range(len(kept) // 2, len(kept)), range(heads)))
