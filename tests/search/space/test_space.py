from dataclasses import replace
from itertools import permutations
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import CompressionError, InputError, UnknownNameError
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import STACKS
from search.space.genes import units_of
from search.space.space import PRESETS, Space, check_choices, load_choices, runtime_violation, with_original
from tests.search.conftest import DIMENSIONS, ORIGINAL
from tests.search.spaces import RUNTIME, make_space
from tests.strategies import recipes, small_dimensions

TINY = replace(DIMENSIONS, n_audio_layer=4, n_text_layer=4)
ORIGINAL_TINY = Recipe.original(TINY)
LARGE = replace(small_dimensions(layers=32, state=1280, heads=20, vocabulary=51866), n_mels=128)
TURBO = replace(LARGE, n_text_layer=4)
SHAPES = {
    "tiny": TINY,
    "large": LARGE,
    "turbo": TURBO,
    "two heads, six layers": small_dimensions(layers=6),
    "one head, one layer": small_dimensions(layers=1, state=64, heads=1),
}
INCOMPARABLE = ("importance", "refit", "rounding", "activation_ranges", "range_estimator", "smoothing")
USERS = """
[genes]
"encoder.attention_bits" = [16, 8, 4]
"encoder.1.ffn_bits" = [16, 4]
"encoder.0.kept" = [true, false]
"encoder.1.kept" = [true, false]
"decoder.layers_removed" = [0, 1]
"decoder.heads_removed" = [0, 3, 7]
"decoder.0.cross_heads" = [6, 4, 1]
"decoder.ffn_channels_removed" = [0, 32, 1024]
embedding_bits = [16, 8]
activation_bits = [32, 8]
group_size = [32, 64]
symmetric = [false, true]
window_s = [30, 12.5]
vocabulary = [0, 20000, 4096]
"""


def user_space(folder: Path, text: str = USERS, dimensions: Dimensions = DIMENSIONS) -> Space:
    (folder / "space.toml").write_text(text, encoding="utf-8")
    return make_space(dimensions, load_choices(folder / "space.toml"))


@pytest.fixture(scope="module", params=[*(f"{p}: {s}" for p in ("coarse", "fine") for s in SHAPES), "user's"])
def space(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Space:
    if request.param == "user's":
        return user_space(tmp_path_factory.mktemp("space"))
    preset, shape = request.param.split(": ")
    return make_space(SHAPES[shape], preset)


def test_defaults_are_the_original(space):
    assert space.decode(space.default_genes) == space.decode({}) == space.original
    check_choices(space, RUNTIME)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_every_sample_is_a_recipe_that_the_device_runs(space, seed):
    genes = space.sample(np.random.default_rng(seed))
    recipe = space.decode(genes)
    recipe.check(space.dimensions)
    assert runtime_violation(recipe, RUNTIME, original=space.original) is None
    assert recipe == recipe.canonical(space.dimensions)
    choices = {name: getattr(recipe, name) for name in INCOMPARABLE}
    assert space.rules_out(replace(space.original, **choices), recipe)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.sampled_from(["tiny", "turbo"]), preset=st.sampled_from(["coarse", "fine"]))
def test_recipes_of_a_preset_encode_to_genes_that_decode_to_them(seed, shape, preset):
    space = make_space(SHAPES[shape], preset)
    recipe = space.decode(space.sample(np.random.default_rng(seed)))
    genes = space.encode(recipe)
    assert genes is not None
    assert genes.keys() == space.choices.keys()
    assert all(genes[name] in values for name, values in space.choices.items())
    assert space.decode(genes) == recipe


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_recipe_encodes_to_itself_or_to_none(data):
    dimensions = small_dimensions(layers=2)
    space = make_space(dimensions, "fine")
    recipe = data.draw(recipes(dimensions, bits=(16, 8, 4), coarse=True)).canonical(dimensions)
    genes = space.encode(recipe)
    assert genes is None or space.decode(genes) == recipe


