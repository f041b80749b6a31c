"""The named recipes of benchmarks/recovery.py, on tiny's shape."""

import numpy as np
import pytest

from benchmarks.recovery import RECIPES
from compression.calibration import Calibration
from compression.dimensions import published_dimensions
from compression.recipe import IMPORTANCE_MEASURES, Recipe

DIMENSIONS = published_dimensions("tiny.en")
ORIGINAL = Recipe.original(DIMENSIONS)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """Random importance."""
    rng = np.random.default_rng(0)
    counts = {"heads": 6, "cross_heads": 6, "ffn_channels": 1536}
    importances = {
        f"{stack}.{layer}.{units}": {
            measure: rng.random(counts[units], dtype=np.float32) for measure in IMPORTANCE_MEASURES
        }
        for stack in ("encoder", "decoder")
        for layer in range(4)
        for units in counts
        if stack == "decoder" or units != "cross_heads"
    }
    return Calibration(
        inputs={},
        importances=importances,
        gradient_squares={},
        layer_importance={},
        token_counts=np.zeros(51864, np.int64),
    )


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_fit_the_model_and_are_what_they_are_called(name: str, calibration: Calibration) -> None:
    recipe = RECIPES[name](ORIGINAL, calibration)
    recipe.check(DIMENSIONS)
    layers = [layer for layer in (*recipe.encoder, *recipe.decoder) if layer]
    heads = sum(layer.heads for layer in layers) + sum(layer.cross_heads for layer in recipe.decoder if layer)
    channels = sum(layer.ffn_channels for layer in layers)
    assert len(layers) == (7 if name == "layer" else 8)
    assert heads == {"layer": 60, "heads": 60}.get(name, 72)
    assert channels == {"layer": 7 * 1536, "channels": 8 * 1536 - 57 * 32}.get(name, 8 * 1536)
    assert {layer.ffn_bits for layer in layers} == {{"4bit": 4, "2bit": 2}.get(name, 16)}
