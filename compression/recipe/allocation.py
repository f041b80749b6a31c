"""How many bits each group of matrices gets, by what fewer bits cost each of them.

A group is what a recipe gives bits of its own: attention and FFN of each layer (`encoder.0.attention`,
`decoder.3.ffn`) and the `embedding`.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from common.errors import CompressionError
from compression.recipe.dimensions import Dimensions

EMBEDDING_GROUP = "embedding"
Sensitivity = Mapping[str, Mapping[int, float]]
"""By group and stored bits: how much the loss grows when nothing but this group is rounded to them."""


def group_weights(
    dimensions: Dimensions, *, encoder: Iterable[int], decoder: Iterable[int], vocabulary: int
) -> dict[str, int]:
    """Weights of each group where these layers stay, with all of their units; `vocabulary` as in a recipe."""
    audio, text = dimensions.n_audio_state, dimensions.n_text_state
    weights = {}
    for layer in encoder:
        weights[f"encoder.{layer}.attention"] = 4 * audio**2
        weights[f"encoder.{layer}.ffn"] = 2 * audio * dimensions.audio_ffn
    for layer in decoder:
        weights[f"decoder.{layer}.attention"] = 8 * text**2  # self-attention and cross-attention
        weights[f"decoder.{layer}.ffn"] = 2 * text * dimensions.text_ffn
    return weights | {EMBEDDING_GROUP: dimensions.embedding_rows(vocabulary) * text}


def allocate_bits(sensitivity: Sensitivity, weights: Mapping[str, int], mean_bits: float) -> dict[str, int]:
    """The bits of each group in `weights`: the least sum of losses with at most `mean_bits` a weight.

    Losses are taken to add up, as in HAWQ-V2 (Dong et al. 2020, "Hessian aware trace-weighted quantization of neural
    networks"). That makes it a multiple-choice knapsack problem, solved exactly: group by group, of all sums those are
    kept that no other one beats in both bits and loss (Nemhauser and Ullmann 1969). Of equal losses the fewest bits
    win. Raises CompressionError when there is no such choice.
    """
    groups = tuple(
        (count, tuple(sorted((bits, loss) for bits, loss in sensitivity[group].items())))
        for group, count in weights.items()
    )
    return dict(zip(weights, _least_loss(groups, mean_bits), strict=True))


@lru_cache(maxsize=1024)
def _least_loss(groups: tuple[tuple[int, tuple[tuple[int, float], ...]], ...], mean_bits: float) -> tuple[int, ...]:
    """`groups`: of each its weights, and its losses by bits. A search asks for few targets, over and over."""
    total = sum(count for count, _ in groups)
    fewest = sum(count * choices[0][0] for count, choices in groups)
    if fewest > mean_bits * total:
        raise CompressionError(f"{mean_bits:g} bits a weight are too few: at least {fewest / total:g} can be stored")
    sums: list[tuple[float, int, tuple[int, ...]]] = [(0.0, 0, ())]
    for count, choices in groups:
        longer = [
            (lost + loss, used + count * bits, (*chosen, bits)) for lost, used, chosen in sums for bits, loss in choices
        ]
        sums = _undominated(longer)
    return next(chosen for _, used, chosen in sums if used <= mean_bits * total)


def _undominated(sums: list[tuple[float, int, tuple[int, ...]]]) -> list[tuple[float, int, tuple[int, ...]]]:
    """By rising loss and falling bits."""
    kept: list[tuple[float, int, tuple[int, ...]]] = []
    for option in sorted(sums):
        if not kept or option[1] < kept[-1][1]:
            kept.append(option)
    return kept
