"""Which of two recipes is surely the more compressed one."""

from dataclasses import fields
from math import inf

from compression.recipe.embedding import FREQUENT_BITS
from compression.recipe.recipe import DecoderLayer, EncoderLayer, Recipe


def at_least_as_compressed(recipe: Recipe, other: Recipe) -> bool:
    """The partial order of canonical recipes of one model: no gene is less compressed than in `other`.

    Fewer layers, heads, channels and bits, lower ranks, larger groups, scales of fewer bits, no zero points, a shorter
    window, fewer tokens and fewer of them with more bits than the rest are more compressed; recipes that choose or
    repair differently are incomparable, and so are shorter vocabularies for different languages.
    """
    if len(recipe.encoder) != len(other.encoder) or len(recipe.decoder) != len(other.decoder):
        return False
    if _choices(recipe) != _choices(other):
        return False
    if recipe.vocabulary and other.vocabulary and recipe.vocabulary_language != other.vocabulary_language:
        return False
    return all(ours <= theirs for ours, theirs in zip(_amounts(recipe), _amounts(other), strict=True))


def position(recipe: Recipe) -> tuple[tuple[object, ...], tuple[float, ...]]:
    """Where a recipe stands in the order: it can only be at least as compressed as what has the same first part and no
    smaller number in the second.
    """
    return (len(recipe.encoder), len(recipe.decoder), *_choices(recipe)), _amounts(recipe)


def _choices(recipe: Recipe) -> tuple[object, ...]:
    choices = (recipe.activation_ranges, recipe.importance, recipe.refit, recipe.recovery)
    return (*choices, recipe.rounding, recipe.range_estimator, recipe.smoothing)


def _amounts(recipe: Recipe) -> tuple[float, ...]:
    """One number per gene, smaller where more compressed."""
    layers: list[float] = []
    for stack, kind in ((recipe.encoder, EncoderLayer), (recipe.decoder, DecoderLayer)):
        for layer in stack:
            # only a rank can be 0: then it is the whole matrix's
            layers += [getattr(layer, field.name) or inf if layer else 0 for field in fields(kind)]
    group = -(recipe.group_size or inf) if recipe.has_groups else 0.0
    scales = 0.0 if recipe.has_groups and not recipe.group_size else float(recipe.scale_bits)  # one a row: fewest
    grid = (group, scales, -float(recipe.symmetric) if recipe.is_quantised else 0.0)
    return (
        *layers,
        recipe.embedding_bits,
        recipe.frequent_tokens if recipe.embedding_bits < FREQUENT_BITS else inf,
        recipe.convolution_bits,
        recipe.activation_bits,
        recipe.window_s,
        recipe.vocabulary or inf,
        *grid,
    )
