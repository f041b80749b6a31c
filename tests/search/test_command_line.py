"""The command line from end to end, on a Whisper with random weights and four clips of the sample speech."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from compression.recipe.recipe import Recipe
from devices.profile import load_profile
from search.records.folder import RunFolder
from search.space.space import runtime_violation
from tests.search.commands import (  # noqa: F401
    CLIPS,
    COMMAND,
    DIMENSIONS,
    KINDS,
    files,
    finished_run,
    interruptible,
    refused,
    rows,
    sample_lines,
    search_arguments,
    settled,
    start,
    wait_for_rows,
    whisperfit,
)
from tests.search.report.test_csv_files import CONTRACT

# openai-whisper leaves its normaliser's files open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def test_a_run_leaves_everything_that_the_contract_names(finished_run):
    names = {entry.name for entry in finished_run.iterdir()}
    assert names == {
        "config.toml",
        "environment.json",
        "run.lock",
        "study.db",
        "trials.csv",
        "pareto.csv",
        "report.html",
        "artifacts.csv",
        "models",
    }
    for name in ("trials.csv", "pareto.csv"):
        assert (finished_run / name).read_text(encoding="utf-8").splitlines()[0] == CONTRACT


def test_trials_and_front_are_consistent(finished_run):
    trials, pareto = rows(finished_run / "trials.csv"), rows(finished_run / "pareto.csv")
    assert sum(row["state"] != "rejected" for row in trials) == 4
    assert len({row["recipe_id"] for row in trials}) == len(trials)
    original = Recipe.from_json(trials[0]["recipe"])
    assert original == Recipe.original(DIMENSIONS)
    runtime = load_profile("imx8mplus").runtime
    for row in trials:
        recipe = Recipe.from_json(row["recipe"])
        assert row["recipe_id"] == recipe.id
        assert runtime_violation(recipe, runtime, original=original) is None
    by_id = {row["recipe_id"]: row for row in trials}
    assert [row | {"size_mb": ""} for row in pareto] == [by_id[row["recipe_id"]] | {"size_mb": ""} for row in pareto]
    objectives, wers = ([float(row[name]) for row in pareto] for name in ("objective", "wer"))
    assert objectives == sorted(objectives)
    assert wers == sorted(wers, reverse=True)
    assert all(row["wer_confirm"] == row["wer"] for row in pareto), "the confirm set sounds like the search set"
    assert [row["recommended"] for row in pareto] == ["True"] + ["False"] * (len(pareto) - 1)


def test_the_front_is_exported_and_measured(finished_run):
    for row in rows(finished_run / "pareto.csv"):
        artifact = finished_run / "models" / row["recipe_id"]
        listed = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))["files"]
        size = (artifact / "manifest.json").stat().st_size + sum((artifact / name).stat().st_size for name in listed)
        assert float(row["size_mb"]) == pytest.approx(size / 1e6, rel=1e-9)
        verification = json.loads((artifact / "verification.json").read_text(encoding="utf-8"))
        assert float(row["wer"]) == pytest.approx(verification["accuracy"]["wer"], rel=1e-9)
        assert float(row["flops_fvcore_g"]) == pytest.approx(float(row["flops_g"]), rel=1e-9)
    measured = rows(finished_run / "artifacts.csv")
    assert {row["recipe_id"] for row in rows(finished_run / "pareto.csv")} <= {row["recipe_id"] for row in measured}
    for row in measured:
        assert float(row["identical_transcripts"]) == 1
        assert all(float(value) > 0 for name, value in row.items() if name.startswith("host_"))


def test_an_exported_trial_is_the_model_of_the_run(finished_run, files, whisperfit, tmp_path):
    row = rows(finished_run / "pareto.csv")[0]
    exported = whisperfit("export", finished_run, "--out", tmp_path / "artifact", "--json")
    assert exported.code == 0
    assert json.loads(exported.out)["recipe_id"] == row["recipe_id"]
    ended = whisperfit("verify", tmp_path / "artifact", "--data", files / "speech.jsonl", "--threads", 1, "--json")
    assert ended.code == 0
    shown = json.loads(ended.out)
    assert shown["accuracy"]["wer"] == pytest.approx(float(row["wer"]), rel=1e-9)
    assert shown["parity"] == {"utterances": CLIPS, "differences": []}
    assert shown["size_bytes"] == json.loads(exported.out)["size_bytes"]
    audio = sample_lines()[0]["audio"]
    said = whisperfit("transcribe", tmp_path / "artifact", audio, "--json")
    assert said.code == 0
    assert json.loads(said.out)["recipe_id"] == row["recipe_id"]


def test_an_artifact_is_verified_from_any_folder(finished_run, files, whisperfit, tmp_path, monkeypatch):
    recipe = Recipe.from_json(rows(finished_run / "trials.csv")[0]["recipe"])
    pruned = replace(recipe, encoder=(replace(recipe.encoder[0], ffn_channels=32),))
    (tmp_path / "pruned.json").write_text(pruned.to_json(), encoding="utf-8")
    monkeypatch.chdir(files)
    artifact = tmp_path / "artifact"
    command = ("export", "--recipe", tmp_path / "pruned.json", "--model", "model.pt", "--calibration", "speech.jsonl")
    assert whisperfit(*command, "--out", artifact).code == 0
    monkeypatch.chdir(tmp_path)
    verification = ("verify", artifact, "--data", files / "speech.jsonl", "--repeats", 1, "--json")
    ended = whisperfit(*verification)
    assert json.loads(ended.out)["parity"]["differences"] == []
    manifest = artifact / "manifest.json"
    moved = json.loads(manifest.read_text(encoding="utf-8"))
    assert Path(moved["sources"]["calibration"]) == files / "speech.jsonl"
    moved["sources"]["calibration"] = "gone.jsonl"
    manifest.write_text(json.dumps(moved), encoding="utf-8")
    refused(whisperfit(*verification), "gone.jsonl")
    ended = whisperfit(*verification, "--calibration", files / "speech.jsonl")
    assert json.loads(ended.out)["parity"]["differences"] == []


def test_exporting_what_cannot_be_exported(finished_run, files, whisperfit, tmp_path):
    recipe = Recipe.from_json(rows(finished_run / "trials.csv")[0]["recipe"])
    (tmp_path / "odd.json").write_text(replace(recipe, embedding_bits=3).to_json(), encoding="utf-8")
    heads = replace(recipe, encoder=(replace(recipe.encoder[0], ffn_channels=32),))
    (tmp_path / "pruned.json").write_text(heads.to_json(), encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    out, model = ("--out", tmp_path / "artifact"), ("--model", files / "model.pt")
    for arguments, complaints in (
        ((finished_run, "--trial", 99), ("--trial 99", "no trial has this number")),
        ((finished_run, "--target", "tflite"), ("unknown target 'tflite'", "onnxruntime")),
        (("--recipe", tmp_path / "odd.json", *model), ("embedding_bits = 3", "onnxruntime")),
        (("--recipe", tmp_path / "pruned.json", *model), ("--calibration",)),
        (("--recipe", tmp_path / "pruned.json"), ("--recipe and --model",)),
        ((), ("--recipe and --model",)),
    ):
        refused(whisperfit("export", *arguments, *out), *complaints)
    refused(whisperfit("export", finished_run, "--out", tmp_path / "full"), "exists and is no artifact")
    refused(whisperfit("verify", tmp_path / "full", "--data", files / "speech.jsonl"), "is no artifact")
    assert not (tmp_path / "artifact").exists()


def test_report_writes_the_same_files_again(finished_run, whisperfit):
    before = {name: (finished_run / name).read_bytes() for name in ("trials.csv", "pareto.csv", "artifacts.csv")}
    for name in before:
        (finished_run / name).unlink()
    ended = whisperfit("report", finished_run, "--json")
    assert ended.code == 0
    assert {name: (finished_run / name).read_bytes() for name in before} == before
    shown = json.loads(ended.out)
    assert shown["recommended"]["recipe_id"] == rows(finished_run / "pareto.csv")[0]["recipe_id"]


def test_repriced_for_its_own_device_a_run_stays_as_it_is(finished_run, whisperfit, tmp_path):
    ended = whisperfit("reprice", finished_run, "--device", "imx8mplus", "--out", tmp_path, "--json")
    assert ended.code == 0
    for name in ("trials.csv", "pareto.csv", "artifacts.csv"):
        assert (tmp_path / name).read_bytes() == (finished_run / name).read_bytes()
    costs = json.loads(ended.out)["recommended"]
    assert costs["occupancy"] == pytest.approx(costs["rtf"]), "all four of four cores"


def test_limits_on_time_with_a_confidence(files, tmp_path, whisperfit):
    """The same limit, kept by the median and not by the 95 % quantile."""
    priced = whisperfit(*search_arguments(files, tmp_path / "run", trials=1), "--json")
    original = json.loads(priced.out)["baseline"]
    limit = {"max_latency_ms": 1.05 * original["latency_ms"], "trials": 1}
    median = whisperfit(*search_arguments(files, tmp_path / "median", **limit), "--json")
    sure = whisperfit(*search_arguments(files, tmp_path / "sure", **limit, latency_confidence=0.95), "--json")
    assert (median.code, sure.code) == (0, 3)
    shown = json.loads(sure.out)["least_violating"]
    assert 0.5 < shown["time_limit_probability"] < 0.95
    assert shown["violations"]["latency"] == pytest.approx(original["latency_high_ms"] / limit["max_latency_ms"] - 1)
    assert json.loads(median.out)["recommended"]["time_limit_probability"] == shown["time_limit_probability"]


def test_a_recipe_scored_by_itself_has_the_wer_of_its_trial(files, finished_run, whisperfit, tmp_path):
    row = rows(finished_run / "pareto.csv")[0]
    (tmp_path / "recipe.json").write_text(row["recipe"], encoding="utf-8")
    options = ("--model", files / "model.pt", "--data", files / "speech.jsonl", "--threads", 1, "--json")
    ended = whisperfit("baseline", *options, "--recipe", tmp_path / "recipe.json")
    assert ended.code == 0
    shown = json.loads(ended.out)
    assert shown["recipe_id"] == row["recipe_id"]
    assert shown["wer"] == pytest.approx(float(row["wer"]), rel=1e-9)
    assert shown["insertions"] == int(row["insertions"])


def test_a_finished_run_goes_on_when_more_is_asked(finished_run, whisperfit):
    before = rows(finished_run / "trials.csv")
    ended = whisperfit("resume", finished_run, "--trials", 6)
    assert ended.code == 0
    after = rows(finished_run / "trials.csv")
    same = ("trial", "recipe_id", "state", "wer", "objective", "seconds")
    for row, old in zip(after, before, strict=False):
        assert [row[name] for name in same] == [old[name] for name in same]
    assert sum(row["state"] != "rejected" for row in after) == 6


def test_a_run_does_not_go_on_with_other_speech(files, finished_run, whisperfit, tmp_path):
    out = shutil.copytree(finished_run, tmp_path / "run")
    environment = json.loads((out / "environment.json").read_text(encoding="utf-8"))
    (out / "environment.json").write_text(json.dumps(environment | {"speech_sha256": "other"}), encoding="utf-8")
    for name in ("model.pt", "speech.jsonl"):
        shutil.copy(files / name, tmp_path)
    (out / "config.toml").write_text(
        'model = "../model.pt"\ndevice = "imx8mplus"\ndata = "../speech.jsonl"\n'
        'trials = 9\nthreads = 1\nengine = "steps"\n',
        encoding="utf-8",
    )
    refused(whisperfit("resume", out), "cannot go on: speech_sha256 changed since it began; start a new run")


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise")
    soundfile.write(folder / "hiss.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    return folder


def test_a_run_on_noisy_speech_with_a_group_budget(files, noise, tmp_path, whisperfit):
    """Noise changes the search's and the confirm set's speech, not the calibration; groups are judged and shown."""
    options = {"data": "sample-search", "confirm": "sample-confirm", "trials": 2}
    clean = whisperfit(*search_arguments(files, tmp_path / "clean", **options), "--json")
    added = {"noise": noise, "snr_db": "10,clean", "group_budget": "+30%"}
    noisy = whisperfit(*search_arguments(files, tmp_path / "noisy", **options, **added), "--json")
    assert (clean.code, noisy.code) == (0, 0)
    environments = [
        json.loads((tmp_path / name / "environment.json").read_text(encoding="utf-8")) for name in ("clean", "noisy")
    ]
    differing = {name for name, value in environments[0].items() if environments[1][name] != value}
    assert differing == {"speech_sha256", "confirm_sha256"}
    shown = json.loads(noisy.out)
    assert shown["speech"] == f"sample-search with {noise.stem} at 10 dB, clean"
    baseline = shown["baseline"]
    labels = {f"{group['kind']} {group['name']}" for group in baseline["groups"]}
    assert {"length below 5 s", "length 5 to 15 s", "noise 10 dB", "noise clean"} <= labels
    by_length = [group for group in baseline["groups"] if group["kind"] == "length"]
    errors = sum(int(rows(tmp_path / "noisy" / "trials.csv")[0][name]) for name in KINDS)
    assert sum(one["errors"] for one in by_length) == errors
    assert baseline["violations"]["group"] < 0
    assert baseline["worst_group"]["over"] == baseline["violations"]["group"]
    assert [one["kind"] for one in baseline["groups_confirm"]]
    page = (tmp_path / "noisy" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Groups</h2>" in page
    assert "Group budget +30%" in page
    (tmp_path / "noisy" / "config.toml").write_text(
        (tmp_path / "noisy" / "config.toml").read_text(encoding="utf-8").replace("10,clean", "9,clean"), "utf-8"
    )
    refused(whisperfit("resume", tmp_path / "noisy"), "confirm_sha256, speech_sha256 changed since it began")


def test_groups_of_a_baseline_and_of_an_artifact(files, finished_run, noise, whisperfit, tmp_path):
    options = ("--data", files / "speech.jsonl", "--noise", noise, "--snr-db", "5,clean", "--threads", 1)
    scored = whisperfit("baseline", "--model", files / "model.pt", *options, "--json")
    original = rows(finished_run / "trials.csv")[0]["recipe_id"]
    verified = whisperfit("verify", finished_run / "models" / original, *options, "--repeats", 1, "--json")
    assert (scored.code, verified.code) == (0, 0)
    groups, values = json.loads(scored.out)["groups"], json.loads(verified.out)
    assert groups
    assert {f"{group['kind']} {group['name']}" for group in groups} == {
        f"{group['kind']} {group['name']}" for group in values["groups"]
    }
    assert sum(group["accuracy"]["words"] for group in groups if group["kind"] == "length") in (
        0,
        values["accuracy"]["words"],
    )
    heard = {name for name, text in values["original"].items() if values[name] and not text}
    assert len(values["warnings"]) == len(heard)
    written = tmp_path / "heard.jsonl"
    choice = ("--normaliser", "none", "--transcripts", written)
    shown = whisperfit("baseline", "--model", files / "model.pt", *options, *choice)
    said = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    assert f"in {sum(row['words'] for row in said)} words; normaliser none" in shown.out
    assert all(row["normalised_reference"] == " ".join(row["reference"].split()) for row in said)
    assert len([line for line in shown.out.splitlines() if "fewer than 100: hardly known" in line]) == len(groups)


def test_no_recipe_within_the_limits(files, tmp_path, whisperfit):
    ended = whisperfit(*search_arguments(files, tmp_path / "run", max_size_mb=0.01, trials=1), "--json")
    assert ended.code == 3
    shown = json.loads(ended.out)
    assert shown["recommended"] is None
    assert shown["least_violating"]["trial"] == 0
    assert "--max-size-mb" in shown["problems"][0]
    assert rows(tmp_path / "run" / "pareto.csv") == []


def test_nobody_writes_into_a_run_beside_its_owner(files, finished_run, whisperfit, tmp_path):
    with RunFolder(finished_run).locked():
        in_use = f"{finished_run} is in use by process {os.getpid()}: wait for it, or end it"
        refused(whisperfit("resume", finished_run), in_use)
        refused(whisperfit(*search_arguments(files, finished_run)), in_use)
        for reading in (
            ("report", finished_run),
            ("export", finished_run, "--out", tmp_path / "artifact"),
            ("reprice", finished_run, "--device", "rpi4", "--out", tmp_path / "repriced"),
        ):
            ended = whisperfit(*reading)
            assert ended.code == 0, ended.err


def test_of_two_searches_that_begin_at_once_in_one_folder_one_is_refused(files, tmp_path):
    out = tmp_path / "run"
    processes = [start(search_arguments(files, out, trials=2)) for _ in range(2)]
    ended = [process.communicate(timeout=300)[1].decode() for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 2], ended
    assert "whisperfit: " in ended[codes.index(2)].splitlines()[-1]
    assert sum(row["state"] != "rejected" for row in rows(out / "trials.csv")) == 2


def test_an_edited_budget_is_refused(finished_run, whisperfit, tmp_path):
    out = shutil.copytree(finished_run, tmp_path / "run")
    text = (out / "config.toml").read_text(encoding="utf-8")
    (out / "config.toml").write_text(text.replace('wer_budget = "+10%"', 'wer_budget = "+90%"'), encoding="utf-8")
    refused(whisperfit("resume", out, "--trials", 9), "wer_budget is +90% and was +10% when this run began")
