"""Which recipes benchmarks/speed/compress_speed.py compresses, and what it says of their errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from compress_speed import output_error, proposed

from compression.calibration.calibration import Calibration
from compression.calibration.inputs import InputStatistics
from compression.compress import compress
from compression.recipe.dimensions import published_dimensions
from compression.recipe.recipe import Recipe
from compression.whisper.load import LoadedModel
from devices.profile import load_profile
from search.engines.proposals import starting_genes
from search.space.space import Space, fine, with_original
from tests.compression.conftest import SMALL
from tests.networks import random_network

TINY_EN = published_dimensions("tiny.en")


@pytest.fixture(scope="module")
def space() -> Space:
    runtime, original = load_profile("imx8mplus").runtime, Recipe.original(TINY_EN)
    return Space(
        original=original,
        dimensions=TINY_EN,
        choices=with_original(fine(TINY_EN, runtime, 16), original, TINY_EN),
        importance={},
        layer_importance={},
        channel_block=runtime.channel_multiple,
        vocabulary_language="en",
    )


def test_recipes_are_different_calibrated_and_prune_all_kinds(space: Space) -> None:
    recipes = list(proposed(space, 50, np.random.default_rng(1)))
    starts = [space.decode(genes) for genes in starting_genes(space)]
    assert recipes[: len(starts)] == starts
    assert len(set(recipes)) == len(recipes) == 50
    assert {recipe.rounding for recipe in recipes[1:]} == {"calibrated"}
    assert all(layer for recipe in recipes for layer in (*recipe.encoder, *recipe.decoder))
    assert len({recipe.vocabulary for recipe in recipes}) == 5
    for units, most in (("heads", 6), ("ffn_channels", 1536)):
        assert any(getattr(layer, units) < most for recipe in recipes for layer in (*recipe.encoder, *recipe.decoder))
    assert recipes == list(proposed(space, 50, np.random.default_rng(1)))


def test_output_error_is_the_mean_square_over_inputs() -> None:
    """Inputs that are drawn, and a matrix multiplied by each of them."""
    torch.manual_seed(0)
    model = LoadedModel(name="r", digest="0", dimensions=SMALL, stored_bits=32, network=random_network(SMALL))
    inputs = {}
    for name, module in model.network.named_modules():
        if isinstance(module, torch.nn.Linear):
            inputs[name] = torch.randn(200, module.in_features)
    inputs["decoder.ln"] = torch.randn(200, SMALL.n_text_state)
    calibration = Calibration(
        inputs={name: _statistics(x) for name, x in inputs.items()},
        importances={},
        gradient_squares={},
        layer_importance={},
        token_counts=np.zeros(SMALL.n_vocab, np.int64),
    )
    recipe = replace(Recipe.original(SMALL, stored_bits=32).with_each_layer(attention_bits=4), embedding_bits=4)
    compressed = compress(model, recipe, calibration)
    error, whole = 0.0, 0.0
    for name, matrix in compressed.matrices.items():
        x = inputs["decoder.ln" if name == "decoder.token_embedding" else _first_reader(name)]
        weight = model.network.get_submodule(name).weight.detach()
        error += float((x @ (matrix.dequantised() - weight).T).square().sum(1).mean())
        whole += float((x @ weight.T).square().sum(1).mean())
    assert output_error(model, recipe, calibration, compressed) == pytest.approx(error / whole, rel=1e-3)


def _first_reader(name: str) -> str:
    """Query, key and value read the same; all cross-attention the encoder's output."""
    block, _, last = name.rpartition(".")
    if last not in {"key", "value"}:
        return name
    return "decoder.blocks.0.cross_attn.key" if block.endswith("cross_attn") else f"{block}.query"


def _statistics(x: torch.Tensor) -> InputStatistics:
    return InputStatistics(
        mean=x.mean(0).numpy(),
        covariance=torch.cov(x.T, correction=0).numpy(),
        low=x.amin(0).numpy(),
        high=x.amax(0).numpy(),
        rows=x[:16].numpy(),
    )
