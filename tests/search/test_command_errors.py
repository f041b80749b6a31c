"""What the command line makes of options, speech, models and folders that cannot be used."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from search.commands import devices
from tests.search.commands import (  # noqa: F401
    CLIPS,
    files,
    finished_run,
    refused,
    sample_lines,
    search_arguments,
    whisperfit,
    write_speech,
)

# openai-whisper leaves its normaliser's files open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.mark.parametrize(
    ("changes", "complaints"),
    [
        ({"device": "imx8mplos"}, ("unknown device 'imx8mplos'", "Did you mean 'imx8mplus'?", "Known: ")),
        ({"model": "tiny.eng"}, ("unknown model 'tiny.eng'", "Did you mean 'tiny.en'?")),
        ({"model": "missing/model.pt"}, ("no model at missing/model.pt",)),
        ({"data": "missing.jsonl"}, ("missing.jsonl",)),
        ({"wer_budget": "-5%"}, ("WER budget '-5%' is negative", "8.5%", "+10%")),
        ({"wer_budget": "much"}, ("WER budget 'much'", "8.5%", "+10%")),
        ({"max_size_mb": -1}, ("--max-size-mb", "-1")),
        ({"compute": "tpu"}, ("--compute", "'tpu'")),
        ({"compute": "cuda"}, ("--compute cuda: torch finds no CUDA device",)),
        ({"compute": "cuda:7"}, ("--compute cuda:7: torch finds no CUDA device",)),
        ({"compute": "mps"}, ("--compute mps: torch finds no Metal device",)),
        ({"min_language_accuracy": 0.9}, ("--min-language-accuracy", "knows English only")),
        ({"min_language_accuracy": 1.5}, ("--min-language-accuracy", "1.5")),
        ({"hours": -1}, ("--hours", "-1")),
        ({"space": "coars"}, ("'coars'. Did you mean 'coarse'?",)),
        ({"sampler": "annealing"}, ("--sampler", "'tpe', 'nsga2', 'random', 'evolution' or 'grid'", "annealing")),
        ({"min_language_accuracy": 0}, ("--min-language-accuracy", "greater than 0")),
        ({"min_language_accuracy": 1.5}, ("--min-language-accuracy", "less than or equal to 1")),
        ({"group_budget": "much"}, ("group budget 'much'", "8.5%", "+10%")),
        ({"group_budget": "+30%"}, ("speech has no group of at least 100 words; its groups: ", "larger set")),
        ({"noise": "hiss"}, ("--snr-db, such as 10",)),
        ({"noise": "hiss", "snr_db": "10"}, ("--noise hiss does not exist",)),
        ({"snr_db": "loud", "noise": "hiss"}, ("--snr-db 'loud'", "20,10,clean")),
        ({"config": "missing.toml"}, ("configuration missing.toml: cannot be read",)),
        ({"calibration": "missing.jsonl"}, ("missing.jsonl",)),
    ],
    ids=str,
)
def test_bad_options(changes, complaints, files, tmp_path, whisperfit):
    refused(whisperfit(*search_arguments(files, tmp_path / "run", **changes)), *complaints)
    assert not (tmp_path / "run").exists()


def test_bad_speech(files, tmp_path, whisperfit):
    clip = Path(str(sample_lines()[-1]["audio"]))
    (tmp_path / "cut.flac").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    (tmp_path / "empty.jsonl").touch()
    textless = write_speech(tmp_path / "textless.jsonl", {"text": ""})
    cut = write_speech(tmp_path / "cut.jsonl", {"audio": "cut.flac"})
    for file, complaints in (
        (tmp_path / "empty.jsonl", ("empty.jsonl is empty",)),
        (textless, (f"line {CLIPS}: ", "has no text", "--skip-broken")),
        (cut, (f"line {CLIPS}: ", "cut.flac", "--skip-broken")),
    ):
        refused(whisperfit(*search_arguments(files, tmp_path / "run", data=file)), *complaints)
    assert not (tmp_path / "run").exists()


def test_a_confirm_set_that_was_heard_is_refused(files, tmp_path, whisperfit):
    other = files / "confirm.jsonl"
    for changes in ({"confirm": files / "speech.jsonl"}, {"confirm": other, "calibration": other}):
        ended = whisperfit(*search_arguments(files, tmp_path / "run", **changes))
        refused(ended, f"--confirm {changes['confirm'].stem} holds {CLIPS} recordings", "never hears")
    assert not (tmp_path / "run").exists()


def test_skipped_lines_are_counted(files, tmp_path, whisperfit):
    speech = write_speech(tmp_path / "speech.jsonl", {"text": ""})
    arguments = search_arguments(files, tmp_path / "run", data=speech, trials=1)
    ended = whisperfit(*arguments, "--skip-broken", "--json")
    assert ended.code == 0
    assert any(problem.startswith("1 broken line of speech skipped") for problem in json.loads(ended.out)["problems"])


@pytest.mark.parametrize("content", ["nothing", "text", "state"])
def test_a_checkpoint_that_is_no_whisper(content, files, tmp_path, whisperfit):
    file = tmp_path / "model.pt"
    if content == "state":
        torch.save({"weight": torch.zeros(3)}, file)
    else:
        file.write_text("" if content == "nothing" else "not a checkpoint", encoding="utf-8")
    refused(whisperfit(*search_arguments(files, tmp_path / "run", model=file)), "model.pt")


def test_out_folders_that_cannot_be_used(files, finished_run, tmp_path, whisperfit):
    other = search_arguments(files, finished_run, confirm=files / "confirm.jsonl", seed=8)
    refused(whisperfit(*other), "another configuration (it differs in seed)", "give a new folder")
    same = search_arguments(files, finished_run, confirm=files / "confirm.jsonl")
    refused(whisperfit(*same), f"go on with it: whisperfit resume {finished_run}")
    (tmp_path / "file").touch()
    refused(whisperfit(*search_arguments(files, tmp_path / "file" / "run")), "--out", "is a file")
    refused(whisperfit("resume", tmp_path), "holds no run", "whisperfit search")
    refused(whisperfit("report", tmp_path), "holds no run")


def test_a_read_only_out_folder(files, tmp_path, whisperfit, monkeypatch):
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)  # root may write everywhere
    refused(whisperfit(*search_arguments(files, tmp_path / "run")), "--out", "cannot be written", str(tmp_path))


@pytest.mark.parametrize(("number", "reason"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "may not be read")])
def test_what_the_disk_refuses_is_one_line(number, reason, whisperfit, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr(devices, "show_devices", refuse)
    refused(whisperfit("devices"), reason, "some/file")


def test_an_old_run_whose_confirm_set_was_heard_goes_on_with_a_note(files, finished_run, whisperfit, tmp_path):
    out = shutil.copytree(finished_run, tmp_path / "run")
    config = (out / "config.toml").read_text(encoding="utf-8")
    heard = [re.sub('^(data|model|confirm) = ".*/', f'\\1 = "{files}/', line) for line in config.splitlines()]
    text = "\n".join(heard).replace("confirm.jsonl", "speech.jsonl")
    (out / "config.toml").write_text(text, encoding="utf-8")
    environment = json.loads((out / "environment.json").read_text(encoding="utf-8"))
    changed = environment | {"confirm_sha256": environment["speech_sha256"]}
    (out / "environment.json").write_text(json.dumps(changed), encoding="utf-8")
    ended = whisperfit("export", out, "--out", tmp_path / "artifact")
    assert ended.code == 0, ended.err
    assert f"Note: --confirm speech holds {CLIPS} recordings" in " ".join(ended.err.split())