@pytest.mark.parametrize(
    "outside",
    [{"window_s": 17.0}, {"embedding_bits": 3}, {"importance": "combined", "refit": False}, {"encoder": (None, None)}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_recipe_outside_has_no_genes(outside):
    layer = replace(ORIGINAL.encoder[0], ffn_channels=77)
    changes = outside if "encoder" not in outside else {"encoder": (layer, None)}
    pruned = replace(ORIGINAL, decoder=(ORIGINAL.decoder[0], None), **changes)
    pruned = replace(pruned, encoder=(replace(pruned.encoder[0], heads=5), pruned.encoder[1]))
    assert make_space(DIMENSIONS, "fine").encode(pruned.canonical(DIMENSIONS)) is None


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_order_of_genes_has_no_effect(data):
    space = make_space(TINY, "coarse")
    genes = space.sample(np.random.default_rng(data.draw(st.integers(0, 2**32))))
    shuffled = dict(data.draw(st.permutations(list(genes.items()))))
    assert space.decode(shuffled) == space.decode(genes)


def test_combinations_is_the_product(space):
    assert space.combinations == prod(map(len, space.choices.values()))


def test_the_more_particular_gene_has_the_last_word():
    space = make_space(TINY, {})
    recipe = space.decode({"encoder.2.ffn_bits": 4, "encoder.ffn_bits": 8, "decoder.1.heads": 2, "decoder.heads": 5})
    assert [layer and layer.ffn_bits for layer in recipe.encoder] == [8, 8, 4, 8]
    assert [layer and layer.heads for layer in recipe.decoder] == [5, 2, 5, 5]


def test_a_rank_is_read_off_the_layers_that_have_enough_channels_for_it():
    """192 x (384 + 384) is 384 x 384: in the second layer it would save nothing."""
    space = make_space(DIMENSIONS, {"encoder.ffn_rank": (0, 256, 192), "encoder.1.ffn_channels": (1536, 384)})
    recipe = space.decode({"encoder.ffn_rank": 192, "encoder.1.ffn_channels": 384})
    assert [layer.ffn_rank for layer in recipe.encoder] == [192, 0]
    assert space.encode(recipe) == {"encoder.ffn_rank": 192, "encoder.1.ffn_channels": 384}
    assert space.encode(ORIGINAL) == {"encoder.ffn_rank": 0, "encoder.1.ffn_channels": 1536}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("removed", [0, 1, 5, 17, 20])
def test_heads_removed_are_the_least_important_ones_of_the_stack(stack, removed):
    space = make_space(TINY, {})
    recipe = space.decode({f"{stack}.heads_removed": removed})
    kept = [layer.heads for layer in getattr(recipe, stack)]
    assert 4 * 6 - sum(kept) == removed
    # brute force: every layer keeps its best head, the others leave in the order of their importance
    scores = {(i, rank): s for i in range(4) for rank, s in enumerate(sorted(space.importance[f"{stack}.{i}.heads"]))}
    leaving = sorted((s, i) for (i, rank), s in scores.items() if rank < 5)[:removed]
    assert kept == [6 - sum(i == layer for _, i in leaving) for layer in range(4)]


@pytest.mark.parametrize("stack", STACKS)
def test_units_leave_the_layers_that_stay(stack):
    space = make_space(TINY, {})
    for units in units_of(stack):
        recipe = space.decode({f"{stack}.layers_removed": 1, f"{stack}.{units}_removed": 32})
        lost = [getattr(a, units) - getattr(b, units) for a, b in zip_kept(space.original, recipe, stack)]
        block = RUNTIME.channel_multiple if units == "ffn_channels" else 1
        most = sum(getattr(a, units) - block for a, _ in zip_kept(space.original, recipe, stack))
        assert sum(lost) == min(32, most)


def zip_kept(original: Recipe, recipe: Recipe, stack: str) -> list[tuple[object, object]]:
    pairs = zip(getattr(original, stack), getattr(recipe, stack), strict=True)
    return [(before, after) for before, after in pairs if after]


def test_a_hopeless_recipe_rules_out_what_loses_units_beside():
    space = make_space(TINY, "fine")
    whole = space.decode({"window_s": 15.0})
    fewer = space.decode({"window_s": 15.0, "encoder.0.heads": 4})
    without = space.decode({"window_s": 15.0, "encoder.0.kept": False})
    assert (whole.importance, fewer.importance, without.importance) == ("combined", "iterative", "combined")
    assert [space.rules_out(one, other) for one, other in permutations((whole, fewer, without), 2)] == [
        True, True, False, True, False, False,
    ]  # fmt: skip
    assert not space.rules_out(fewer, replace(fewer, importance="combined"))


@pytest.mark.parametrize("removed", [0, 1, 2, 3])
def test_the_least_important_layers_leave(removed):
    space = make_space(TINY, {})
    recipe = space.decode({"decoder.layers_removed": removed})
    ascending = sorted(range(4), key=lambda index: space.layer_importance[f"decoder.{index}"])
    assert {i for i, layer in enumerate(recipe.decoder) if layer is None} == set(ascending[:removed])


def test_the_last_layer_stays():
    space = make_space(TINY, {})
    for genes in (
        {f"encoder.{index}.kept": False for index in range(4)},
        {"encoder.layers_removed": 3} | {f"encoder.{index}.kept": False for index in range(4)},
    ):
        assert sum(layer is not None for layer in space.decode(genes).encoder) == 1


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("encoder.fnn_bits", "encoder.ffn_bits"),
        ("decoder.heads_remove", "decoder.heads_removed"),
        ("encoder.cross_heads_removed", "decoder.cross_heads_removed"),
        ("windows", "window_s"),
        ("encoder.0.keep", "encoder.0.kept"),
    ],
)
def test_an_unknown_gene_comes_with_a_suggestion(name, suggested):
    with pytest.raises(UnknownNameError, match=f"unknown gene '{name}'. Did you mean '{suggested}'"):
        make_space(DIMENSIONS, {}).decode({name: 1})


