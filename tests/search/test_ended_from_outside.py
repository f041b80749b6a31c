"""Runs that are ended from outside: killed, interrupted, left by their terminal."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import os
import pty
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from common.signals import ENDING
from search.records.folder import RunFolder
from search.records.study_store import StudyStore
from tests.search.commands import (  # noqa: F401
    COMMAND,
    files,
    finished_run,
    interruptible,
    rows,
    search_arguments,
    settled,
    start,
    wait_for_rows,
    whisperfit,
)

# openai-whisper leaves its normaliser's files open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def test_kill_9_loses_at_most_the_trial_in_flight(files, tmp_path, whisperfit):
    out = tmp_path / "run"
    with start(search_arguments(files, out, trials=9)) as process:
        wait_for_rows(process, out / "trials.csv", 2)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    before = rows(out / "trials.csv")
    assert 2 <= len(before) < 9
    assert whisperfit("resume", out).code == 0
    after = rows(out / "trials.csv")
    assert [settled(row) for row in after[: len(before)]] == [settled(row) for row in before]
    assert len({row["recipe_id"] for row in after}) == len(after)
    assert sum(row["state"] != "rejected" for row in after) == 9
    study = StudyStore(out / "study.db").study
    states = {trial.state.name for trial in study.get_trials()}
    assert states <= {"COMPLETE", "PRUNED", "WAITING"}


@pytest.mark.parametrize("number", ENDING)
def test_what_asks_a_search_to_end_lets_it_say_how_to_go_on(files, tmp_path, number):
    out = tmp_path / "run"
    with start(search_arguments(files, out, trials=500)) as process:
        wait_for_rows(process, out / "trials.csv", 1)
        process.send_signal(number)
        _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed.decode().splitlines()[-1] == f"Interrupted; go on with: whisperfit resume {out}"
    assert (out / "report.html").exists()


def test_a_terminal_that_closes_leaves_a_run_that_can_go_on(files, tmp_path, whisperfit):
    out = tmp_path / "run"
    ours, theirs = pty.openpty()
    arguments = ["setsid", "--ctty", *COMMAND, *search_arguments(files, out, trials=500)]
    with (
        subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as terminal,
        subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs) as process,
    ):
        os.close(ours)
        os.close(theirs)
        wait_for_rows(process, out / "trials.csv", 1)
        terminal.kill()
        process.wait(timeout=60)
    assert process.returncode == 130
    before = rows(out / "trials.csv")
    assert (out / "report.html").exists()
    assert whisperfit("resume", out, "--trials", len(before) + 1).code in {0, 3}
    assert [settled(row) for row in rows(out / "trials.csv")[: len(before)]] == [settled(row) for row in before]


def test_ctrl_c_before_the_first_trial(files, tmp_path):
    with start(search_arguments(files, tmp_path / "run")) as process:
        assert process.stderr
        process.stderr.readline()  # "Loading ..."
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed.splitlines()[-1] == b"whisperfit: interrupted"


def test_ctrl_c_while_an_artifact_is_measured_leaves_nothing_behind(finished_run, whisperfit, tmp_path):
    """As a terminal sends it: to the whole process group."""
    out = copied(finished_run, tmp_path / "run")
    shutil.rmtree(out / "models")
    process = subprocess.Popen(
        [*COMMAND, "resume", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    with process:
        while b"exporting trial" not in process.stderr.readline():
            assert process.poll() is None
        original = rows(out / "trials.csv")[0]["recipe_id"]
        while not (out / "models" / original).is_dir():  # then it is verified and measured
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        printed = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 130, printed
    assert "KeyboardInterrupt" not in printed
    records = rows(out / "artifacts.csv")
    assert all("no artifact" not in row["note"] and float(row["host_latency_ms"]) > 0 for row in records)
    ended = whisperfit("resume", out)
    assert ended.code == 0, ended.err
    again = rows(out / "artifacts.csv")
    assert [row["recipe_id"] for row in again] == [row["recipe_id"] for row in rows(finished_run / "artifacts.csv")]
    assert all(float(row["host_latency_ms"]) > 0 for row in again)


def copied(run: Path, out: Path) -> Path:
    """A copy of a run that can go on: its configuration's paths are relative to the folder."""
    shutil.copytree(run, out)
    config = RunFolder(run).config()
    (out / "config.toml").write_text(config.to_toml(out), encoding="utf-8")
    return out
