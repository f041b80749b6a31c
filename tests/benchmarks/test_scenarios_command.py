"""benchmarks/wer/scenarios.py from end to end, on a Whisper with random weights and four clips of the sample speech."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import scenarios
import torch

from compression.export.manifest import artifact_bytes
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import Recovery
from compression.techniques.trained_weights import RECIPE_FILE, save_recovered, weights_digest
from search.cli import main
from tests.search.commands import Ended, files_of_a_whisper
from tests.strategies import small_dimensions

# openai-whisper leaves its normaliser's files open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

DIMENSIONS = small_dimensions(layers=3, state=64, heads=2, vocabulary=51864)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Each clip is decoded once: where a network with random weights listened is chance."""
    with (
        files_of_a_whisper(tmp_path_factory.mktemp("files"), DIMENSIONS) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("evaluators.accuracy.hearing.unheard", lambda *_: None)
        yield folder


def car_of(done: Ended) -> dict[str, Any]:
    (result,) = json.loads(done.out)["scenarios"]
    return result


def ended(call: Callable[[], int], *arguments: object) -> Ended:
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["command", *map(str, arguments)])
        try:
            code = call()
        except SystemExit as exited:
            code = int(exited.code or 0)
    return Ended(code=code, out=out.getvalue(), err=err.getvalue())


def car(files: Path, *arguments: object) -> Ended:
    """The car's scenario."""
    speech = files / "speech.jsonl"
    options = ("--model", files / "model.pt", "--data", speech, "--calibration", speech, "--threads", 1)
    return ended(scenarios.main, *options, "--only", "car", "--json", "--out", files / "out", *arguments)


@pytest.fixture(scope="module")
def first(files: Path) -> dict[str, Any]:
    return car_of(car(files, "--confirm", files / "confirm.jsonl", "--minutes", 0.1))


@pytest.fixture(scope="module")
def recipe(files: Path, first: dict[str, Any]) -> Recipe:
    return Recipe.from_json((files / "out/car" / RECIPE_FILE).read_text())


def test_a_recipe_is_measured_as_the_commands_measure_it(files: Path, first: dict[str, Any], recipe: Recipe) -> None:
    assert sum(layer is not None for layer in recipe.encoder) == 1
    measured = first["by_hand"]["measured"]
    assert measured["recipe_id"] == recipe.id
    assert measured["artifact"]["size_mb"] == artifact_bytes(files / "out/models" / recipe.id) / 1e6
    assert measured["artifact"]["identical_transcripts"] == 1
    options = ("--model", files / "model.pt", "--data", files / "speech.jsonl", "--json")
    for data, wer in (("speech.jsonl", measured["wer"]), ("confirm.jsonl", measured["wer_confirm"])):
        by_hand = ("--recipe", files / "out/car" / RECIPE_FILE, "--calibration", files / "speech.jsonl")
        scored = ended(main, "baseline", *options, "--data", files / data, *by_hand)
        assert json.loads(scored.out)["wer"] == wer["wer"]
    original = ended(main, "baseline", *options)
    assert json.loads(original.out)["wer"] == first["original"]["measured"]["wer"]["wer"]


def test_what_dominates_it_is_on_the_runs_front(files: Path, first: dict[str, Any]) -> None:
    with (files / "out/car/search/pareto.csv").open(newline="") as handle:
        front = list(csv.DictReader(handle))
    hand = first["by_hand"]
    limits = {name: hand["costs"][name] for name in ("size_mb", "flops_g", "latency_ms")}
    limits["wer"] = hand["measured"]["wer"]["wer"]
    is_lower = [all(float(row[name]) <= limit * (1 + 1e-9) for name, limit in limits.items()) for row in front]
    expected = [row for row, lower in zip(front, is_lower, strict=True) if lower]
    assert first["is_dominated"] == bool(expected)
    expected += [row for row in front if row["recommended"] == "True"]
    assert first["found_trial"] == int(expected[0]["trial"])
    assert first["found"]["measured"]["recipe_id"] == expected[0]["recipe_id"]


def test_trained_weights_take_the_recipes_place_beside_a_run_that_exists(
    files: Path, first: dict[str, Any], recipe: Recipe, tmp_path: Path
) -> None:
    weights = {"encoder.ln_post.bias": torch.ones(DIMENSIONS.n_audio_state)}
    better = replace(recipe, recovery=Recovery(method="distill", weights_sha256=weights_digest(weights)))
    save_recovered(tmp_path, better, weights)
    trained = car_of(car(files, "--search", files / "out/car/search", "--recovered", tmp_path))
    assert trained["is_trained"]
    assert trained["by_hand"]["measured"]["recipe_id"] == better.id
    assert trained["by_hand"]["costs"] == pytest.approx(first["by_hand"]["costs"])
    assert trained["original"]["measured"]["wer"] == first["original"]["measured"]["wer"]
    assert trained["original"]["costs"] == pytest.approx(first["original"]["costs"])


def test_weights_of_another_recipe_are_refused(files: Path, recipe: Recipe, tmp_path: Path) -> None:
    weights = {"encoder.ln_post.bias": torch.ones(DIMENSIONS.n_audio_state)}
    recovery = Recovery(method="distill", weights_sha256=weights_digest(weights))
    save_recovered(tmp_path, replace(recipe, window_s=15, recovery=recovery), weights)
    refused = car(files, "--search", files / "out/car/search", "--recovered", tmp_path)
    assert refused.code == 2
    assert "was not made of any of these recipes" in refused.err


@pytest.mark.usefixtures("first")
def test_a_run_on_other_speech_is_refused(files: Path) -> None:
    lines = (files / "speech.jsonl").read_text().splitlines(keepends=True)
    (files / "fewer.jsonl").write_text("".join(lines[1:]))
    refused = car(files, "--search", files / "out/car/search", "--data", files / "fewer.jsonl")
    assert refused.code == 2
    assert "its speech_sha256 is not that of --model and --data" in refused.err
