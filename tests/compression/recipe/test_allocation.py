"""Bits by group: against every possible choice."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import CompressionError
from compression.calibration.inputs import EMBEDDING
from compression.compress import grids
from compression.recipe.allocation import allocate_bits, group_weights
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from tests.networks import network_of_shape
from tests.strategies import small_dimensions

BITS = (2, 4, 8, 16)
TABLES = st.integers(1, 5).flatmap(
    lambda groups: st.tuples(
        st.lists(st.integers(1, 20), min_size=groups, max_size=groups),
        st.lists(
            st.dictionaries(st.sampled_from(BITS), st.integers(0, 30), min_size=1), min_size=groups, max_size=groups
        ),
        st.sampled_from((2, 3, 3.5, 4, 5, 6.25, 8, 12, 16)),
    )
)


@settings(max_examples=300, deadline=None)
@given(TABLES)
def test_no_choice_within_the_mean_loses_less(table):
    counts, losses, mean_bits = table
    weights = {f"g{n}": count for n, count in enumerate(counts)}
    sensitivity = {f"g{n}": {bits: float(loss) for bits, loss in of_group.items()} for n, of_group in enumerate(losses)}
    within = [
        (sum(sensitivity[group][bits] for group, bits in zip(weights, chosen, strict=True)), used)
        for chosen in product(*(sensitivity[group] for group in weights))
        if (used := sum(c * b for c, b in zip(counts, chosen, strict=True))) <= mean_bits * sum(counts)
    ]
    if not within:
        with pytest.raises(CompressionError, match="bits a weight are too few"):
            allocate_bits(sensitivity, weights, mean_bits)
        return
    found = allocate_bits(sensitivity, weights, mean_bits)
    assert found.keys() == weights.keys()
    lost = sum(sensitivity[group][bits] for group, bits in found.items())
    assert (lost, sum(weights[group] * bits for group, bits in found.items())) == min(within)


def test_too_few_bits_are_named():
    with pytest.raises(CompressionError, match="3.5 bits a weight are too few: at least 5 can be stored"):
        allocate_bits({"a": {4: 1.0}, "b": {8: 0.0, 16: 0.0}}, {"a": 3, "b": 1}, 3.5)


def test_what_costs_most_keeps_its_bits():
    sensitivity = {"dear": {8: 0.0, 4: 9.0}, "cheap": {8: 0.0, 4: 1.0}}
    assert allocate_bits(sensitivity, {"dear": 10, "cheap": 10}, 6) == {"dear": 8, "cheap": 4}


@pytest.mark.parametrize("vocabulary", [0, 2000])
def test_weights_are_those_of_the_network(vocabulary):
    """Counted in a network that has lost its first decoder layer."""
    dimensions: Dimensions = small_dimensions(layers=2, vocabulary=51864)
    recipe = Recipe.original(dimensions)
    recipe = Recipe(
        encoder=recipe.encoder,
        decoder=(None, recipe.decoder[1]),
        embedding_bits=8,
        convolution_bits=8,
        vocabulary=vocabulary,
        vocabulary_language="en" if vocabulary else "",
    )
    network = network_of_shape(dimensions, recipe)
    counted: dict[str, int] = {}
    for name, module, _ in grids(network, recipe):
        if name == EMBEDDING:
            counted["embedding"] = module.weight.numel()
        elif ".blocks." in name:
            stack, _, layer, part, *_ = name.split(".")
            layer = "1" if stack == "decoder" else layer
            group = f"{stack}.{layer}.{'ffn' if part == 'mlp' else 'attention'}"
            counted[group] = counted.get(group, 0) + module.weight.numel()
    assert group_weights(dimensions, encoder=[0, 1], decoder=[1], vocabulary=vocabulary) == counted
