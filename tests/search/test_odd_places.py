"""Folders of any name, and a user without a home: the whole way through the command line."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.search.commands import (  # noqa: F401
    DIMENSIONS,
    files_of_a_whisper,
    rows,
    sample_lines,
    search_arguments,
    whisperfit,
)

# openai-whisper leaves its normaliser's files open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

ODD = "a b?c#d%20e{x}'é\"&<i>"
"""What means something in URLs, in formats, in shells and in HTML."""
HOMELESS = """
import pwd, sys

def unknown(user):
    raise KeyError(user)

pwd.getpwuid = unknown
from search.cli import main
main()
"""


@pytest.fixture(scope="module")
def odd_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd") / ODD
    folder.mkdir()
    with files_of_a_whisper(folder, DIMENSIONS) as files:
        yield files


def test_a_run_lives_in_a_folder_of_any_name(odd_files, whisperfit, monkeypatch, tmp_path):
    monkeypatch.chdir(odd_files)
    out = Path("runs") / ODD
    arguments = search_arguments(Path(), out, trials=1, model="./model.pt")
    assert whisperfit(*arguments).code == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == [ODD]
    monkeypatch.chdir(tmp_path)
    run = odd_files / out
    assert whisperfit("resume", run, "--trials", 2).code == 0
    assert sum(row["state"] != "rejected" for row in rows(run / "trials.csv")) == 2
    assert whisperfit("report", run).code == 0
    assert "<i>" not in (run / "report.html").read_text(encoding="utf-8").partition("<body")[2].replace("&lt;i&gt;", "")
    assert whisperfit("reprice", run, "--device", "rpi4", "--out", tmp_path / f"{ODD} pi").code == 0
    artifact = tmp_path / f"{ODD} artifact"
    assert whisperfit("export", run, "--out", artifact, "--trial", 0).code == 0
    assert whisperfit("transcribe", artifact, sample_lines()[0]["audio"]).code == 0


def homeless(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", str(Path.cwd()))}
    command = [sys.executable, "-c", HOMELESS, *map(str, arguments)]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=False)


def test_a_user_without_a_home_names_the_caches_folder(odd_files, tmp_path):
    command = ("baseline", "--model", odd_files / "model.pt", "--data", odd_files / "speech.jsonl", "--threads", 1)
    ended = homeless(*command, WHISPERFIT_CACHE=str(tmp_path / "cache"))
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert ended.stdout.startswith("WER ")
