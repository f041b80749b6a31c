"""Reading recipes: what is wrong is named with its place, in one line, whatever it is."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import Recovery
from tests.strategies import recipes, small_dimensions

DIMENSIONS = small_dimensions(vocabulary=51864)
RECIPE = replace(
    Recipe.original(DIMENSIONS),
    rounding="calibrated",
    embedding_bits=8,
    group_size=32,
    activation_bits=8,
    activation_ranges="static",
    range_estimator="mse",
    smoothing=0.5,
    vocabulary=2048,
    vocabulary_language="de+en",
    recovery=Recovery(method="qat", weights_sha256="ab" * 32, nearest=("encoder",)),
)
LAYER = {"heads": 2, "ffn_channels": 512, "attention_bits": 8, "ffn_bits": 8}
NONSENSE = (
    None, True, False, 0, -1, 3, 1.5, 10**400, 1e300, -0.0, float("nan"), float("inf"), "", "text", "two\nlines",
    "\ud800", "x" * 10_000, [], [None], [[1]], list(range(10_000)), {}, {"version": 1}, {"a": {"b": []}},
)  # fmt: skip


def read(**changes: object) -> Recipe:
    return Recipe.from_json(json.dumps(json.loads(Recipe.original(DIMENSIONS).to_json()) | changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"encoder": [None, LAYER | {"heads": 0}]}, "encoder.1: heads >= 1 must hold, but got 0"),
        ({"encoder": [LAYER | {"heads": "2"}]}, "encoder.0: heads whole must hold, but got '2'"),
        ({"encoder": [{}, None]}, "encoder.0: heads is missing"),
        ({"encoder": [0, LAYER]}, "encoder.0: must be a JSON object, but got 0"),
        ({"encoder": 3}, "encoder must be a list of layers, but got 3"),
        ({"encoder": {"0": LAYER}}, "encoder must be a list of layers, but got {'0': "),
        ({"encoder": []}, "at least one encoder layer kept must hold, but got ()"),
        ({"decoder": [LAYER]}, "decoder.0: cross_heads is missing"),
        (
            {"decoder": [LAYER | {"cross_head": 2}]},
            "decoder.0: unknown field 'cross_head'. Did you mean 'cross_heads'? Known: attention_bits, cross_heads, ",
        ),
        ({"group_sise": 32}, "unknown field 'group_sise'. Did you mean 'group_size'? Known: activation_bits, "),
        ({"window_s": "long"}, "window_s a number must hold, but got 'long'"),
        ({"group_size": [32]}, "group_size whole must hold, but got (32,)"),
        ({"importance": {}}, "importance in ('combined', 'iterative') must hold, but got {}"),
        ({"importance": "taylor"}, "importance in ('combined', 'iterative') must hold, but got 'taylor'"),
        ({"rounding": "clipped"}, "rounding in ('nearest', 'calibrated') must hold, but got 'clipped'"),
        ({"version": 7}, "format version 7 is not 1, the one that this program reads"),
        ({"version": True}, "format version True is not 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(complaint)}"):
        read(**changes)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no valid JSON (Expecting value: line 1 column 1 (char 0))"),
        ("not json", "no valid JSON ("),
        ('{"version": 1' + "0" * 5000 + "}", "no valid JSON ("),
        ("null", "must be a JSON object, but got None"),
        ("[]", "must be a JSON object, but got []"),
        ("{}", "version is missing"),
        ('{"version":1}', "encoder is missing"),
        ("[" * 100_000, "no valid JSON (nested too deeply)"),
        ('{"version":' * 100_000, "no valid JSON (nested too deeply)"),
    ],
)
def test_what_is_no_object_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(complaint)}"):
        Recipe.from_json(text)


@given(recipes(DIMENSIONS))
def test_a_field_without_default_is_missed_by_name(recipe: Recipe) -> None:
    values = json.loads(recipe.to_json())
    for name in ("encoder", "decoder", "embedding_bits", "convolution_bits"):
        with pytest.raises(InputError, match=f"^{name} is missing$"):
            Recipe.from_json(json.dumps({key: value for key, value in values.items() if key != name}))


def mutated(values: Any, change: object) -> Iterator[Any]:
    """Every copy of a tree of JSON with one node replaced, with one left out, or with one more."""
    yield change
    nodes = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in nodes:
        for other in mutated(value, change):
            copy = values.copy()
            copy[key] = other
            yield copy
    if isinstance(values, dict):
        yield from ({other: values[other] for other in values if other != key} for key in values)
        yield values | {"added": change}


def outcome(values: object) -> Recipe | str:
    """The canonical recipe of a JSON value, or why it is none."""
    try:
        recipe = Recipe.from_json(json.dumps(values))
        recipe.check(DIMENSIONS)
    except InputError as error:
        return str(error)
    return recipe.canonical(DIMENSIONS)


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda value: repr(value)[:20])
def test_nothing_but_a_recipe_or_one_line_comes_out(nonsense: object) -> None:
    for values in mutated(json.loads(RECIPE.to_json()), nonsense):
        made = outcome(values)
        if isinstance(made, Recipe):
            assert Recipe.from_json(made.to_json()) == made
            assert made.canonical(DIMENSIONS) == made
        else:
            assert "\n" not in made
            assert len(made) < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(json.loads(RECIPE.to_json()))), JSON)
def test_any_json_in_a_field_is_a_recipe_or_one_line(field: str, value: object) -> None:
    assert "\n" not in str(outcome(json.loads(RECIPE.to_json()) | {field: value}))
