"""Recipes as values: round trips, identity, canonical form, partial order, refusals."""

import hashlib
import json
from dataclasses import fields, replace
from itertools import pairwise, permutations

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from common.errors import InputError
from compression.recipe.dimensions import Dimensions
from compression.recipe.order import at_least_as_compressed
from compression.recipe.recipe import IMPORTANCE_MEASURES, DecoderLayer, EncoderLayer, Recipe
from evaluators.costs.inventory import operations
from tests.strategies import recipes, small_dimensions

DIMENSIONS = small_dimensions(vocabulary=51864)
TINY = small_dimensions(layers=1, state=4, heads=2, vocabulary=51864)
"""One layer a stack and few values: random recipes can often be compared."""
FIELDS = {field.name for field in fields(Recipe)}


def comparable_recipes() -> st.SearchStrategy[Recipe]:
    return recipes(TINY, bits=(8, 16), coarse=True).map(lambda recipe: recipe.canonical(TINY))


@st.composite
def compressed_further(draw: st.DrawFn, recipe: Recipe) -> Recipe:
    """A recipe with some gene brought down to a value that is surely at least as compressed."""
    encoder = replace(recipe.encoder[0], heads=1, ffn_bits=8)
    changes = draw(
        st.sampled_from(
            (
                {},
                {"encoder": (encoder,)},
                {"encoder": (replace(encoder, ffn_rank=1),)},
                {"embedding_bits": 8},
                {"convolution_bits": 8},
                {"window_s": 15.0},
                {"vocabulary": 1024, "vocabulary_language": recipe.vocabulary_language or "de"},
                {"embedding_bits": 8, "group_size": 0},
            )
        )
    )
    return replace(recipe, **changes).canonical(TINY)


@given(recipes(DIMENSIONS))
def test_json_round_trip_keeps_the_recipe_and_its_id(recipe: Recipe) -> None:
    restored = Recipe.from_json(recipe.to_json())
    assert restored == recipe
    assert restored.to_json() == recipe.to_json()
    assert restored.id == recipe.id
    assert hash(restored) == hash(recipe)


@given(recipes(DIMENSIONS))
def test_key_order_and_spaces_of_the_json_do_not_matter(recipe: Recipe) -> None:
    backwards = dict(reversed(json.loads(recipe.to_json()).items()))
    assert Recipe.from_json(json.dumps(backwards, indent=2)).id == recipe.id


@given(recipes(TINY, bits=(8, 16), coarse=True), recipes(TINY, bits=(8, 16), coarse=True))
def test_ids_are_equal_exactly_for_equal_recipes(first: Recipe, second: Recipe) -> None:
    assert (first.id == second.id) == (first == second)


def test_json_and_id_of_a_known_recipe_never_change() -> None:
    """Run folders and CSVs rely on them: another text or id needs another FORMAT_VERSION."""
    text = (
        '{"activation_bits":32,"activation_ranges":"dynamic","convolution_bits":16,'
        '"decoder":[{"attention_bits":16,"cross_heads":2,"ffn_bits":16,"ffn_channels":16,"heads":2}],'
        '"embedding_bits":16,"encoder":[{"attention_bits":16,"ffn_bits":16,"ffn_channels":16,"heads":2}],'
        '"group_size":0,"importance":"combined","refit":false,"symmetric":true,"version":1,"window_s":30.0}'
    )
    assert Recipe.original(TINY).to_json() == text
    assert Recipe.original(TINY).id == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_whole_and_fractional_seconds_are_one_recipe() -> None:
    original = Recipe.original(DIMENSIONS)
    first, second = replace(original, window_s=15), replace(original, window_s=15.0)
    assert first == second
    assert first.id == second.id


def saves_nothing(layer: EncoderLayer) -> bool:
    """Whether the rank's factors have at least the weights of a matrix of 128 x channels."""
    return layer.ffn_rank * 128 + layer.ffn_rank * layer.ffn_channels >= 128 * layer.ffn_channels


