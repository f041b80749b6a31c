"""`whisperfit status` and `--on-end`: what people learn of a run without looking into its files."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import json
import shutil
import sqlite3
import sys
from contextlib import closing

import pytest

from common.errors import InputError
from search.records.folder import RunFolder
from search.records.run_records import read_outcome
from search.records.study_store import StudyStore
from tests.search.commands import (  # noqa: F401
    files,
    finished_run,
    interruptible,
    refused,
    rows,
    search_arguments,
    start,
    wait_for_rows,
    whisperfit,
)

# openai-whisper leaves its normaliser's files open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def test_the_status_of_a_finished_run(finished_run, whisperfit):
    shown = json.loads(whisperfit("status", finished_run, "--json").out)
    outcome = read_outcome(StudyStore(finished_run / "study.db"))
    assert shown["writer"] is None
    assert shown["trials"] == len(outcome.trials) == sum(shown["states"].values())
    assert shown["recommended"]["trial"] == outcome.recommended.number
    assert shown["trials_per_hour"] == pytest.approx(3600 * len(outcome.trials) / shown["elapsed_s"])
    lines = whisperfit("status", finished_run).out.splitlines()
    assert lines[0].startswith(f"{finished_run}: The search ended because")
    assert lines[2].startswith(f"Trials: {len(outcome.trials)} (")
    assert lines[3].startswith(f"Pick: trial {outcome.recommended.number}, ")


def test_it_writes_nothing(finished_run, whisperfit, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")

    def written():
        return {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.name != "run.lock"}

    before = written()
    assert whisperfit("status", run).code == 0
    assert written() == before


def _rewrite(study, trial_id, record):
    """Straight in the file: Optuna lets nobody change a finished trial."""
    with closing(sqlite3.connect(study)) as connection, connection:
        connection.execute(
            "update trial_user_attributes set value_json = ? where trial_id = ? and key = 'record'",
            (json.dumps(record), trial_id),
        )


def test_failures_are_counted_by_their_reason(finished_run, whisperfit, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    study = StudyStore(run / "study.db").study
    last = study.get_trials()[-1]
    record = json.loads(last.user_attrs["record"]) | {"state": "failed", "note": "no memory", "accuracy": None}
    _rewrite(run / "study.db", last._trial_id, json.dumps(record))
    shown = json.loads(whisperfit("status", run, "--json").out)
    assert shown["failures"] == {"no memory": 1}
    assert "Failed: 1 by no memory" in whisperfit("status", run).out


def test_a_run_that_goes_on_names_its_process(files, tmp_path, whisperfit):
    out = tmp_path / "run"
    with start(search_arguments(files, out, trials=500)) as process:
        wait_for_rows(process, out / "trials.csv", 1)
        shown = whisperfit("status", out)
        process.kill()
    assert shown.out.splitlines()[0] == f"{out}: Running (process {process.pid})."
    assert whisperfit("status", out).out.splitlines()[0] == (
        f"{out}: Nobody leads it; go on with: whisperfit resume {out}"
    )


def test_a_folder_without_a_run_is_refused(tmp_path, whisperfit):
    refused(whisperfit("status", tmp_path), "holds no run")


def on_end(script, told):
    """A command that keeps what it is told in a file."""
    script.write_text("import sys; open(sys.argv[1], 'w').write(sys.stdin.read())")
    return f"'{sys.executable}' '{script}' '{told}'"


def test_a_command_is_told_how_the_run_ended(files, tmp_path, whisperfit):
    out, told = tmp_path / "run", tmp_path / "what was told"
    command = on_end(tmp_path / "a script.py", told)
    ended = whisperfit(*search_arguments(files, out, trials=2, on_end=command), "--json")
    assert ended.code == 0, ended.err
    assert json.loads(told.read_text()) == json.loads(ended.out) | {"interrupted": False}
    assert RunFolder(out).config().on_end == command
    told.unlink()
    assert whisperfit("resume", out, "--trials", 3).code == 0
    assert json.loads(told.read_text())["trials"] == len(rows(out / "trials.csv"))


def _no_room(*_, **__):
    raise InputError("no room")


def test_a_command_is_told_of_an_error_that_ends_the_run(files, tmp_path, whisperfit, monkeypatch):
    out, told = tmp_path / "run", tmp_path / "told"
    monkeypatch.setattr("search.commands.search.write_all", _no_room)
    command = on_end(tmp_path / "script.py", told)
    ended = whisperfit(*search_arguments(files, out, trials=1, on_end=command))
    assert (ended.code, ended.err.splitlines()[-1]) == (2, "whisperfit: no room")
    assert json.loads(told.read_text()) == {"run": str(out), "error": "no room"}


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("raise SystemExit('a server is down')", "ended with exit code 1: a server is down"),
        ("raise SystemExit(3)", "3"),
    ],
)
def test_a_command_that_fails_is_a_line(files, tmp_path, whisperfit, script, complaint):
    command = f'{sys.executable} -c "{script}"'
    ended = whisperfit(*search_arguments(files, tmp_path / "run", trials=1, on_end=command))
    assert ended.code == 0
    assert complaint in next(line for line in ended.err.splitlines() if line.startswith("Note: --on-end"))


@pytest.mark.parametrize("command", ["no-such-program --now", "an 'open quotation", "", "  "])
def test_a_command_that_cannot_be_run_is_refused_at_the_start(files, tmp_path, whisperfit, command):
    ended = whisperfit(*search_arguments(files, tmp_path / "run", trials=1, on_end=command))
    refused(ended, "--on-end (on_end in a configuration file): should be a command that can be run")
    assert not (tmp_path / "run").exists()
