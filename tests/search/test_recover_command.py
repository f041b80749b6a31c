"""`whisperfit recover` from end to end, on the random Whisper and the clips of the command line's tests."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import errno
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import soundfile

from compression.recipe.recipe import Recipe
from compression.training.checkpoint import Checkpoint
from evaluators.sample_speech import sample_speech
from search.commands.ending import Ending
from search.records.folder import RunFolder
from search.records.study_store import StudyStore
from tests.search.commands import (  # noqa: F401
    CLIPS,
    Whisperfit,
    files,
    finished_run,
    refused,
    rows,
    sample_lines,
    start,
    whisperfit,
    write_speech,
)

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

SETTINGS = "steps = 6\nevaluate_every = 3\ncopies = 2\nbatch_size = 2\nlearning_rate = 1e-5\nheld_out = 0.25\n"
LONG = 150
"""Steps of a training that Ctrl-C surely reaches before its end."""


@pytest.fixture(scope="module")
def training(files: Path) -> dict[str, Path]:
    """Speech that the run is not scored on, and settings of a short training."""
    manifest = sample_speech("confirm")
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()[:CLIPS]]
    text = "".join(json.dumps(line | {"audio": str(manifest.parent / line["audio"])}) + "\n" for line in lines)
    (files / "training.jsonl").write_text(text, encoding="utf-8")
    (files / "training.toml").write_text(SETTINGS, encoding="utf-8")
    return {"speech": files / "training.jsonl", "training": files / "training.toml"}


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(finished_run, tmp_path / "run")


def recover(run: Path, files_of_training: dict[str, Path], **changes: object) -> list[str]:
    options: dict[str, object] = {"trial": 1, "method": "distill"} | files_of_training | changes
    if options["method"] == "reconstruct":  # has no settings
        options["training"] = None
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None)
    return ["recover", str(run), *(part for pair in pairs for part in pair)]


@pytest.mark.parametrize("method", ["distill", "qat", "scales", "reconstruct"])
def test_a_recovered_trial_is_a_trial_of_its_own(  # noqa: PLR0917 - fixtures
    run: Path, training: dict[str, Path], whisperfit: Whisperfit, method: str, tmp_path: Path, files: Path
) -> None:
    before = rows(run / "trials.csv")
    ended = whisperfit(*recover(run, training, method=method), "--json")
    assert ended.code == 0, ended.err
    shown = json.loads(ended.out)
    after = rows(run / "trials.csv")
    assert [row["recipe_id"] for row in after[: len(before)]] == [row["recipe_id"] for row in before]
    (added,) = after[len(before) :]
    assert (shown["from_trial"], shown["trial"], shown["method"]) == (1, int(added["trial"]), method)
    assert added["trial"] == str(len(StudyStore(run / "study.db").study.trials) - 1)
    recipe = Recipe.from_json(added["recipe"])
    assert recipe.recovery
    assert recipe.recovery.method == method
    assert recipe.id == added["recipe_id"] == shown["recipe_id"]
    assert added["size_mb"] == before[1]["size_mb"]
    folder = run / "recovered" / recipe.id
    assert {file.name for file in folder.iterdir()} == {"recipe.json", "weights.pt", "training.json"}
    course = json.loads((folder / "training.json").read_text())
    assert course["from_recipe_id"] == before[1]["recipe_id"]
    assert not list((run / "recovered").glob("*.checkpoint"))

    scored = whisperfit(
        "baseline", "--model", files / "model.pt", "--data", files / "speech.jsonl", "--recipe", folder / "recipe.json",
        "--json",
    )  # fmt: skip
    if added["state"] == "complete":
        assert json.loads(scored.out)["wer"] == pytest.approx(float(added["wer"]))
    exported = whisperfit("export", run, "--trial", recipe.id, "--out", tmp_path / "artifact", "--json")
    assert exported.code == 0, exported.err
    verified = whisperfit("verify", tmp_path / "artifact", "--data", files / "speech.jsonl", "--repeats", 1, "--json")
    assert verified.code == 0, verified.err
    assert json.loads(verified.out)["parity"]["differences"] == []


def test_the_same_training_again_is_the_same_trial(
    run: Path, training: dict[str, Path], whisperfit: Whisperfit
) -> None:
    first = json.loads(whisperfit(*recover(run, training), "--json").out)
    shutil.rmtree(run / "recovered" / first["recipe_id"])
    ended = whisperfit(*recover(run, training), "--json")
    second = json.loads(ended.out)
    assert first["trial"] == second["trial"]
    assert first["recipe_id"] == second["recipe_id"]
    assert f"knew this result as trial {first['trial']}: its weights are written again" in ended.err
    exported = whisperfit("export", run, "--trial", first["recipe_id"], "--out", run / "artifact")
    assert exported.code == 0, exported.err


def test_what_brought_nothing_is_no_trial(run: Path, training: dict[str, Path], whisperfit: Whisperfit) -> None:
    before = rows(run / "trials.csv")
    wild = run / "wild.toml"
    wild.write_text(SETTINGS.replace("1e-5", "1.0"))
    for changes, reason in (
        ({"method": "reconstruct", "hours": 1e-9}, "before anything was refitted"),
        ({"training": wild}, "the held-out loss never fell below that of before"),
    ):
        ended = whisperfit(*recover(run, training, **changes), "--json")
        assert ended.code == 3
        assert f"No trial is added: {json.loads(ended.out)['note']}" == ended.err.splitlines()[-1]
        assert reason in ended.err
        assert json.loads(ended.out)["trial"] is None
    assert not list((run / "recovered").glob("*"))
    assert rows(run / "trials.csv") == before


def test_a_recovered_trial_says_what_it_comes_from(
    run: Path, training: dict[str, Path], whisperfit: Whisperfit
) -> None:
    shown = json.loads(whisperfit(*recover(run, training), "--json").out)
    assert "trial 1 recovered by distill: 6 steps, " in rows(run / "trials.csv")[shown["trial"]]["note"]


def test_recovered_trials_can_be_recovered_again_and_the_run_goes_on(
    run: Path, training: dict[str, Path], whisperfit: Whisperfit
) -> None:
    first = json.loads(whisperfit(*recover(run, training), "--json").out)
    again = recover(run, training, trial=first["recipe_id"], method="reconstruct")
    second = json.loads(whisperfit(*again, "--json").out)
    assert second["from_trial"] == first["trial"]
    assert second["trial"] == first["trial"] + 1
    count = len(rows(run / "trials.csv"))
    ended = whisperfit("resume", run, "--trials", count + 1)
    assert ended.code == 0, ended.err
    assert len(rows(run / "trials.csv")) > count


def test_missing_weights_are_one_line(run: Path, training: dict[str, Path], whisperfit: Whisperfit) -> None:
    recipe_id = json.loads(whisperfit(*recover(run, training, method="reconstruct"), "--json").out)["recipe_id"]
    shutil.rmtree(run / "recovered")
    ended = whisperfit("export", run, "--trial", recipe_id, "--out", run / "artifact")
    refused(ended, f"recipe {recipe_id} has trained weights, which are not in", "whisperfit recover")


def test_ctrl_c_leaves_a_checkpoint_and_the_same_command_goes_on(
    run: Path, training: dict[str, Path], whisperfit: Whisperfit, tmp_path: Path
) -> None:
    long = tmp_path / "long.toml"
    long.write_text(SETTINGS.replace("steps = 6", f"steps = {LONG}") + f"patience = {LONG}\n")
    before = rows(run / "trials.csv")
    checkpoint = run / "recovered" / f"{before[1]['recipe_id']}-distill.checkpoint"
    command = recover(run, training | {"training": long})
    with start(command) as process:
        shown = b""
        while b"step      3" not in shown and process.poll() is None:
            shown += process.stderr.readline()  # type: ignore[union-attr]
        process.send_signal(signal.SIGINT)
        shown += process.stderr.read()  # type: ignore[union-attr]
        assert process.wait(30) == 130, shown
    assert checkpoint.is_file()
    other = whisperfit(*recover(run, training))
    assert other.code == 2
    assert "is of a training with other settings or speech" in other.err

    ended = whisperfit(*command, "--json")
    assert ended.code == 0, ended.err
    assert not checkpoint.exists()
    stopped_after = steps_shown(shown.decode())[-1]
    assert steps_shown(ended.err) == list(range(stopped_after + 3, LONG + 1, 3))
    outcome = json.loads(ended.out)
    assert (outcome["steps"], outcome["ended"]) == (LONG, "steps")
    course = json.loads((run / "recovered" / outcome["recipe_id"] / "training.json").read_text())
    assert [point["step"] for point in course["training"]["points"]] == list(range(0, LONG + 1, 3))
    assert len(rows(run / "trials.csv")) == len(before) + 1


def steps_shown(text: str) -> list[int]:
    """The steps of the evaluations that a training told."""
    return [int(step) for step in re.findall(r"^step +(\d+) ", text, flags=re.MULTILINE)]


@pytest.mark.parametrize(
    ("changes", "complaints"),
    [
        ({"method": "distil"}, ("unknown method 'distil'", "Did you mean 'distill'?")),
        ({"trial": 99}, ("--trial 99: no trial",)),
        ({"hours": -1}, ("--hours: input should be greater than 0",)),
        ({"hours": "inf"}, ("--hours: input should be a finite number",)),
        ({"training": None}, ("a training needs an end: give --hours",)),
        ({"speech": None}, ("no calibration speech of its own", "--speech MANIFEST")),
        ({"speech": "missing.jsonl"}, ("missing.jsonl",)),
        ({"compute": "cuda"}, ("no CUDA device",)),
        ({"method": "qat", "trial": 0}, ("nothing to recover",)),
        ({"method": "distill", "trial": 0}, ("nothing to recover",)),
        ({"method": "reconstruct", "trial": 0}, ("nothing to recover",)),
    ],
    ids=str,
)
def test_what_cannot_be_recovered_is_one_line(
    finished_run: Path,
    training: dict[str, Path],
    whisperfit: Whisperfit,
    changes: dict[str, object],
    complaints: tuple[str, ...],
) -> None:
    ended = whisperfit(*recover(finished_run, training, **changes))
    assert ended.code == 2
    assert all(complaint in ended.err.splitlines()[-1] for complaint in complaints), ended.err


def test_a_reconstruction_has_no_settings(
    finished_run: Path, training: dict[str, Path], whisperfit: Whisperfit
) -> None:
    settings = ("--training", training["training"])
    ended = whisperfit(*recover(finished_run, training, method="reconstruct"), *settings)
    assert ended.code == 2
    assert "a reconstruction has no settings: leave out --training" in ended.err.splitlines()[-1]


def test_a_full_disk_ends_with_the_command_that_goes_on(
    run: Path, training: dict[str, Path], whisperfit: Whisperfit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    again = f"make room, then whisperfit recover {run} --trial 1 --method distill again, with the other options as they"
    resume = f"make room, then whisperfit resume {run}"
    for where, name, advice in ((Checkpoint, "save", again), (Ending, "reach", resume)):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, full)
            ended = whisperfit(*recover(run, training))
        assert ended.code == 2
        assert f"what was measured is kept: {advice}" in ended.err.splitlines()[-1]
    assert "trial 1 recovered by distill" in StudyStore(run / "study.db").trials()[-1].note


def test_missing_noise_is_told_before_anything_is_loaded(
    finished_run: Path, training: dict[str, Path], whisperfit: Whisperfit, tmp_path: Path
) -> None:
    (tmp_path / "noisy.toml").write_text(f'{SETTINGS}noise = "gone"\n', encoding="utf-8")
    refused(whisperfit(*recover(finished_run, training | {"training": tmp_path / "noisy.toml"})), "gone does not exist")


def test_nothing_is_trained_on_what_it_is_scored_on(
    finished_run: Path, training: dict[str, Path], files: Path, whisperfit: Whisperfit
) -> None:
    ended = whisperfit(*recover(finished_run, training, speech=files / "speech.jsonl"))
    assert ended.code == 2
    assert f"holds {CLIPS} recordings that this run is scored on" in ended.err
    samples, rate = soundfile.read(sample_lines()[0]["audio"], dtype="int16")
    soundfile.write(files / "other-name.wav", samples, rate)
    again = write_speech(files / "again.jsonl", {"id": "other", "audio": "other-name.wav", "text": "other words"})
    *_, last = again.read_text(encoding="utf-8").splitlines()
    again.write_text(last + "\n", encoding="utf-8")
    ended = whisperfit(*recover(finished_run, training, speech=again))
    assert ended.code == 2
    assert "holds 1 recordings that this run is scored on" in ended.err


def test_nothing_is_recovered_beside_a_search(
    finished_run: Path, training: dict[str, Path], whisperfit: Whisperfit
) -> None:
    with RunFolder(finished_run).locked():
        refused(whisperfit(*recover(finished_run, training)), f"is in use by process {os.getpid()}")
