"""Recipes that share an encoder key share their encoder's output, value for value."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compression.calibration.calibration import Calibration, CalibrationSample, measure
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.whisper.load import LoadedModel
from compression.whisper.network import encode
from tests.compression.conftest import SMALL
from tests.networks import random_network
from tests.strategies import recipes

MEL = torch.randn(1, 80, 60, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def float32() -> LoadedModel:
    """Of a float32 checkpoint: no weight, bias or normalisation is a float16 value."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = random_network(SMALL)
        for parameter in network.parameters():
            parameter.data += 0.01 * torch.randn(parameter.shape)
    return LoadedModel(name="float32", digest="0", dimensions=SMALL, stored_bits=32, network=network)


@pytest.fixture(scope="module")
def calibration32(float32: LoadedModel, samples: list[CalibrationSample]) -> Calibration:
    return measure(float32, samples[:2])


def encoded(model: LoadedModel, recipe: Recipe, calibration: Calibration) -> Tensor:
    with torch.inference_mode():
        return encode(compress(model, recipe, calibration).network, MEL)


def test_the_original_of_a_float32_checkpoint_shares_no_key_with_what_stores_float16_biases(
    float32: LoadedModel, calibration32: Calibration
) -> None:
    original = Recipe.original(SMALL, stored_bits=32)
    embedding = replace(original, embedding_bits=8)
    decoder = replace(original, decoder=tuple(layer and replace(layer, ffn_bits=8) for layer in original.decoder))
    outputs = {recipe: encoded(float32, recipe, calibration32) for recipe in (original, embedding, decoder)}
    assert not torch.equal(outputs[original], outputs[embedding])
    assert original.encoder_key not in (embedding.encoder_key, decoder.encoder_key)
    assert embedding.encoder_key == decoder.encoder_key
    assert torch.equal(outputs[embedding], outputs[decoder])


@given(
    recipe=recipes(SMALL, coarse=True),
    others=st.tuples(*[recipes(SMALL, coarse=True)] * 2),
    bits=st.lists(st.sampled_from((4, 16, 32)), min_size=2, max_size=2),
    smoothing=st.sampled_from((0.0, 0.5)),
    uses_floats=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_equal_keys_give_equal_encoder_outputs(  # noqa: PLR0917 - what is drawn
    float32, calibration32, recipe, others, bits, smoothing, uses_floats
):
    """The recipe, and the same with another decoder or embedding, some of floats only."""
    if uses_floats:
        recipe = replace(recipe.with_each_layer(attention_bits=32, ffn_bits=32), convolution_bits=32)
    recipe = replace(recipe, smoothing=smoothing)
    variants = [recipe]
    for other, embedding_bits in zip(others, bits, strict=True):
        decoder = replace(recipe, decoder=other.decoder, embedding_bits=embedding_bits)
        variants += [decoder, replace(recipe, embedding_bits=embedding_bits)]
    first: dict[str, Tensor] = {}
    for variant in dict.fromkeys(v.canonical(SMALL) for v in variants):
        output = encoded(float32, variant, calibration32)
        assert torch.equal(output, first.setdefault(variant.encoder_key, output)), variant.summary()
