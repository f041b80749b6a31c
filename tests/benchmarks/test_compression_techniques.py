"""The table of techniques on tiny's shape, and the file that its rows are kept in."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from compression_techniques import CALIBRATION, Rows, markdown
from pruning import kept_counts
from techniques import techniques, with_counts

from compression.calibration.calibration import Calibration
from compression.recipe.dimensions import published_dimensions
from compression.recipe.recipe import DecoderLayer, EncoderLayer, Recipe

DIMENSIONS = published_dimensions("tiny.en")
ORIGINAL = replace(Recipe.original(DIMENSIONS), window_s=15.0)
TECHNIQUES = techniques(DIMENSIONS, "en")
HEADS, CHANNELS = 72, 2 * 4 * 1536


def layers_of(recipe: Recipe) -> list[EncoderLayer | DecoderLayer]:
    return [layer for layer in (*recipe.encoder, *recipe.decoder) if layer]


def heads_of(recipe: Recipe) -> int:
    return sum(layer.heads for layer in layers_of(recipe)) + sum(layer.cross_heads for layer in recipe.decoder if layer)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_fits_and_changes_one_thing(name: str, calibration: Calibration) -> None:
    recipe = TECHNIQUES[name](ORIGINAL, calibration)
    recipe.check(DIMENSIONS)
    made = recipe.canonical(DIMENSIONS)
    assert made != ORIGINAL
    changes = {
        "weights": made.is_quantised,
        "activations": made.activation_bits < 32,
        "heads": len(layers_of(made)) == 8 and heads_of(made) < HEADS,
        "channels": len(layers_of(made)) == 8 and sum(layer.ffn_channels for layer in layers_of(made)) < CHANNELS,
        "layers": len(layers_of(made)) < 8,
        "rank": any(layer.ffn_rank for layer in layers_of(made)),
        "vocabulary": made.vocabulary > 0,
        "window": made.window_s != 15,
    }
    assert [kind for kind, is_changed in changes.items() if is_changed] == [
        next(kind for kind in changes if kind in name.split())
    ]


def test_no_two_techniques_are_the_same(calibration: Calibration) -> None:
    ids = Counter(make(ORIGINAL, calibration).canonical(DIMENSIONS).id for make in TECHNIQUES.values())
    assert max(ids.values()) == 1


def test_the_shares_are_those_of_the_names(calibration: Calibration) -> None:
    for share, left in (("17%", 60), ("33%", 48), ("50%", 36)):
        assert heads_of(TECHNIQUES[f"heads -{share}"](ORIGINAL, calibration)) == left
    for share, blocks in (("15%", 28), ("30%", 57), ("50%", 96)):  # of the 192 blocks of 32 in each stack
        recipe = TECHNIQUES[f"channels -{share}"](ORIGINAL, calibration)
        for stack in (recipe.encoder, recipe.decoder):
            assert sum(layer.ffn_channels for layer in stack if layer) == (192 - blocks) * 32


def test_the_layers_that_matter_least_leave(calibration: Calibration) -> None:
    importance = calibration.layer_importance
    ascending = sorted(range(4), key=lambda index: importance[f"encoder.{index}"])
    recipe = TECHNIQUES["encoder layers -2"](ORIGINAL, calibration)
    assert {index for index, layer in enumerate(recipe.encoder) if layer is None} == set(ascending[:2])
    assert recipe.decoder == ORIGINAL.decoder


def test_an_even_spread_takes_as_much_from_each_layer(calibration: Calibration) -> None:
    kept = kept_counts(calibration, "combined", "ffn_channels", 1 / 6, spread="even")
    assert set(kept.values()) == {1536 - 8 * 32}
    recipe = with_counts(ORIGINAL, kept)
    assert {layer.ffn_channels for layer in layers_of(recipe)} == {1280}
    assert replace(recipe.encoder[0], ffn_channels=1536) == ORIGINAL.encoder[0]
    assert sum(kept_counts(calibration, "combined", "heads", 1 / 6, spread="global").values()) == HEADS - 12


def row(technique: str, recipe_id: str, wer: float) -> dict[str, object]:
    return {"technique": technique, "recipe_id": recipe_id, "wer": wer}


def test_rows_are_kept_and_found_again(tmp_path: Path) -> None:
    file, identity = tmp_path / "rows.jsonl", {"model": "tiny.en", "speech": "read"}
    rows = Rows(file, identity)
    rows.add(row("heads", "a", 0.1))
    Rows(file, identity | {"speech": "other"}).add(row("heads", "a", 0.9))
    again = Rows(file, identity)
    assert again.has("heads", "a")
    assert not again.has("heads", "b")
    assert not again.has("channels", "a")
    assert again.all == rows.all == [identity | row("heads", "a", 0.1)]
    again.add(row("heads", "b", 0.2))
    assert [row["wer"] for row in Rows(file, identity).all] == [0.2]
    assert [json.loads(line)["wer"] for line in file.read_text().splitlines()] == [0.1, 0.9, 0.2]


def test_the_table_says_percent_and_what_comes_on_top() -> None:
    measured = {
        "technique": "heads -17%",
        "size_bytes": 74_370_000,
        "wer": 0.077,
        "wer_low": 0.0606,
        "wer_high": 0.0946,
        "difference": 0.0086,
        "difference_low": -0.0196,
        "difference_high": 0.0293,
        "ran_on": 2,
        "compress_cpu_s": 1.25,
        "calibrated": True,
        "training_s": None,
    }
    *_, line, note = markdown([measured, {"technique": CALIBRATION, "compress_cpu_s": 61.7}])
    assert line == "| heads -17% | 74.4 | 7.70 (6.06 to 9.46) | +0.86 (-1.96 to +2.93) | 2 | 1.2* |  |"
    assert note == "\n*: and 62 CPU s of calibration, once for all"
