"""`--min-language-accuracy`, from the first trial to the report, on a multilingual network of random weights."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import copy
import json
from pathlib import Path

import pytest
import torch

from compression.techniques.compressed import Compressed
from compression.whisper.load import load_model
from compression.whisper.tokenizer import tokenizer_of
from evaluators.accuracy.evaluator import Evaluator
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import load_speech_set
from search.heard import accuracy_of, heard_of
from search.limits.verdict import LANGUAGE, Budgets, Judge
from tests.search.commands import (  # noqa: F401
    CLIPS,
    files,
    finished_run,
    multilingual_files,
    refused,
    rows,
    run_command,
    search_arguments,
    whisperfit,
)

# openai-whisper leaves its normaliser's files open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
LIMIT = {"min_language_accuracy": 1, "wer_budget": "+900%"}


@pytest.fixture
def misjudged(multilingual_files: Path, tmp_path: Path) -> Path:
    """A manifest of which the original detects all languages but one."""
    lines = [json.loads(line) for line in (multilingual_files / "speech.jsonl").read_text("utf-8").splitlines()]
    lines[-1]["language"] = next(line["language"] for line in lines if line["language"] != lines[-1]["language"])
    (tmp_path / "misjudged.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path / "misjudged.jsonl"


@pytest.fixture(scope="module")
def run(multilingual_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with the limit and a confirm set; some of its recipes break the limit."""
    out, confirm = tmp_path_factory.mktemp("runs") / "run", multilingual_files / "confirm.jsonl"
    assert run_command(search_arguments(multilingual_files, out, confirm=confirm, trials=8, **LIMIT)) == 0
    return out


def test_a_recipe_below_the_limit_is_neither_on_the_front_nor_the_pick(run):
    trials = rows(run / "trials.csv")
    shares = [float(row["language_accuracy"]) for row in trials if row["state"] == "complete"]
    assert shares[0] == max(shares) == 1
    assert min(shares) < 1
    for row in trials:
        is_below = row["state"] == "complete" and float(row["language_accuracy"]) < 1
        assert not (is_below and row["feasible"] == "True")
        assert is_below == ("detects too few languages" in row["note"])
    front = rows(run / "pareto.csv")
    assert {row["language_accuracy"] for row in front} == {row["language_accuracy_confirm"] for row in front} == {"1"}
    assert [row["language_accuracy"] for row in rows(run / "artifacts.csv")] == ["1"] * len(rows(run / "artifacts.csv"))
    assert "min_language_accuracy = 1.0" in (run / "config.toml").read_text(encoding="utf-8")
    for folder in (run / "models").iterdir():
        assert json.loads((folder / "verification.json").read_text(encoding="utf-8"))["language_accuracy"] == 1


def test_report_and_json_tell_languages_by_group(run, whisperfit):
    values = json.loads(whisperfit("report", run, "--json").out)
    assert values["min_language_accuracy"] == 1
    for role in ("baseline", "recommended"):
        assert (values[role]["language_accuracy"], values[role]["language_accuracy_confirm"]) == (1, 1)
        groups = [group for group in values[role]["groups"] if group["kind"] == "language"]
        assert len(groups) > 1
        assert {group["language_accuracy"] for group in groups} == {1}
    page = " ".join((run / "report.html").read_text(encoding="utf-8").split())
    assert "Language detected, confirmed" in page
    assert '<th class="n">Language detected %, original</th>' in page


