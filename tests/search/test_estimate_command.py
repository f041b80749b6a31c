"""`whisperfit estimate`."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import json
from pathlib import Path

import pytest

from tests.search.commands import Whisperfit, files, whisperfit  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def arguments(files: Path) -> list[str]:
    return ["estimate", "--model", str(files / "model.pt"), "--data", str(files / "speech.jsonl")]


def test_what_a_search_needs_is_said(files: Path, whisperfit: Whisperfit) -> None:
    found = whisperfit(*arguments(files), "--hours", "1")
    assert found.code == 0
    assert "In 1 hours: " in found.out
    assert "recipes an hour" in found.out
    values = json.loads(whisperfit(*arguments(files), "--hours", "0.000001", "--json").out)
    assert values["judged"] == 0
    assert values["setup_s"] == pytest.approx(sum(values["stages_s"].values()))
    assert values["memory_mb"]["search"] > 400


def test_hours_too_few_for_the_setup_are_said(files: Path, whisperfit: Whisperfit) -> None:
    assert "nothing is judged: the set-up alone takes" in whisperfit(*arguments(files), "--hours", "0.000001").out


def test_a_model_that_is_not_here_is_timed_with_random_weights(
    files: Path, whisperfit: Whisperfit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = str(files / "speech.jsonl")
    found = whisperfit("estimate", "--model", "tiny", "--data", data, "--language", "en", "--hours", "1", "--json")
    assert found.code == 0
    assert "tiny is not on this machine: estimated with random weights" in " ".join(found.err.split())
    assert json.loads(found.out)["parameters_m"] == pytest.approx(37.18, abs=0.01)


def test_what_is_no_model_is_one_line(files: Path, whisperfit: Whisperfit) -> None:
    found = whisperfit("estimate", "--model", "missing.pt", "--hours", "1")
    assert found.code == 2
    assert "missing.pt" in found.err.splitlines()[-1]
