"""Random workloads stay within what the runtime executes, and reach all of it."""

from itertools import islice

import pytest

from common.errors import UnknownNameError
from compression.recipe.dimensions import published_dimensions
from compression.recipe.recipe import Recipe
from compression.recipe.runtimes import unsupported_reason
from evaluators.costs.inventory import prompt_length
from evaluators.profiling.pool import Pool
from evaluators.profiling.random_workloads import Workload, random_workloads
from evaluators.profiling.run import RUNTIME

TINY = published_dimensions("tiny.en")
COUNT = 300


def drawn(count: int = COUNT, seed: int = 0) -> list[Workload]:
    return list(islice(random_workloads(TINY, RUNTIME, seed=seed), count))


def test_a_seed_says_all() -> None:
    assert drawn(20) == drawn(20)
    assert drawn(20)[:5] == drawn(5)
    assert not {workload.recipe.id for workload in drawn(50)} & {
        drawn_recipe.recipe.id for drawn_recipe in drawn(50, seed=1)
    }


def test_all_can_be_exported_and_run() -> None:
    for workload in drawn():
        recipe = workload.recipe
        recipe.check(TINY)
        assert recipe == recipe.canonical(TINY)
        assert unsupported_reason("onnxruntime", recipe, TINY) is None
        assert {bits for bits in recipe.weight_bits if bits <= 8} <= set(RUNTIME.weight_bits)
        assert 0 < workload.audio_s <= 26
        assert prompt_length(TINY) + workload.tokens <= TINY.n_text_ctx


def test_the_whole_space_is_reached() -> None:
    recipes = [workload.recipe for workload in drawn()]
    layers = [layer for recipe in recipes for layer in (*recipe.encoder, *recipe.decoder)]
    kept = [layer for layer in layers if layer]
    assert {layer.attention_bits for layer in kept} == {layer.ffn_bits for layer in kept} == set(RUNTIME.weight_bits)
    assert {recipe.embedding_bits for recipe in recipes} == set(RUNTIME.embedding_bits)
    assert {recipe.activation_bits for recipe in recipes} == set(RUNTIME.activation_bits)
    assert {recipe.group_size for recipe in recipes} == {0, *RUNTIME.group_sizes}
    assert {layer.heads for layer in kept} == set(range(1, 7))
    assert all(layer.ffn_channels % RUNTIME.channel_multiple == 0 for layer in kept)
    # the first layers of both stacks stay, 15 % of the others go
    assert 0.11 * (len(layers) * 3 / 4) < len(layers) - len(kept) < 0.19 * (len(layers) * 3 / 4)
    assert all(recipe.encoder[0] and recipe.decoder[0] for recipe in recipes)


def test_whole_layers_are_frequent() -> None:
    """Searches start from the original: the corner of the space that no uniform draw would reach."""
    layers = [layer for workload in drawn() for layer in workload.recipe.encoder if layer]
    whole = sum(layer.heads == TINY.n_audio_head for layer in layers) / len(layers)
    assert 1 / 3 < whole < 0.55  # a third, and a sixth of the others


def test_an_unknown_model() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'tiny\.fr'. Did you mean 'tiny"):
        Pool.of(("tiny.en", "tiny.fr"), RUNTIME)


def test_recipes_are_recipes() -> None:
    for workload in drawn(20):
        assert Recipe.from_json(workload.recipe.to_json()) == workload.recipe