def test_another_limit_is_another_question_to_the_same_run(run, whisperfit):
    ended = whisperfit("reprice", run, "--min-language-accuracy", 0.5, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["asked_before"] == {"min_language_accuracy": "1.0"}
    asked = rows(run / "questions" / "min_language_accuracy0.5" / "trials.csv")
    for before, after in zip(rows(run / "trials.csv"), asked, strict=True):
        assert after["feasible"] == str(after["state"] == "complete" and float(after["language_accuracy"]) >= 0.5)
        assert after["language_accuracy"] == before["language_accuracy"]
    assert sum(row["feasible"] == "True" for row in asked) > sum(
        row["feasible"] == "True" for row in rows(run / "trials.csv")
    )


def test_the_baseline_tells_its_share(multilingual_files, misjudged, files, whisperfit):
    model = ("baseline", "--model", multilingual_files / "model.pt", "--threads", 1)
    assert json.loads(whisperfit(*model, "--data", misjudged, "--json").out)["language_accuracy"] == 1 - 1 / CLIPS
    assert "language detected in 75.0 % of the utterances" in whisperfit(*model, "--data", misjudged).out.splitlines()
    english = ("baseline", "--model", files / "model.pt", "--data", files / "speech.jsonl", "--threads", 1)
    assert json.loads(whisperfit(*english, "--json").out)["language_accuracy"] is None
    assert "language detected" not in whisperfit(*english).out


def test_an_artifact_tells_its_share(run, multilingual_files, misjudged, whisperfit):
    artifact = next((run / "models").iterdir())
    ended = whisperfit("verify", artifact, "--data", misjudged, "--repeats", 1, "--threads", 1)
    assert "language detected in 75.0 % of the utterances" in ended.out.splitlines(), ended.err


@pytest.mark.parametrize(
    "how", [{}, {"workers": 1, "engine": "evolution", "divergence_clips": 4}], ids=["here", "by a worker"]
)
def test_a_limit_that_the_original_breaks_ends_the_search_at_once(
    how, multilingual_files, misjudged, tmp_path, whisperfit
):
    out = tmp_path / "run"
    limits = LIMIT | {"min_language_accuracy": 0.76}
    ended = whisperfit(*search_arguments(multilingual_files, out, data=misjudged, trials=9, **limits, **how))
    assert ended.code == 2
    assert ended.err.splitlines()[-1] == (
        "whisperfit: --min-language-accuracy 0.76: the original itself detects the language of 75.0 % of the "
        "utterances: ask for less"
    )
    assert [(row["state"], row["language_accuracy"]) for row in rows(out / "trials.csv")] == [("complete", "0.75")]


def test_an_english_model_has_no_languages_to_tell(files, finished_run, tmp_path, whisperfit):
    refused(
        whisperfit(*search_arguments(files, tmp_path / "run", **LIMIT)),
        "--min-language-accuracy: ",
        "knows English only and detects no language",
    )
    refused(whisperfit("reprice", finished_run, "--min-language-accuracy", 0.9), "measured no detected languages")
    assert {row["language_accuracy"] for row in rows(finished_run / "trials.csv")} == {""}
    assert not (finished_run / "questions").exists()


def test_a_network_whose_detection_is_broken_is_over_the_limit(multilingual_files):
    """Each language's token has the row of the one before it; everything else stays as it was."""
    model = load_model(str(multilingual_files / "model.pt"))
    speech, features = load_speech_set(multilingual_files / "speech.jsonl"), CachedFeatures(n_mels=80)
    evaluator = Evaluator(speech, dimensions=model.dimensions, features=features, block_size=3)
    network = copy.deepcopy(model.network)
    rows_of_languages = list(tokenizer_of(network).all_language_tokens)
    with torch.no_grad():
        weight = network.decoder.token_embedding.weight
        weight[rows_of_languages] = weight[rows_of_languages].roll(1, dims=0)
    original, broken = (
        accuracy_of(evaluator, [heard_of(evaluator.evaluate(Compressed.original(one), window_s=30.0).utterances)])
        for one in (model.network, network)
    )
    assert (original.language_accuracy, broken.language_accuracy) == (1.0, 0.0)
    assert {group.language_accuracy for group in broken.groups} == {0.0}
    judge = Judge.of(original, Budgets(wer="+900%", language_accuracy=0.9))
    assert judge.violations(original, "complete")[LANGUAGE] < 0
    assert judge.violations(broken, "complete")[LANGUAGE] == 1.0


def test_a_group_tells_its_own_share(multilingual_files, misjudged):
    """The last clip states another language than it is detected in: all of that group's wrong answers are this one."""
    model = load_model(str(multilingual_files / "model.pt"))
    speech, features = load_speech_set(misjudged), CachedFeatures(n_mels=80)
    evaluator = Evaluator(speech, dimensions=model.dimensions, features=features)
    scored = evaluator.evaluate(Compressed.original(model.network), window_s=30.0).utterances
    stated = [utterance.language for utterance in speech.utterances]
    groups = accuracy_of(evaluator, [heard_of(scored[2:]), heard_of(scored[:2])]).groups
    assert {group.key.name: group.language_accuracy for group in groups if group.key.kind == "language"} == {
        code: 1 - (code == stated[-1]) / stated.count(code) for code in set(stated)
    }