def test_a_layer_that_the_model_lacks_is_unknown():
    with pytest.raises(UnknownNameError, match="encoder.2.kept"):
        make_space(DIMENSIONS, {}).decode({"encoder.2.kept": False})


def test_more_units_than_there_are_cannot_leave():
    with pytest.raises(CompressionError, match="11 units cannot leave, at most 10"):
        make_space(DIMENSIONS, {}).decode({"encoder.heads_removed": 11})


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("embedding_bits = [16, 3]", "embedding_bits = 3 does not run on this device: onnxruntime executes"),
        (
            '"encoder.ffn_bits" = [16, 3]',
            r"encoder.ffn_bits = 3 .*onnxruntime executes weight bits \[4, 8, 16\], not \[3\]",
        ),
        ("activation_bits = [32, 4]", "activation_bits = 4 is not possible"),
        ("group_size = [32, 48]", r"group_size = 48 .*onnxruntime executes group sizes \[16, 32, 64, 128\]"),
        ('"encoder.0.ffn_channels" = [1536, 1000]', "FFN channels must be multiples of 32, not 1000"),
        ('"encoder.0.ffn_rank" = [0, 100]', "FFN ranks must be multiples of 32, not 100"),
        ('"encoder.ffn_rank" = [0, 320]', "ffn_rank = 320 cannot be made exactly: it comes to 0"),
        (
            '"encoder.ffn_channels_removed" = [0, 100]',
            "ffn_channels_removed = 100 cannot be made exactly: it comes to 96",
        ),
        ('"encoder.heads" = [6, 7]', "encoder.heads = 7 is not possible: encoder.0: heads <= 6"),
        ('"encoder.heads_removed" = [0, 11]', "heads_removed = 11 is not possible: .*at most 10"),
        ('"encoder.heads_removed" = [0, -1]', "heads_removed = -1 cannot be made exactly"),
        ('"encoder.heads_removed" = [0, 1.5]', "heads_removed = 1.5 cannot be made exactly"),
        ('"encoder.layers_removed" = [0, 2]', "layers_removed = 2 is not possible: .*at least one encoder layer"),
        ('"encoder.layers_removed" = [0, -1]', "layers_removed = -1 cannot be made exactly"),
        ("mean_bits = [16, 3.5]", "mean_bits = 3.5 is not possible: 3.5 bits a weight are too few: at least 4"),
        ("frequent_tokens = [60000, 0]", "frequent_tokens = 60000 is not possible: frequent_tokens < 50256"),
        ("vocabulary = [0, 100]", "vocabulary = 100 is not possible: vocabulary 0 or >= 1024"),
        ("vocabulary = [0, 51864]", "vocabulary = 51864 is not possible: vocabulary < 50256"),
        ('"encoder.fnn_bits" = [16]', "Did you mean 'encoder.ffn_bits'"),
    ],
)
def test_a_space_that_the_device_or_the_model_cannot_take_is_refused(line, complaint, tmp_path):
    space = user_space(tmp_path, f"[genes]\n{line}\n")
    with pytest.raises(InputError, match=complaint):
        check_choices(space, RUNTIME)