@given(recipes(DIMENSIONS))
def test_canonical_is_idempotent_and_keeps_what_has_an_effect(recipe: Recipe) -> None:
    canonical = recipe.canonical(DIMENSIONS)
    assert canonical.canonical(DIMENSIONS) == canonical
    changed = {name for name in FIELDS if getattr(canonical, name) != getattr(recipe, name)}
    allowed = {
        "group_size": all(bits > 8 for bits in recipe.weight_bits[:-1]),
        "scale_bits": all(bits > 8 for bits in recipe.weight_bits[:-1]) or recipe.group_size == 0,
        "symmetric": all(bits > 8 for bits in recipe.weight_bits),
        "rounding": all(bits > 8 for bits in recipe.weight_bits[:-1]),
        "activation_ranges": recipe.activation_bits == 32,
        "range_estimator": recipe.activation_bits == 32 or recipe.activation_ranges == "dynamic",
        "smoothing": recipe.activation_bits == 32,
        "importance": not recipe.is_pruned(DIMENSIONS),
        "refit": not recipe.is_pruned(DIMENSIONS) or recipe.importance == "iterative",
        "vocabulary_language": recipe.vocabulary == 0,
        "frequent_tokens": recipe.embedding_bits >= 8 or recipe.frequent_tokens >= (recipe.vocabulary or 50256),
        "embedding_bits": recipe.embedding_bits < 8 and recipe.frequent_tokens >= (recipe.vocabulary or 50256),
        "encoder": any(layer and saves_nothing(layer) for layer in recipe.encoder),
        "decoder": any(layer and saves_nothing(layer) for layer in recipe.decoder),
    }
    assert changed <= {name for name, has_no_effect in allowed.items() if has_no_effect}


@given(recipes(DIMENSIONS))
def test_canonical_keeps_every_operation_and_byte(recipe: Recipe) -> None:
    assert operations(DIMENSIONS, recipe.canonical(DIMENSIONS)) == operations(DIMENSIONS, recipe)


@given(recipes(DIMENSIONS), st.sampled_from((16, 32)), st.booleans(), st.sampled_from(IMPORTANCE_MEASURES))
def test_fields_without_effect_do_not_make_another_recipe(
    recipe: Recipe, group_size: int, symmetric: bool, importance
) -> None:
    changes: dict[str, object] = {}
    if not any(bits <= 8 for bits in recipe.weight_bits[:-1]):
        changes["group_size"] = group_size
    if not any(bits <= 8 for bits in recipe.weight_bits):
        changes["symmetric"] = symmetric
    if not recipe.is_pruned(DIMENSIONS):
        changes |= {"importance": importance, "refit": False}
    event(f"{len(changes)} fields without effect")
    assert replace(recipe, **changes).canonical(DIMENSIONS).id == recipe.canonical(DIMENSIONS).id


def test_group_size_has_no_effect_when_only_convolutions_are_quantised() -> None:
    recipe = replace(Recipe.original(DIMENSIONS), convolution_bits=8)
    grouped = replace(recipe, group_size=32)
    assert grouped.canonical(DIMENSIONS) == recipe.canonical(DIMENSIONS)
    assert replace(grouped, symmetric=False).canonical(DIMENSIONS) != recipe.canonical(DIMENSIONS)


@given(comparable_recipes())
def test_order_is_reflexive(recipe: Recipe) -> None:
    assert at_least_as_compressed(recipe, recipe)


@given(comparable_recipes(), comparable_recipes())
def test_order_is_antisymmetric(first: Recipe, second: Recipe) -> None:
    both = at_least_as_compressed(first, second) and at_least_as_compressed(second, first)
    assert both == (first == second)


@given(comparable_recipes(), comparable_recipes(), comparable_recipes())
def test_order_is_transitive(first: Recipe, second: Recipe, third: Recipe) -> None:
    for low, middle, high in permutations((first, second, third)):
        if at_least_as_compressed(low, middle) and at_least_as_compressed(middle, high):
            assert at_least_as_compressed(low, high)


@given(st.data())
def test_order_holds_along_chains_of_compression(data: st.DataObject) -> None:
    """Non-vacuous transitivity: bringing genes down stays below every ancestor."""
    chain = [Recipe.original(TINY)]
    for _ in range(3):
        chain.append(data.draw(compressed_further(chain[-1])))
    for earlier, later in pairwise(chain):
        assert at_least_as_compressed(later, earlier)
        assert at_least_as_compressed(later, chain[0])
        assert later == earlier or not at_least_as_compressed(earlier, later)


@given(comparable_recipes(), comparable_recipes())
def test_smaller_in_the_order_never_has_more_flops_or_parameters(first: Recipe, second: Recipe) -> None:
    if not at_least_as_compressed(first, second):
        return
    ours, theirs = operations(TINY, first), operations(TINY, second)
    assert sum(item.flops for item in ours) <= sum(item.flops for item in theirs)
    assert sum(item.parameters for item in ours) <= sum(item.parameters for item in theirs)


