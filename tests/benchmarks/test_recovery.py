"""The named recipes of benchmarks/wer/recovery.py, on tiny's shape."""

import pytest
from recovery import RECIPES

from compression.calibration.calibration import Calibration
from compression.recipe.dimensions import published_dimensions
from compression.recipe.recipe import Recipe

DIMENSIONS = published_dimensions("tiny.en")
ORIGINAL = Recipe.original(DIMENSIONS)


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
