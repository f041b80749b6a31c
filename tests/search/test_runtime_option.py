"""`--runtime`, from the search to its report, on a network of random weights."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import json
from pathlib import Path

import pytest

from evaluators.runtimes import process
from tests.search.commands import files, refused, rows, run_command, search_arguments, whisperfit  # noqa: F401

# openai-whisper leaves its normaliser's files open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(scope="module")
def run(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    arguments = search_arguments(files, out, trials=3, runtime="sherpa-onnx", wer_budget="+900%")
    assert run_command(arguments) == 0
    return out


def test_the_front_is_exported_for_the_runtime_and_verified_by_it(run):
    artifacts = rows(run / "artifacts.csv")
    assert artifacts
    for row in artifacts:
        folder = run / "models" / row["recipe_id"]
        assert json.loads((folder / "manifest.json").read_text("utf-8"))["target"] == "sherpa-onnx"
        assert (folder / "tokens.txt").exists()
        assert (row["note"], row["host_latency_ms"], row["host_token_ms"]) == ("", "", "")
        assert float(row["host_utterance_ms"]) > 0
        assert float(row["host_load_ms"]) > 0
    wers = {row["recipe_id"]: row["wer"] for row in artifacts}
    assert all(wers[row["recipe_id"]] == row["wer"] for row in rows(run / "pareto.csv"))
    assert (run / "report.html").exists()


def test_an_artifact_of_the_run_is_verified_by_its_runtime(run, files, whisperfit):
    artifact = next((run / "models").iterdir())
    said = whisperfit("verify", artifact, "--data", files / "speech.jsonl", "--runtime", "sherpa-onnx", "--json")
    measured = json.loads(said.out)["measured"]
    assert measured["encoder_ms"] is None
    assert measured["utterance_ms"] > 0
    refused(
        whisperfit("verify", artifact, "--runtime", "onnxruntime"),
        "--runtime onnxruntime",
        "is for sherpa-onnx; make one: whisperfit export --target onnxruntime",
    )


@pytest.mark.parametrize(
    ("runtime", "complaint"),
    [
        ("ggml", "--runtime ggml: the latencies of imx8mplus are those of onnxruntime"),
        ("sherpa", "unknown runtime 'sherpa'. Did you mean 'sherpa-onnx'"),
    ],
)
def test_other_runtimes_are_refused_before_anything_is_made(runtime, complaint, files, tmp_path, whisperfit):
    refused(whisperfit(*search_arguments(files, tmp_path / "run", runtime=runtime)), complaint)
    assert not (tmp_path / "run").exists()


def test_a_runtime_that_is_not_installed_is_refused_at_once(files, tmp_path, whisperfit, monkeypatch):
    monkeypatch.setattr(process, "find_spec", lambda _: None)
    refused(whisperfit(*search_arguments(files, tmp_path / "run", runtime="sherpa-onnx")), "pip install sherpa-onnx")