@given(recipes(DIMENSIONS))
def test_recipes_of_models_of_other_depth_are_incomparable(recipe: Recipe) -> None:
    other = Recipe.original(small_dimensions(layers=3))
    assert not at_least_as_compressed(recipe, other)
    assert not at_least_as_compressed(other, recipe)


LAYER = {"heads": 2, "ffn_channels": 512, "attention_bits": 8, "ffn_bits": 8}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("heads", 0),
        ("heads", 1.0),
        ("heads", True),
        ("ffn_channels", -1),
        ("ffn_channels", 12.5),
        ("attention_bits", 9),
        ("ffn_bits", 1),
        ("ffn_bits", 8.0),
        ("cross_heads", 0),
        ("ffn_rank", -1),
        ("ffn_rank", 16.0),
    ],
)
def test_layer_refuses_nonsense(field: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"{field} .* but got {value!r}"):
        DecoderLayer(**{**LAYER, "cross_heads": 2, field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("embedding_bits", 0),
        ("convolution_bits", 12),
        ("activation_bits", 4),
        ("activation_ranges", "fixed"),
        ("group_size", -1),
        ("group_size", 32.0),
        ("symmetric", "yes"),
        ("refit", None),
        ("importance", "magic"),
        ("window_s", 0.5),
        ("window_s", 31),
        ("window_s", float("nan")),
        ("window_s", True),
        ("window_s", "long"),
        ("smoothing", False),
        ("rounding", "up"),
        ("range_estimator", "mean"),
        ("smoothing", 1.5),
        ("vocabulary", -1),
        ("vocabulary", 512),
        ("vocabulary", 2048.0),
        ("vocabulary_language", 3),
        ("encoder", (None, None)),
        ("decoder", ()),
    ],
)
def test_recipe_refuses_nonsense(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        replace(Recipe.original(DIMENSIONS), **{field: value})


@given(recipes(DIMENSIONS))
def test_check_accepts_every_recipe_of_the_model(recipe: Recipe) -> None:
    recipe.check(DIMENSIONS)


@pytest.mark.parametrize(
    ("stack", "changes"),
    [
        ("encoder", {"heads": 3}),
        ("encoder", {"ffn_channels": 513}),
        ("decoder", {"heads": 3}),
        ("decoder", {"cross_heads": 3}),
        ("decoder", {"ffn_channels": 513}),
    ],
)
def test_check_refuses_more_than_the_model_has(stack: str, changes: dict[str, int]) -> None:
    original = Recipe.original(DIMENSIONS)
    first, last = getattr(original, stack)
    recipe = replace(original, **{stack: (first, replace(last, **changes))})
    ((name, value),) = changes.items()
    with pytest.raises(InputError, match=rf"^{stack}\.1: {name} <= {value - 1} must hold, but got {value}$"):
        recipe.check(DIMENSIONS)


@pytest.mark.parametrize("wide", ["n_audio_state", "n_text_state"])
def test_check_refuses_groups_that_no_layer_could_fill(wide: str) -> None:
    """The second FFN layer has four times the width as inputs; a group may be longer than other layers' inputs."""
    dimensions = replace(DIMENSIONS, **{wide: 256})
    longest = replace(Recipe.original(dimensions), embedding_bits=4, group_size=1024)
    longest.check(dimensions)
    with pytest.raises(InputError, match="^group_size <= 1024, the most inputs of a layer, must hold, but got 1025$"):
        replace(longest, group_size=1025).check(dimensions)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_check_refuses_another_depth(stack: str) -> None:
    original = Recipe.original(DIMENSIONS)
    recipe = replace(original, **{stack: getattr(original, stack)[:1]})
    with pytest.raises(InputError, match=f"2 {stack} layers"):
        recipe.check(DIMENSIONS)


@pytest.mark.parametrize(("vocabulary", "dimensions"), [(50256, DIMENSIONS), (1024, small_dimensions(vocabulary=500))])
def test_check_refuses_a_vocabulary_that_is_not_shorter_than_whispers(vocabulary: int, dimensions: Dimensions) -> None:
    recipe = replace(Recipe.original(dimensions), vocabulary=vocabulary, vocabulary_language="en")
    with pytest.raises(InputError, match=f"vocabulary < 50256, .* but got {vocabulary}"):
        recipe.check(dimensions)


def test_a_shorter_vocabulary_needs_a_language_and_calibration() -> None:
    original = Recipe.original(DIMENSIONS)
    with pytest.raises(InputError, match="vocabulary_language with a vocabulary"):
        replace(original, vocabulary=8192)
    shorter = replace(original, vocabulary=8192, vocabulary_language="en")
    assert shorter.needs_calibration(DIMENSIONS)
    assert not original.needs_calibration(DIMENSIONS)
    assert shorter.encoder_key == original.encoder_key
    assert shorter.summary().endswith("| emb16 8192en conv16 a32 30s")


def test_the_order_of_languages_has_no_effect() -> None:
    original = Recipe.original(DIMENSIONS)
    this, other = (replace(original, vocabulary=8192, vocabulary_language=both) for both in ("en+de", "de+en"))
    assert this.id == other.id


def test_vocabularies_are_ordered_by_length_within_a_language() -> None:
    original = Recipe.original(DIMENSIONS)
    short, longer = (replace(original, vocabulary=n, vocabulary_language="en") for n in (4096, 8192))
    german = replace(short, vocabulary_language="de")
    assert at_least_as_compressed(short, longer)
    assert at_least_as_compressed(longer, original)
    assert not at_least_as_compressed(longer, short)
    assert not at_least_as_compressed(original, longer)
    assert not at_least_as_compressed(german, longer)
    assert at_least_as_compressed(german, original)


def test_ranks_are_ordered_and_none_is_the_whole_matrix() -> None:
    original = Recipe.original(DIMENSIONS)
    low, high = (
        replace(original, decoder=tuple(replace(layer, ffn_rank=rank) for layer in original.decoder))
        for rank in (32, 64)
    )
    assert at_least_as_compressed(low, high)
    assert at_least_as_compressed(high, original)
    assert not at_least_as_compressed(original, low)
    assert not at_least_as_compressed(high, low)
    dropped = replace(low, decoder=(None, low.decoder[1]))
    assert at_least_as_compressed(dropped, low)
    assert not at_least_as_compressed(low, dropped)


def test_a_rank_that_no_longer_saves_anything_is_no_gene() -> None:
    """103 x (128 + 512) is more than 128 x 512, 102 x (128 + 512) is less."""
    original = Recipe.original(DIMENSIONS)
    layer, other = original.encoder
    for rank, channels, made in ((102, 512, 102), (103, 512, 0), (64, 129, 64), (64, 128, 0)):
        recipe = replace(original, encoder=(replace(layer, ffn_rank=rank, ffn_channels=channels), other))
        canonical = recipe.canonical(DIMENSIONS)
        assert canonical.encoder == (replace(layer, ffn_rank=made, ffn_channels=channels), other)
        assert canonical.needs_calibration(DIMENSIONS) == (made > 0 or channels < 512)


def test_summary_names_ranks() -> None:
    original = Recipe.original(DIMENSIONS)
    encoder = tuple(replace(layer, ffn_rank=rank) for layer, rank in zip(original.encoder, (96, 0), strict=True))
    decoder = tuple(replace(layer, ffn_rank=32) for layer in original.decoder)
    summary = replace(original, encoder=encoder, decoder=decoder).summary()
    assert summary.startswith("enc 2L 4h ffn1024 r0,96 w16/16 | dec 2L 4+4h ffn1024 r32 w16/16 |")
    assert " r" not in original.summary()


def test_original_changes_nothing() -> None:
    recipe = Recipe.original(DIMENSIONS, stored_bits=32)
    layer = EncoderLayer(heads=2, ffn_channels=512, attention_bits=32, ffn_bits=32)
    assert recipe.encoder == (layer, layer)
    assert set(recipe.weight_bits) == {32}
    assert not recipe.is_quantised
    assert not recipe.is_pruned(DIMENSIONS)


def test_summary_counts_what_is_kept() -> None:
    recipe = Recipe(
        encoder=(EncoderLayer(heads=5, ffn_channels=1280, attention_bits=8, ffn_bits=4), None),
        decoder=(
            DecoderLayer(heads=6, cross_heads=4, ffn_channels=1536, attention_bits=8, ffn_bits=8),
            DecoderLayer(heads=3, cross_heads=6, ffn_channels=1000, attention_bits=8, ffn_bits=4),
        ),
        embedding_bits=8,
        convolution_bits=16,
        activation_bits=8,
        activation_ranges="static",
        group_size=32,
        symmetric=False,
        window_s=15,
    )
    assert recipe.summary() == ("enc 1L 5h ffn1280 w8/4 | dec 2L 9+10h ffn2536 w8/4,8 | emb8 conv16 a8s g32z 15s")
