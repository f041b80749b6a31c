"""Calibrations without speech."""

import numpy as np

from compression.calibration.calibration import Calibration
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import IMPORTANCE_MEASURES, Recipe


def random_calibration(dimensions: Dimensions) -> Calibration:
    """Random importance of every head, channel and layer."""
    rng, original = np.random.default_rng(0), Recipe.original(dimensions)
    importances = {
        f"{stack}.{index}.{units}": {
            measure: rng.random(getattr(layer, units), dtype=np.float32) for measure in IMPORTANCE_MEASURES
        }
        for stack, names in (("encoder", ("heads",)), ("decoder", ("heads", "cross_heads")))
        for index, layer in enumerate(getattr(original, stack))
        for units in (*names, "ffn_channels")
    }
    layers = dict.fromkeys(key.rpartition(".")[0] for key in importances)
    return Calibration(
        inputs={},
        importances=importances,
        gradient_squares={},
        layer_importance={layer: rng.random() for layer in layers},
        token_counts=np.zeros(dimensions.n_vocab, np.int64),
    )