@pytest.mark.parametrize("stored_bits", [16, 32])
@pytest.mark.parametrize("preset", ["coarse", "fine"])
def test_presets_pass_their_own_check_at_either_precision(preset, stored_bits):
    space = make_space(TINY, preset, stored_bits=stored_bits)
    check_choices(space, RUNTIME)
    floats = (16,) if stored_bits == 16 else (32, 16)
    if preset == "coarse":
        assert space.choices["mean_bits"] == (*floats, 8, 7, 6, 5.5, 5, 4.5, 4)
    else:
        assert space.choices["embedding_bits"] == (*floats, 8, 4)


@pytest.mark.parametrize("shape", ["tiny", "large", "two heads, six layers"])
def test_presets_shorten_the_vocabularies_that_are_whispers(shape):
    space = make_space(SHAPES[shape], "coarse")
    assert ("vocabulary" in space.choices) == (shape != "two heads, six layers")
    for kept in space.choices.get("vocabulary", ())[1:]:
        recipe = space.decode({"vocabulary": kept})
        assert (recipe.vocabulary, recipe.vocabulary_language) == (kept, "en")
    assert space.decode({}).vocabulary_language == ""


def test_presets_offer_frequent_tokens_where_both_widths_are_executed():
    for preset in ("coarse", "fine"):
        space = make_space(TINY, preset)
        values = space.choices["frequent_tokens"]
        assert values == (4096, 2048, 1024, 512, 0)
        for value in values:
            assert space.decode({"frequent_tokens": value}) == ORIGINAL_TINY
            recipe = space.decode({"embedding_bits": 4, "frequent_tokens": value})
            assert (recipe.embedding_bits, recipe.frequent_tokens) == (4, value)
        narrow = (RUNTIME.model_copy(update={"embedding_bits": bits}) for bits in ((4, 16), (8, 16)))
        for runtime in narrow:
            assert "frequent_tokens" not in PRESETS[preset](TINY, runtime, 16)


def test_frequent_tokens_need_a_runtime_of_8_bits():
    runtime = RUNTIME.model_copy(update={"embedding_bits": (4, 16)})
    space = make_space(TINY, {"embedding_bits": (16, 4), "frequent_tokens": (512, 0)})
    recipe = space.decode({"embedding_bits": 4, "frequent_tokens": 512})
    assert runtime_violation(recipe, RUNTIME, original=space.original) is None
    reason = runtime_violation(recipe, runtime, original=space.original)
    assert reason == "onnxruntime executes embedding bits [4, 16], not [8]"
    assert runtime_violation(replace(recipe, frequent_tokens=0), runtime, original=space.original) is None
    with pytest.raises(InputError, match=r"frequent_tokens = 512 does not run on this device: .* bits \[4, 16\]"):
        check_choices(space, runtime)


