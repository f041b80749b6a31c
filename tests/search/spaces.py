"""Search spaces with made-up importance."""

from collections.abc import Mapping

import numpy as np

from compression.recipe.allocation import group_weights
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import STACKS
from devices.profile import load_profile
from search.space.genes import Value, units_of
from search.space.space import PRESETS, Space

RUNTIME = load_profile("imx8mplus").runtime


def make_space(
    dimensions: Dimensions,
    choices: Mapping[str, tuple[Value, ...]] | str,
    *,
    stored_bits: int = 16,
    channel_block: int = RUNTIME.channel_multiple,
    seed: int = 0,
) -> Space:
    """A space for i.MX 8M Plus; `choices` may be a preset's name. Importance and sensitivity are random but seeded."""
    rng = np.random.default_rng(seed)
    original = Recipe.original(dimensions, stored_bits=stored_bits)
    importance = {
        f"{stack}.{index}.{units}": rng.random(getattr(layer, units), dtype=np.float32)
        for stack in STACKS
        for index, layer in enumerate(getattr(original, stack))
        for units in units_of(stack)
    }
    layers = {key.rpartition(".")[0] for key in importance}
    groups = group_weights(
        dimensions,
        encoder=range(dimensions.n_audio_layer),
        decoder=range(dimensions.n_text_layer),
        vocabulary=0,
    )
    profiled = sorted({stored_bits, *(bits for bits in RUNTIME.weight_bits if bits < stored_bits)})
    return Space(
        original=original,
        dimensions=dimensions,
        choices=PRESETS[choices](dimensions, RUNTIME, stored_bits) if isinstance(choices, str) else choices,
        importance=importance,
        layer_importance={layer: float(rng.random()) for layer in sorted(layers)},
        sensitivity={group: _losses(profiled, rng) for group in groups},
        channel_block=channel_block,
        vocabulary_language="en",
    )


def _losses(bits: list[int], rng: np.random.Generator) -> dict[int, float]:
    """By rising bits, none at the last."""
    return dict(zip(bits, [*sorted(rng.random(len(bits) - 1).tolist(), reverse=True), 0.0], strict=True))
