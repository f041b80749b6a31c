"""The bits of the scales of groups, as a recipe says them."""

from dataclasses import replace

import pytest

from common.errors import InputError
from compression.recipe.order import at_least_as_compressed
from compression.recipe.recipe import Recipe
from tests.strategies import small_dimensions

DIMENSIONS = small_dimensions()
GROUPS = replace(Recipe.original(DIMENSIONS), embedding_bits=4, group_size=32)
EIGHT = replace(GROUPS, scale_bits=8)


def test_without_the_field_a_recipe_reads_as_before() -> None:
    assert "scale_bits" not in GROUPS.to_json()
    assert Recipe.from_json(EIGHT.to_json()) == EIGHT
    assert EIGHT.id != GROUPS.id


@pytest.mark.parametrize("changes", [{"group_size": 0}, {"embedding_bits": 16}])
def test_it_has_no_effect_where_no_row_has_several_scales(changes: dict[str, int]) -> None:
    assert replace(EIGHT, **changes).canonical(DIMENSIONS) == replace(GROUPS, **changes).canonical(DIMENSIONS)


def test_fewer_bits_are_more_compressed_and_one_scale_a_row_is_most() -> None:
    falling = [Recipe.original(DIMENSIONS), GROUPS, EIGHT, replace(GROUPS, group_size=0)]
    for place, recipe in enumerate(falling):
        assert [at_least_as_compressed(other, recipe) for other in falling] == [i >= place for i in range(4)]


def test_summary_names_it() -> None:
    assert " a32 g32 s8 30s" in EIGHT.summary()
    assert " a32 g32 30s" in GROUPS.summary()


@pytest.mark.parametrize("bits", [4, 32, 8.0, True])
def test_nonsense_is_refused(bits: object) -> None:
    with pytest.raises(InputError, match="scale_bits"):
        replace(GROUPS, scale_bits=bits)
