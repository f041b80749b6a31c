"""Ways to compress a Whisper, one technique each, by name: functions from the original recipe to another."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from compression.calibration.calibration import Calibration
from compression.recipe.dimensions import Dimensions
from compression.recipe.importance import Scores, allocate
from compression.recipe.recipe import ActivationRanges, DecoderLayer, EncoderLayer, Recipe, Rounding

Technique = Callable[[Recipe, Calibration], Recipe]
"""What it makes of the original; what leaves is decided by what calibration speech says of the model."""

BLOCK = 32
"""FFN channels leave in blocks of so many, as the runtimes' kernels want it."""
BITS = (8, 6, 4, 3, 2)
HEAD_SHARES, CHANNEL_SHARES = (1 / 6, 1 / 3, 1 / 2), (0.15, 0.3, 0.5)
RANK_SHARES = (2 / 3, 1 / 2)
"""Of the model's width; both factors together are smaller than a matrix below 4 / 5."""
VOCABULARIES = {False: (40960, 32768, 16384), True: (32768, 16384, 8192)}
"""Text tokens that stay in an English-only and in a multilingual model."""
WINDOWS_S = (30.0, 20.0, 10.0)


def with_counts(recipe: Recipe, kept: Mapping[str, int]) -> Recipe:
    """The recipe with so many units kept, by site key such as `encoder.0.heads`."""
    stacks: dict[str, list[EncoderLayer | DecoderLayer | None]] = {
        "encoder": [*recipe.encoder],
        "decoder": [*recipe.decoder],
    }
    for key, count in kept.items():
        stack, index, units = key.split(".")
        layer = stacks[stack][int(index)]
        stacks[stack][int(index)] = layer and replace(layer, **{units: count})
    return replace(recipe, **{stack: tuple(layers) for stack, layers in stacks.items()})


def of_units(scores: Mapping[str, Scores], *units: str, stack: str = "") -> dict[str, Scores]:
    """The scores of the heads or channels of a stack, by default of both."""
    return {key: s for key, s in scores.items() if key.rpartition(".")[2] in units and key.startswith(stack)}


def without_least(recipe: Recipe, scores: Mapping[str, Scores], share: float, *, block: int = 1) -> Recipe:
    """The recipe without this share of all units that have scores, the least important wherever they are."""
    return with_counts(recipe, allocate(scores, round(share * sum(map(len, scores.values()))), block=block))


def weights(bits: int, rounding: Rounding) -> Technique:
    """All matrices in groups of 32 with zero points; embedding and convolutions at 8 bits."""

    def technique(original: Recipe, _: Calibration) -> Recipe:
        recipe = original.with_each_layer(attention_bits=bits, ffn_bits=bits)
        eight = {"embedding_bits": 8, "convolution_bits": 8}
        return replace(recipe, **eight, group_size=32, symmetric=False, rounding=rounding)

    return technique


def activations(bits: int, ranges: ActivationRanges, smoothing: float = 0.0) -> Technique:
    """Inputs of all linear layers; weights stay."""
    return lambda original, _: replace(original, activation_bits=bits, activation_ranges=ranges, smoothing=smoothing)


def heads(share: float, **how: Any) -> Technique:
    """Without this share of all heads, self- and cross-attention together; `how`: fields of the recipe."""

    def technique(original: Recipe, calibration: Calibration) -> Recipe:
        recipe = replace(original, **how)
        scores = of_units(calibration.importance(recipe.importance), "heads", "cross_heads")
        return without_least(recipe, scores, share)

    return technique


def channels(share: float, **how: Any) -> Technique:
    """Without this share of each stack's FFN channels; `how`: fields of the recipe."""

    def technique(original: Recipe, calibration: Calibration) -> Recipe:
        recipe = replace(original, **how)
        scores = calibration.importance(recipe.importance)
        for stack in ("encoder", "decoder"):
            recipe = without_least(recipe, of_units(scores, "ffn_channels", stack=stack), share, block=BLOCK)
        return recipe

    return technique


def layers(stack: str, count: int) -> Technique:
    """Without the layers of a stack that are missed least, as the search drops them."""

    def technique(original: Recipe, calibration: Calibration) -> Recipe:
        importance, stacked = calibration.layer_importance, getattr(original, stack)
        dropped = sorted(range(len(stacked)), key=lambda index: importance[f"{stack}.{index}"])[:count]
        return replace(original, **{stack: tuple(None if i in dropped else layer for i, layer in enumerate(stacked))})

    return technique


def low_rank(stack: str, share: float) -> Technique:
    """FFN matrices of a stack as two factors, whose rank is this share of their width."""

    def technique(original: Recipe, _: Calibration) -> Recipe:
        layers = getattr(original, stack)
        rank = round(share * layers[0].ffn_channels / 4 / BLOCK) * BLOCK
        return replace(original, **{stack: tuple(layer and replace(layer, ffn_rank=rank) for layer in layers)})

    return technique


def vocabulary(tokens: int, language: str) -> Technique:
    """With so many text tokens, those that the language needs most."""
    return lambda original, _: replace(original, vocabulary=tokens, vocabulary_language=language)


def window(seconds: float) -> Technique:
    """With another shortest encoder window."""
    return lambda original, _: replace(original, window_s=seconds)


def techniques(dimensions: Dimensions, language: str) -> dict[str, Technique]:
    """The table's rows for a model, by name."""
    ways: dict[str, dict[str, Any]] = {
        "": {},
        ", refitted": {"refit": True},
        ", iterative": {"importance": "iterative"},
    }
    roundings: tuple[Rounding, ...] = ("nearest", "calibrated")
    ranges: tuple[ActivationRanges, ...] = ("dynamic", "static")
    return {
        **{f"weights {bits} bits, {rounding}": weights(bits, rounding) for bits in BITS for rounding in roundings},
        **{f"activations {bits} bits, {way}": activations(bits, way) for bits in (16, 8) for way in ranges},
        "activations 8 bits, static, smoothed": activations(8, "static", smoothing=0.5),
        **{f"heads -{s:.0%}{name}": heads(s, **how) for s in HEAD_SHARES for name, how in ways.items()},
        **{f"channels -{s:.0%}{name}": channels(s, **how) for s in CHANNEL_SHARES for name, how in ways.items()},
        **{f"{stack} layers -{n}": layers(stack, n) for stack in ("encoder", "decoder") for n in (1, 2)},
        **{f"{stack} FFN rank {s:.0%}": low_rank(stack, s) for stack in ("encoder", "decoder") for s in RANK_SHARES},
        **{f"vocabulary {n}": vocabulary(n, language) for n in VOCABULARIES[dimensions.is_multilingual]},
        **{f"window {seconds:g} s": window(seconds) for seconds in WINDOWS_S},
    }