def test_frequent_tokens_are_a_gene_where_they_have_an_effect():
    space = make_space(TINY, {"embedding_bits": (16, 8, 4), "frequent_tokens": (1024, 512, 0)})
    fewest = {"embedding_bits": 4, "frequent_tokens": 0}
    assert space.encode(space.decode(fewest)) == fewest
    assert space.encode(space.decode({**fewest, "embedding_bits": 8})) == {"embedding_bits": 8, "frequent_tokens": 1024}


def test_scale_bits_are_a_gene_where_rows_have_several_scales():
    space = make_space(TINY, {"embedding_bits": (16, 4), "group_size": (32, 0), "scale_bits": (16, 8)})
    grouped = {"embedding_bits": 4, "group_size": 32, "scale_bits": 8}
    assert space.decode(grouped).scale_bits == 8
    assert space.encode(space.decode(grouped)) == grouped
    for changes in ({"group_size": 0}, {"embedding_bits": 16}):
        recipe = space.decode(grouped | changes)
        assert recipe.scale_bits == 16
        assert space.encode(recipe)["scale_bits"] == 16


def test_every_space_holds_the_original_and_begins_with_it():
    given = {"encoder.ffn_bits": (8, 4), "encoder.0.kept": (False, True), "window_s": (20.0, 30.0), "group_size": (32,)}
    choices = with_original(given, ORIGINAL, DIMENSIONS)
    assert choices == given | {
        "encoder.ffn_bits": (16, 8, 4),
        "encoder.0.kept": (True, False),
        "window_s": (30.0, 20.0),
    }
    space = make_space(DIMENSIONS, choices)
    assert space.decode(space.default_genes) == ORIGINAL


def test_toml_is_read_as_it_stands(tmp_path):
    assert user_space(tmp_path).choices["window_s"] == (30, 12.5)
    assert user_space(tmp_path).choices["symmetric"] == (False, True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[genes\n", "cannot be read"),
        ("", r"needs a table \[genes\]"),
        ("genes = 3", r"needs a table \[genes\]"),
        ("[genes]\n", r"needs a table \[genes\]"),
        ("[genes]\nembedding_bits = 8", "embedding_bits"),
        ("[genes]\nembedding_bits = []", "embedding_bits"),
        ('[genes]\nembedding_bits = ["8"]', "embedding_bits"),
        ("[genes]\nembedding_bits = [[8]]", "embedding_bits"),
        ("[genes]\nembedding_bits = [16, 8, 8]", "embedding_bits"),
        ("[genes]\nencoder.ffn_bits = [16, 8]", "encoder"),
        ("[genes]\nrounding = [1, 2]", "rounding.* names"),
    ],
)
def test_toml_errors_name_file_and_gene(text, named, tmp_path):
    with pytest.raises(InputError, match=f"space .*space.toml.*{named}"):
        user_space(tmp_path, text)


def test_how_numbers_are_rounded_is_a_gene_where_it_has_an_effect():
    choices = {
        "embedding_bits": (16, 8),
        "activation_bits": (32, 8),
        "rounding": ("nearest", "calibrated"),
        "activation_ranges": ("dynamic", "static"),
        "range_estimator": ("minmax", "mse"),
        "smoothing": (0.0, 0.5),
    }
    space = replace(make_space(TINY, "coarse"), choices=choices)
    last = {name: values[-1] for name, values in choices.items()}
    recipe = space.decode(last)
    assert (recipe.rounding, recipe.activation_ranges, recipe.range_estimator) == ("calibrated", "static", "mse")
    assert recipe.smoothing == 0.5
    assert space.encode(recipe) == last
    for name, without in {"embedding_bits": {"rounding"}, "activation_ranges": {"range_estimator"}}.items():
        plain = {**last, name: choices[name][0]}
        assert space.encode(space.decode(plain)) == {**plain, **{gene: choices[gene][0] for gene in without}}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="coars"):
        load_choices(tmp_path / "coars")


