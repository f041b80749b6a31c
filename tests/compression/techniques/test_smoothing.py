"""Smoothing changes nothing but where the outliers are."""

from dataclasses import replace

import numpy as np
import torch

from compression.calibration.calibration import Calibration, CalibrationSample, measure
from compression.calibration.inputs import KeptInputs
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.techniques.smoothing import divisors, smooth
from compression.whisper.load import LoadedModel
from compression.whisper.network import encode


def all_inputs(calibration: Calibration) -> KeptInputs:
    return KeptInputs(calibration.inputs, kept_layers={"encoder": (0,), "decoder": (0, 1)}, columns={})


def test_the_formula_by_hand(calibration: Calibration) -> None:
    inputs = calibration.inputs["encoder.blocks.0.mlp.0"]
    weight = torch.randn(10, len(inputs.mean), generator=torch.Generator().manual_seed(3))
    largest = np.maximum(np.abs(inputs.low), np.abs(inputs.high))
    expected = largest**0.7 / np.abs(weight.numpy()).max(0) ** 0.3
    assert np.allclose(divisors(inputs, [weight], 0.7), expected, rtol=1e-5)


def test_the_network_says_the_same(
    model: LoadedModel, calibration: Calibration, samples: list[CalibrationSample]
) -> None:
    recipe = Recipe.original(model.dimensions, stored_bits=32)
    network = compress(model, recipe).network
    kept = all_inputs(calibration)
    with torch.no_grad():
        smooth(network, kept, 0.5)
        for sample in samples:
            tokens = sample.tokens[None]
            before = model.network.decoder(tokens, encode(model.network, sample.mel[None]))
            after = network.decoder(tokens, encode(network, sample.mel[None]))
            assert torch.allclose(after, before, atol=1e-3 * float(before.abs().max()))
    assert not torch.equal(network.encoder.blocks[0].attn_ln.weight, model.network.encoder.blocks[0].attn_ln.weight)


def test_what_the_inputs_then_are(model: LoadedModel, samples: list[CalibrationSample]) -> None:
    """The statistics told for the smoothed network are those measured on it."""
    network = compress(model, Recipe.original(model.dimensions, stored_bits=32)).network
    calibration = measure(model, samples)
    kept = all_inputs(calibration)
    with torch.no_grad():
        smooth(network, kept, 0.5)
    again = measure(replace(model, network=network), samples)
    for name, inputs in again.inputs.items():
        told = kept.of(name)
        scale = np.abs(inputs.covariance).max()
        assert np.allclose(told.covariance, inputs.covariance, atol=1e-3 * scale), name
        assert np.allclose(told.high, inputs.high, rtol=1e-2, atol=1e-3 * np.abs(inputs.high).max()), name


def test_smoothed_activations_are_rounded_more_finely(model: LoadedModel, samples: list[CalibrationSample]) -> None:
    """With one channel a hundred times as large as the others, int8 loses less when it is smoothed."""
    loud = replace(model, network=compress(model, Recipe.original(model.dimensions, stored_bits=32)).network)
    with torch.no_grad():
        loud.network.encoder.blocks[0].mlp_ln.weight[5] *= 100
        loud.network.encoder.blocks[0].mlp[0].weight[:, 5] /= 100
    calibration = measure(loud, samples)
    plain = replace(Recipe.original(model.dimensions, stored_bits=32), activation_bits=8, activation_ranges="static")

    def error(recipe: Recipe) -> float:
        network = compress(loud, recipe, calibration).network
        with torch.no_grad():
            pairs = [
                [n.decoder(s.tokens[None], encode(n, s.mel[None])) for n in (network, loud.network)] for s in samples
            ]
        return float(sum((a - b).square().mean() for a, b in pairs))

    assert error(replace(plain, smoothing=0.5)) < 0.5 * error(plain)
