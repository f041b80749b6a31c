"""Rows of the token embedding with more bits than the rest, as a recipe says them."""

from dataclasses import replace

import pytest

from common.errors import InputError
from compression.recipe.embedding import EmbeddingRows
from compression.recipe.order import at_least_as_compressed
from compression.recipe.recipe import Recipe
from tests.strategies import small_dimensions

ENGLISH, MULTILINGUAL = (small_dimensions(vocabulary=size) for size in (51864, 51865))
FOUR = replace(Recipe.original(ENGLISH), embedding_bits=4)


def frequent(tokens: int, **changes: object) -> Recipe:
    return replace(FOUR, frequent_tokens=tokens, **changes)


def test_without_the_gene_a_recipe_reads_as_before() -> None:
    assert "frequent_tokens" not in FOUR.to_json()
    assert Recipe.from_json(FOUR.to_json()) == frequent(0)
    written = frequent(512).to_json()
    assert written == FOUR.to_json().replace('"group_size"', '"frequent_tokens":512,"group_size"')
    assert Recipe.from_json(written) == frequent(512)


def test_the_rows_are_those_of_text_and_special_tokens() -> None:
    """English-only models have 50,256 text tokens, the others one more."""
    assert frequent(512).embedding_rows(ENGLISH) == EmbeddingRows(frequent=512, rest=49744, special=1608, bits=4)
    assert frequent(512).embedding_rows(MULTILINGUAL) == EmbeddingRows(frequent=512, rest=49745, special=1608, bits=4)
    shorter = frequent(512, vocabulary=2000, vocabulary_language="en")
    assert shorter.embedding_rows(ENGLISH) == EmbeddingRows(frequent=512, rest=1488, special=108, bits=4)
    assert shorter.embedding_rows(ENGLISH).by_bits == ((4, 1488), (8, 620))
    assert FOUR.embedding_rows(ENGLISH).by_bits == ((4, 51864),)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_it_has_no_effect_where_all_rows_have_as_many_bits(bits: int) -> None:
    plain = replace(FOUR, embedding_bits=bits)
    assert replace(plain, frequent_tokens=512).canonical(ENGLISH) == plain.canonical(ENGLISH)


def test_where_every_token_is_frequent_all_rows_have_more_bits() -> None:
    shorter = frequent(2000, vocabulary=2000, vocabulary_language="en")
    assert shorter.canonical(ENGLISH) == replace(shorter, embedding_bits=8, frequent_tokens=0)
    fewer = replace(shorter, frequent_tokens=1999)
    assert fewer.canonical(ENGLISH) == fewer


def test_the_encoder_does_not_depend_on_it() -> None:
    assert frequent(512).encoder_key == FOUR.encoder_key


def test_summary_names_it() -> None:
    shorter = frequent(512, vocabulary=2000, vocabulary_language="en")
    assert "| emb4 f512 conv16 " in frequent(512).summary()
    assert "| emb4 2000en f512 conv16 " in shorter.summary()


def test_fewer_frequent_tokens_are_more_compressed() -> None:
    eight = replace(FOUR, embedding_bits=8)
    falling = [Recipe.original(ENGLISH), eight, frequent(1024), frequent(512), FOUR]
    for place, recipe in enumerate(falling):
        assert [at_least_as_compressed(other, recipe) for other in falling] == [
            index >= place for index in range(len(falling))
        ]
    assert not at_least_as_compressed(replace(frequent(1024), embedding_bits=2), frequent(512))


@pytest.mark.parametrize("tokens", [-1, 1.0, True, "many"])
def test_nonsense_is_refused(tokens: object) -> None:
    with pytest.raises(InputError, match="frequent_tokens"):
        replace(FOUR, frequent_tokens=tokens)


@pytest.mark.parametrize(("tokens", "vocabulary"), [(50256, 51864), (512, 500)])
def test_a_vocabulary_that_does_not_hold_them_is_refused(tokens: int, vocabulary: int) -> None:
    with pytest.raises(InputError, match=f"frequent_tokens < 50256, .* but got {tokens}"):
        frequent(tokens).check(small_dimensions(vocabulary=vocabulary))
