"""The inventory's FLOPs against fvcore's count of networks that really have these shapes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.model import MultiHeadAttention, Whisper

from compression.calibration.calibration import Calibration, CalibrationSample, measure
from compression.compress import compress
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.whisper.load import LoadedModel
from evaluators.costs.inventory import operations
from evaluators.flops_check import Flops, _with_cache, count_flops
from tests.networks import network_of_shape, random_network
from tests.strategies import recipes, small_dimensions

SMALL = small_dimensions()
TINY_EN = replace(small_dimensions(state=384, heads=6, layers=4, vocabulary=51864), n_text_ctx=448)
AUDIO_S = 1.0
TOKENS = 9


def traced(network: Whisper, dimensions: Dimensions, recipe: Recipe) -> Flops:
    return count_flops(network, dimensions, recipe, audio_s=AUDIO_S, tokens=TOKENS)


def listed(dimensions: Dimensions, recipe: Recipe) -> Flops:
    """The inventory's, by the module of the network that an operation's name begins with."""
    flops = {"encoder": 0, "decoder": 0}
    for item in operations(dimensions, recipe, audio_s=AUDIO_S, tokens=TOKENS):
        flops[item.name.split(".", 1)[0]] += item.flops
    return Flops(**flops)


@settings(deadline=None, max_examples=8)
@given(recipes(SMALL))
def test_inventory_counts_what_fvcore_counts(recipe: Recipe) -> None:
    """Required within 1 %; it is exact."""
    assert traced(network_of_shape(SMALL, recipe), SMALL, recipe) == listed(SMALL, recipe)


def test_tiny_en_counts_as_known() -> None:
    """18.47 GMAC for the encoder: the 18.49 of docs/costs.md without fvcore's 5 per normalised value."""
    recipe = Recipe.original(TINY_EN)
    found = traced(random_network(TINY_EN), TINY_EN, recipe)
    assert found == listed(TINY_EN, recipe)
    assert found.encoder / 2 == 18_468_864_000


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return LoadedModel(name="random", digest="0" * 64, dimensions=SMALL, stored_bits=32, network=random_network(SMALL))


@pytest.fixture(scope="module")
def calibration(model: LoadedModel) -> Calibration:
    generator = torch.Generator().manual_seed(0)
    sample = CalibrationSample(
        mel=torch.randn(80, 200, generator=generator),
        tokens=torch.randint(0, 500, (12,), generator=generator),
        prompt_length=2,
    )
    return measure(model, [sample])


def changed(**changes: int | float) -> Recipe:
    """The original with other values in every layer, or in the recipe."""
    recipe = Recipe.original(SMALL)
    of_recipe = {name: value for name, value in changes.items() if hasattr(recipe, name)}
    of_layers = {name: value for name, value in changes.items() if name not in of_recipe}
    shared = {name: value for name, value in of_layers.items() if name != "cross_heads"}
    return replace(
        recipe,
        encoder=tuple(layer and replace(layer, **shared) for layer in recipe.encoder),
        decoder=tuple(layer and replace(layer, **of_layers) for layer in recipe.decoder),
        **of_recipe,
    )


@pytest.mark.parametrize(
    "recipe",
    [
        changed(heads=1, cross_heads=1),
        changed(ffn_channels=100, window_s=6),
        changed(ffn_rank=40),
        changed(ffn_rank=20, ffn_channels=300, attention_bits=8, ffn_bits=4, embedding_bits=8, activation_bits=8),
        replace(changed(), encoder=(None, changed().encoder[1]), decoder=(changed().decoder[0], None)),
    ],
    ids=["heads", "channels", "low rank", "rounded", "layers"],
)
def test_compressed_networks_count_the_same_as_the_inventory(
    recipe: Recipe, model: LoadedModel, calibration: Calibration
) -> None:
    network = compress(model, recipe, calibration).network
    assert traced(network, SMALL, recipe) == listed(SMALL, recipe)
    assert traced(network, SMALL, recipe) != listed(SMALL, Recipe.original(SMALL))


@given(st.integers(3, 40), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_self_attention_with_a_cache_sees_one_key_more_at_every_step(
    steps: int, audio: int, token: int, key: int
) -> None:
    """A step costs `token` and 2 `key` for each key so far; the audio's keys and values once `audio`."""
    at_once = lambda count: audio + count * token + 2 * key * count * count  # noqa: E731
    assert _with_cache(at_once, steps) == audio + sum(token + 2 * key * seen for seen in range(1, steps + 1))


def test_a_shorter_vocabulary_counts_the_same_as_the_inventory() -> None:
    dimensions = small_dimensions(layers=1, vocabulary=51866)
    recipe = replace(Recipe.original(dimensions), vocabulary=5000, vocabulary_language="en", window_s=5)
    assert traced(network_of_shape(dimensions, recipe), dimensions, recipe) == listed(dimensions, recipe)


def test_tracing_leaves_network_and_whisper_as_they_were() -> None:
    network = random_network(SMALL).train()
    before = {name: value.clone() for name, value in network.state_dict().items() if value.is_floating_point()}
    traced(network, SMALL, Recipe.original(SMALL))
    assert MultiHeadAttention.use_sdpa
    assert network.training
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
