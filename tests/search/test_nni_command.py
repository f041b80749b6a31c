"""`search --engine nni` from end to end: a real NNI experiment, its portal, its processes."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from search.engines.nni_engine import genes_of
from search.records.folder import RunFolder
from search.records.study_store import StudyStore
from search.session import reopen_session
from tests.search.commands import (  # noqa: F401
    COMMAND,
    files,
    interruptible,
    refused,
    rows,
    search_arguments,
    settled,
    wait_for_rows,
    whisperfit,
)
from tests.search.engines.nni_threads import needs_nni

pytestmark = [
    needs_nni,
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    # NNI's look at its port
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
TRIALS = 6
"""Four that every search begins with, and two of NNI's tuner."""
PATIENCE_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A run that was stopped in NNI's portal: what that said before, and the command afterwards."""

    out: Path
    port: int
    page: str
    status: str
    jobs: list[dict[str, Any]]
    code: int
    printed: str


def ask(port: int, path: str, *, method: str = "GET") -> str:
    with urlopen(Request(f"http://localhost:{port}{path}", method=method), timeout=20) as answer:
        text: str = answer.read().decode("utf-8")
        return text


def reported(port: int, count: int) -> list[dict[str, Any]]:
    """NNI's trials when so many have a result, in their order."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        jobs = json.loads(ask(port, "/api/v1/nni/trial-jobs"))
        if sum("finalMetricData" in job for job in jobs) >= count:
            return sorted(jobs, key=lambda job: int(job["sequenceId"]))
        time.sleep(0.1)
    raise AssertionError(jobs)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where NNI keeps a list of its experiments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def stopped(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    out, port = tmp_path_factory.mktemp("runs") / "run", free_port()
    with session(search_arguments(files, out, engine="nni", nni_port=port, trials=500)) as process:
        wait_for_each(process, out / "trials.csv", TRIALS)
        page, status = ask(port, "/"), json.loads(ask(port, "/api/v1/nni/check-status"))["status"]
        jobs = reported(port, TRIALS)
        ask(port, "/api/v1/nni/experiment", method="DELETE")
        shown, printed = (text.decode() for text in process.communicate(timeout=PATIENCE_S))
        wait_until_nobody_is_in(process.pid)
    assert not shown, "stdout is for --json"
    return Stopped(out=out, port=port, page=page, status=status, jobs=jobs, code=process.returncode, printed=printed)


def test_the_portal_answers_while_the_search_runs_and_not_afterwards(stopped):
    assert "<title>Neural Network Intelligence</title>" in stopped.page
    assert stopped.status == "RUNNING"
    assert f"NNI's portal, while the run goes on: http://localhost:{stopped.port}\n" in stopped.printed
    with pytest.raises(OSError, match="refused"):
        ask(stopped.port, "/")


def test_the_portals_trials_are_those_of_the_csv(stopped):
    """The same number, the same genes, the same values; what NNI minimises is its metric."""
    space = reopen_session(RunFolder(stopped.out), print).space
    in_csv, trials = rows(stopped.out / "trials.csv"), StudyStore(stopped.out / "study.db").trials()
    jobs = [job for job in stopped.jobs if "finalMetricData" in job]
    assert len(jobs) >= TRIALS
    for job, row, trial in zip(jobs, in_csv, trials, strict=False):
        parameters = json.loads(job["hyperParameters"][0])["parameters"]
        assert space.decode(genes_of(parameters, space)).id == row["recipe_id"]
        [final] = job["finalMetricData"]
        shown = json.loads(json.loads(final["data"]))
        assert job["sequenceId"] == shown["number"] == int(row["trial"])
        for name in ("objective", "size_mb", "wer"):
            assert shown.get(name) == (pytest.approx(float(row[name]), rel=1e-6) if row[name] else None)
        over = sum(violation for violation in trial.violations.values() if violation > 0)
        assert shown["default"] == pytest.approx(trial.objective if trial.feasible else trials[0].objective + over)
    assert genes_of(json.loads(jobs[0]["hyperParameters"][0])["parameters"], space) == space.default_genes


def test_a_busy_port_and_a_sampler_that_nni_lacks_are_one_line(files, tmp_path, whisperfit):
    with socket.create_server(("localhost", 0)) as busy:
        port = busy.getsockname()[1]
        arguments = search_arguments(files, tmp_path / "run", engine="nni", nni_port=port)
        refused(whisperfit(*arguments), f"--nni-port {port}", "another program has this port; give a free one")
    arguments = search_arguments(files, tmp_path / "run", engine="nni", sampler="nsga2")
    refused(whisperfit(*arguments), "--sampler nsga2: --engine nni has tpe, evolution, random, grid")
    assert not (tmp_path / "run").exists()


def test_an_end_from_outside_loses_nothing_and_leaves_no_process(stopped):
    """The portal's button, then kill -9, then Ctrl-C as a terminal sends it; each time the run goes on."""
    last = stopped.printed.splitlines()[-1]
    assert stopped.code == 2
    assert last.startswith("whisperfit: NNI's experiment does not go on (it is ")
    assert last.endswith(f"then whisperfit resume {stopped.out}")
    before = rows(stopped.out / "trials.csv")
    for end, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        with session(["resume", str(stopped.out)]) as process:
            wait_for_each(process, stopped.out / "trials.csv", len(before) + 2)
            to_process = os.kill if end == signal.SIGKILL else os.killpg
            to_process(process.pid, end)
            printed = process.communicate(timeout=PATIENCE_S)[1].decode()
            assert process.returncode == code, printed
            wait_until_nobody_is_in(process.pid)
        after = rows(stopped.out / "trials.csv")
        assert [settled(row) for row in after[: len(before)]] == [settled(row) for row in before]
        assert len({row["recipe_id"] for row in after}) == len(after) >= len(before) + 2
        before = after
    assert printed.splitlines()[-1] == f"Interrupted; go on with: whisperfit resume {stopped.out}"


def wait_for_each(process: subprocess.Popen[bytes], file: Path, count: int) -> None:
    """For so many rows, with patience for each."""
    for there in range(1, count + 1):
        wait_for_rows(process, file, there)


@contextmanager
def session(arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A session of its own, in which all that it starts stays."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        yield process


def wait_until_nobody_is_in(session_id: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while found := list(members(session_id)):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def members(session_id: int) -> Iterator[str]:
    """Command lines of a session's processes, but for those that nobody has waited for yet."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session_id and state != "Z":
                yield (folder / "cmdline").read_text().replace("\0", " ")
