"""Recipes that users give to the command line, and what they ask for beside them."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import json
from dataclasses import replace
from pathlib import Path

import pytest

from compression.recipe.recipe import Recipe
from tests.search.commands import (  # noqa: F401
    CLIPS,
    DIMENSIONS,
    Whisperfit,
    files,
    refused,
    sample_lines,
    whisperfit,
    write_speech,
)

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

ORIGINAL = Recipe.original(DIMENSIONS)
FOUR_BITS = ORIGINAL.with_each_layer(attention_bits=4, ffn_bits=4)


def baseline(files: Path, *arguments: object) -> tuple[object, ...]:
    return ("baseline", "--model", files / "model.pt", "--data", files / "speech.jsonl", "--threads", 1, *arguments)


def export(files: Path, recipe: Path, out: Path, *arguments: object) -> tuple[object, ...]:
    return ("export", "--recipe", recipe, "--model", files / "model.pt", "--out", out, *arguments)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read ("),
        ("folder", "cannot be read ("),
        (b"\xff\xfe{}", "cannot be read ('utf-8' codec"),
        (b"[" * 100_000, "no valid JSON (nested too deeply)"),
        ({"colour": "red"}, "unknown field 'colour'. Known: "),
        ({"recovery": {}}, "recovery: method is missing"),
        ({"encoder": []}, "at least one encoder layer kept must hold"),
        ({"encoder": [json.loads(ORIGINAL.to_json())["encoder"][0] | {"heads": 2}]}, "encoder.0: heads <= 1 must hold"),
        ({"embedding_bits": 4, "group_size": 100_000}, "group_size <= 256, the most inputs of a layer, must hold"),
        ({"vocabulary": 2048, "vocabulary_language": "xx"}, "vocabulary_language 'xx': there is no list of its words"),
    ],
    ids=str,
)
def test_a_bad_recipe_is_one_line_that_names_the_file(
    content: object, complaint: str, files: Path, whisperfit: Whisperfit, tmp_path: Path
) -> None:
    file, out = tmp_path / "recipe.json", tmp_path / "out"
    if content == "folder":
        file.mkdir()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, dict):
        file.write_text(json.dumps(json.loads(ORIGINAL.to_json()) | content), encoding="utf-8")
    for command in (baseline(files, "--recipe", file), export(files, file, out)):
        refused(whisperfit(*command), f"whisperfit: recipe {file}: {complaint}")
    assert not out.exists()


def test_what_has_no_effect_in_a_recipe_changes_neither_its_id_nor_its_model(
    files: Path, whisperfit: Whisperfit, tmp_path: Path
) -> None:
    """Each of these fields acts only together with another, so that nothing asks for calibration either."""
    idle = replace(
        FOUR_BITS, activation_ranges="static", range_estimator="mse", smoothing=0.5, refit=True, importance="iterative",
        vocabulary_language="xx",
    )  # fmt: skip
    artifacts = []
    for name, recipe in (("idle", idle), ("canonical", FOUR_BITS)):
        file, out = tmp_path / f"{name}.json", tmp_path / name
        file.write_text(recipe.to_json(), encoding="utf-8")
        exported = whisperfit(*export(files, file, out, "--json"))
        assert exported.code == 0, exported.err
        scored = whisperfit(*baseline(files, "--recipe", file, "--json"))
        assert scored.code == 0, scored.err
        ids = {json.loads(shown.out)["recipe_id"] for shown in (exported, scored)}
        assert ids == {FOUR_BITS.id}
        artifacts.append([(out / part).read_bytes() for part in ("recipe.json", "encoder.onnx", "decoder.onnx")])
    assert artifacts[0] == artifacts[1]


@pytest.mark.parametrize(
    "given", [("--model", "m.pt"), ("--calibration", "s.jsonl"), ("--calibration-utterances", 32), ("--language", "en")]
)
def test_a_run_is_exported_with_its_own_speech_and_model(
    given: tuple[object, ...], whisperfit: Whisperfit, tmp_path: Path
) -> None:
    ended = whisperfit("export", tmp_path / "run", "--out", tmp_path / "out", *given)
    refused(ended, f"from run {tmp_path / 'run'}: leave out {given[0]}, or give --recipe and --model instead")


def test_an_english_model_is_asked_for_another_language(files: Path, whisperfit: Whisperfit, tmp_path: Path) -> None:
    ended = whisperfit(*baseline(files, "--language", "zh"))
    refused(ended, "--language zh: the model knows only 'en'; use a multilingual one, or leave the option out")
    chinese = write_speech(tmp_path / "chinese.jsonl", {"language": "zh"})
    options = ("baseline", "--model", files / "model.pt", "--data", chinese, "--threads", 1)
    reason = f"line {CLIPS}: its language is 'zh', but the model knows only 'en': use another model, or mend the line"
    refused(whisperfit(*options), reason)
    skipped = whisperfit(*options, "--skip-broken", "--json")
    assert skipped.code == 0
    assert json.loads(skipped.out)["broken_lines"] == 1


def test_a_line_without_language_is_english_for_an_english_model(
    files: Path, whisperfit: Whisperfit, tmp_path: Path
) -> None:
    lines = [{key: value for key, value in line.items() if key != "language"} for line in sample_lines()]
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    stated, unstated = (
        whisperfit("baseline", "--model", files / "model.pt", "--data", data, "--threads", 1, "--json")
        for data in (files / "speech.jsonl", tmp_path / "plain.jsonl")
    )
    assert json.loads(unstated.out) == json.loads(stated.out) | {"speech": "plain"}