def mean_of(space: Space, recipe: Recipe) -> float:
    """Bits a weight of the kept layers, with all of their units, and of the embedding."""
    dimensions, bits, weights = space.dimensions, 0, 0
    for layers, state in ((recipe.encoder, dimensions.n_audio_state), (recipe.decoder, dimensions.n_text_state)):
        for layer in filter(None, layers):
            attention = (8 if hasattr(layer, "cross_heads") else 4) * state**2
            bits += attention * layer.attention_bits + 8 * state**2 * layer.ffn_bits
            weights += attention + 8 * state**2
    embedding = dimensions.embedding_rows(recipe.vocabulary) * dimensions.n_text_state
    return (bits + embedding * recipe.embedding_bits) / (weights + embedding)


@settings(max_examples=60, deadline=None)
@given(
    mean_bits=st.sampled_from((4, 4.25, 5, 6.5, 8, 11, 16)),
    layers_removed=st.integers(0, 3),
    vocabulary=st.sampled_from((0, 20000)),
    heads_removed=st.integers(0, 9),
)
def test_a_mean_of_bits_is_kept_whatever_else_leaves(mean_bits, layers_removed, vocabulary, heads_removed):
    space = make_space(TINY, {"mean_bits": (16, 11, 8, 6.5, 5, 4.25, 4)})
    others = {
        "encoder.layers_removed": layers_removed,
        "decoder.layers_removed": 3 - layers_removed,
        "vocabulary": vocabulary,
        "decoder.heads_removed": heads_removed,
    }
    recipe = space.decode({"mean_bits": mean_bits, **others})
    assert mean_of(space, recipe) <= mean_bits
    alone = replace(space, choices={name: (value,) for name, value in others.items()} | dict(space.choices))
    genes = alone.encode(recipe)
    assert genes is not None
    assert genes["mean_bits"] <= mean_bits
    assert alone.decode(genes) == recipe


def test_fewer_bits_go_where_the_profile_says():
    space = make_space(TINY, {})
    recipe = space.decode({"mean_bits": 6})
    weights = {"attention": 4 * 384**2, "ffn": 8 * 384**2}
    rates = {}
    for index, layer in enumerate(recipe.encoder):
        for part, count in weights.items():
            losses = space.sensitivity[f"encoder.{index}.{part}"]
            rates[getattr(layer, f"{part}_bits"), count, losses[4] - losses[8], losses[8]] = index, part
    # an exchange: of two groups of one size, that which loses less by going from 8 bits to 4 has 4 bits first
    for count in weights.values():
        four = [gain for bits, size, gain, _ in rates if (bits, size) == (4, count)]
        eight = [gain for bits, size, gain, _ in rates if (bits, size) == (8, count)]
        assert max(four, default=0.0) <= min(eight, default=1.0)


def test_the_more_particular_gene_has_the_last_word_on_bits():
    space = make_space(TINY, {})
    recipe = space.decode(
        {"mean_bits": 4, "embedding_bits": 8, "encoder.attention_bits": 8, "encoder.1.attention_bits": 16}
    )
    assert recipe.embedding_bits == 8
    assert [layer.attention_bits for layer in recipe.encoder if layer] == [8, 16, 8, 8]
    assert {layer.ffn_bits for layer in recipe.encoder if layer} == {4}


def test_a_mean_of_bits_needs_a_profile():
    with pytest.raises(CompressionError, match="mean_bits needs a sensitivity profile"):
        replace(make_space(TINY, {}), sensitivity={}).decode({"mean_bits": 4})


def test_every_space_of_mean_bits_holds_the_original():
    choices = with_original({"mean_bits": (6, 4)}, ORIGINAL, DIMENSIONS)
    assert choices == {"mean_bits": (16, 6, 4)}
    space = make_space(DIMENSIONS, choices)
    assert space.decode(space.default_genes) == ORIGINAL
