"""`search --workers`, `--storage` and `whisperfit worker`, in processes, on a network of random weights."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from tests.postgres import PASSWORD, Postgres, postgres  # noqa: F401
from tests.search.commands import (  # noqa: F401
    COMMAND,
    files,
    interruptible,
    multilingual_files,
    refused,
    rows,
    search_arguments,
    start,
    wait_for_rows,
    whisperfit,
    write_speech,
)

# openai-whisper leaves its normaliser's files open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
EVOLUTION = {"engine": "evolution", "divergence_clips": 4, "wer_budget": "+900%"}


@contextmanager
def worker(storage: str, study: str, log: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """On another machine, as far as the run can tell; it ends with the block."""
    command = [*COMMAND, "worker", "--storage", storage, "--study", study, "--threads", "1", *more]
    with log.open("ab") as handle:
        process = subprocess.Popen(command, stdout=handle, stderr=handle, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def each_once(trials: list[dict[str, str]]) -> bool:
    return len({row["recipe_id"] for row in trials}) == len(trials)


def measured(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("trial", "recipe_id", "state", "wer", "divergence", "size_mb"))


def workers_of(run: Path) -> list[int]:
    """Processes of this machine that measure for the run."""
    found = subprocess.run(["pgrep", "-f", f"worker --storage sqlite:///{run}"], capture_output=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def test_a_worker_that_is_killed_is_started_again_and_each_recipe_is_measured_once(files, tmp_path, whisperfit):
    out = tmp_path / "run"
    killed: list[int] = []

    def kill_one() -> None:
        while not (out / "trials.csv").exists() or len(rows(out / "trials.csv")) < 4:
            time.sleep(0.05)
        killed.append(workers_of(out)[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = Thread(target=kill_one)
    killer.start()
    ended = whisperfit(*search_arguments(files, out, trials=25, workers=2, **EVOLUTION), "--json")
    killer.join()
    assert ended.code == 0, ended.err
    assert killed
    assert "has ended (signal 9; see" in ended.err
    trials = rows(out / "trials.csv")
    assert each_once(trials)
    assert sum(row["state"] != "rejected" for row in trials) >= 25
    assert not any("ended" in row["note"] for row in trials if row["state"] == "failed")
    assert workers_of(out) == []
    logs = "".join(file.read_text(encoding="utf-8") for file in (out / "workers").iterdir())
    assert "begins trial=0" in logs
    ended = [line for line in logs.splitlines() if " ends trial=" in line]
    assert {name for line in ended for name in ("compress_s", "encode_s", "decode_s", "memory_mb") if name in line} == {
        "compress_s", "encode_s", "decode_s", "memory_mb",
    }  # fmt: skip


def test_workers_end_with_the_run_that_started_them_and_it_can_go_on(files, tmp_path, whisperfit):
    out = tmp_path / "run"
    with start(search_arguments(files, out, trials=400, workers=2, **EVOLUTION)) as process:
        wait_for_rows(process, out / "trials.csv", 5)
        process.kill()
    before = rows(out / "trials.csv")
    deadline = time.monotonic() + 60
    while workers_of(out):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert whisperfit("resume", out, "--trials", len(before) + 5).code == 0
    after = rows(out / "trials.csv")
    assert each_once(after)
    assert {measured(row) for row in before} <= {measured(row) for row in after}


def test_a_run_in_a_database_is_measured_by_workers_elsewhere_and_gathered_anywhere(
    files, tmp_path, whisperfit, postgres
):
    out, gathered, log = tmp_path / "run", tmp_path / "gathered", tmp_path / "worker.log"
    arguments = search_arguments(files, out, trials=25, workers=0, storage=postgres.storage, study="night", **EVOLUTION)
    with start(arguments) as leader:
        while whisperfit("status", "--storage", postgres.storage, "--study", "night").code:
            assert leader.poll() is None, leader.communicate()
            time.sleep(0.2)
        with worker(postgres.storage, "night", log) as process:
            wait_for_rows(leader, out / "trials.csv", 4)
            status = json.loads(whisperfit("status", "--storage", postgres.storage, "--study", "night", "--json").out)
            assert len(status["workers"]) == 1
            assert status["writer"]
            again = whisperfit("resume", out)
            refused(again, "is in use by process")
            _, printed = leader.communicate(timeout=600)
            assert leader.returncode == 0, printed
            assert process.wait(60) == 0
    assert log.read_text(encoding="utf-8").splitlines()[-1].endswith("jobs done")
    found = whisperfit("report", "--storage", postgres.storage, "--study", "night", "--out", gathered)
    assert found.code == 0, found.err
    for name in ("trials.csv", "pareto.csv"):  # the sounds that notes name are fewer in this process
        assert [row | {"note": ""} for row in rows(gathered / name)] == [row | {"note": ""} for row in rows(out / name)]
    assert not (out / "study.db").exists()
    texts = [file for folder in (out, gathered, log.parent) for file in folder.rglob("*") if file.is_file()]
    assert not [file for file in texts if PASSWORD.encode() in file.read_bytes()]
    assert PASSWORD not in printed.decode() + found.out + found.err
    refused(
        whisperfit(*search_arguments(files, tmp_path / "other", storage=postgres.storage, study="night", **EVOLUTION)),
        "holds a run",
    )


def test_a_database_that_goes_away_and_comes_back_does_not_end_the_run(files, tmp_path, whisperfit, postgres):
    out = tmp_path / "run"

    def fall_over() -> None:
        while not (out / "trials.csv").exists() or len(rows(out / "trials.csv")) < 4:
            time.sleep(0.05)
        postgres.kill()
        time.sleep(2)
        postgres.start()

    faller = Thread(target=fall_over)
    faller.start()
    arguments = search_arguments(files, out, trials=25, workers=1, storage=postgres.storage, **EVOLUTION)
    ended = whisperfit(*arguments)
    faller.join()
    if ended.code == 2:  # it fell over in the middle of a transaction: the line says how to go on
        assert "whisperfit resume" in ended.err.splitlines()[-1]
        ended = whisperfit("resume", out)
    assert ended.code == 0, ended.err
    trials = rows(out / "trials.csv")
    assert each_once(trials)
    assert sum(row["state"] != "rejected" for row in trials) >= 25


def test_a_worker_whose_files_differ_refuses_and_says_which(files, tmp_path, whisperfit):
    out = tmp_path / "run"
    assert whisperfit(*search_arguments(files, out, trials=3, **EVOLUTION)).code == 0
    other = tmp_path / "other"
    other.mkdir()
    shutil.copytree(files, other, dirs_exist_ok=True)
    write_speech(other / "speech.jsonl", {"text": "something else"})
    ended = whisperfit(
        "worker",
        "--storage",
        f"sqlite:///{out / 'study.db'}",
        "--study",
        "whisperfit",
        "--data",
        other / "speech.jsonl",
    )
    assert (ended.code, ended.out) == (2, "")
    assert "other contents than the run for --calibration, --data: " in ended.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"storage": "mysql://me@host/db"}, "must begin with postgresql+psycopg://"),
        ({"storage": "postgresql+psycopg://me:secret@host/db"}, "holds a password"),
        ({"storage": "postgresql+psycopg://me@host/db?password=secret"}, "holds a password"),
        ({"storage": "nonsense"}, "is no address such as"),
        ({"storage": "postgresql+psycopg://me@127.0.0.1:1/db"}, "cannot be opened as an Optuna study"),
        ({"study": "night"}, "names a study in a --storage"),
        ({"workers": -1}, "greater than or equal to 0"),
        ({"workers": 2, "engine": "steps"}, "tries one recipe at a time"),
    ],
)
def test_what_cannot_be_is_one_line(options, complaint, files, tmp_path, whisperfit):
    ended = whisperfit(*search_arguments(files, tmp_path / "run", **{**EVOLUTION, **options}))
    refused(ended, complaint)
    assert "secret" not in ended.err


def test_a_study_that_is_not_there_is_not_made(files, tmp_path, whisperfit, postgres: Postgres):
    for command in ("worker", "status"):
        ended = whisperfit(command, "--storage", postgres.storage, "--study", "morning")
        refused(ended, "there is no such study")


def test_what_workers_measure_is_what_this_process_measures(multilingual_files, tmp_path, whisperfit, monkeypatch):
    """Blocks that several workers scored, added up, and clips that two of them judged; languages that they heard."""
    tables = []
    for name, options in (("alone", {}), ("together", {"workers": 2})):
        monkeypatch.setenv("WHISPERFIT_CACHE", str(tmp_path / "cache" / name))  # nothing is known from the other
        arguments = search_arguments(multilingual_files, tmp_path / name, trials=12, **options, **EVOLUTION)
        ended = whisperfit(*arguments, "--json")
        assert ended.code in {0, 3}, ended.err
        tables.append({row["recipe_id"]: row for row in rows(tmp_path / name / "trials.csv")})
    alone, together = tables
    scored = [one for one in alone.keys() & together.keys() if alone[one]["wer"] and together[one]["wer"]]
    assert scored
    assert all(alone[one]["language_accuracy"] for one in scored)
    for one in scored:
        names = [
            name
            for name in alone[one]
            if name.startswith(("wer", "divergence", "insert", "delet", "subst", "language"))
        ]
        assert [alone[one][name] for name in names] == [together[one][name] for name in names]
