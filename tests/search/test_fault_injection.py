"""Faults at random moments of small searches: what was measured is still there, and every run comes to its end.

    WHISPERFIT_SLOW=1 WHISPERFIT_FAULTS=200 WHISPERFIT_FAULT_SEED=1 pytest tests/search/test_fault_injection.py

Each search has two workers, in SQLite or in PostgreSQL. It gets one fault while it measures; a run that ends by it goes
on by the command that it printed, or by `resume` where it could print nothing.
"""

# ruff: noqa: F811 - the fixtures of the command line's tests

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.postgres import Postgres, postgres  # noqa: F401
from tests.proxy import Proxy
from tests.search.commands import COMMAND, files, interruptible, rows, search_arguments  # noqa: F401
from tests.search.test_worker_command import EVOLUTION, each_once, measured

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")]
FAULTS = int(os.environ.get("WHISPERFIT_FAULTS", "12"))
SEED = int(os.environ.get("WHISPERFIT_FAULT_SEED", "0"))
TRIALS = 20


class Search:
    """A search in a process of its own, with its workers. `server`: None where its study is in SQLite.

    `printed`: the file of what it prints. `proxy`: between the server and what speaks with it.
    """

    def __init__(
        self,
        files: Path,
        out: Path,
        printed: Path,
        rng: random.Random,
        *,
        server: Postgres | None,
        proxy: Proxy | None,
    ) -> None:
        self.files, self.out, self.rng, self.server, self.proxy = files, out, rng, server, proxy
        self._printed = printed
        storage = {}
        if server and proxy:
            address = server.storage.replace(f":{server.port}/", f":{proxy.port}/")
            storage = {"storage": address, "study": printed.parent.name}
        self.command = search_arguments(files, out, trials=TRIALS, workers=2, **storage, **EVOLUTION)
        self.process = self._started(self.command)

    def _started(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        with self._printed.open("ab") as printed:
            return subprocess.Popen([*COMMAND, *arguments], stdout=printed, stderr=printed, stdin=subprocess.DEVNULL)

    @property
    def printed(self) -> str:
        return self._printed.read_text(encoding="utf-8")

    @property
    def trials(self) -> list[dict[str, str]]:
        file = self.out / "trials.csv"
        return rows(file) if file.exists() else []

    @property
    def workers(self) -> list[int]:
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, check=False).stdout
        return [int(pid) for pid in children.split()]

    def resume(self) -> None:
        """By the command that it printed last, if it came to print one."""
        found = re.findall(r"whisperfit (resume \S+)", self.printed)
        assert not found or found[-1] == f"resume {self.out}"
        self.process = self._started(["resume", str(self.out)])

    def to_its_end(self) -> None:
        for _ in range(5):
            if self.process.wait(600) == 0:
                return
            assert "Traceback" not in self.printed, self.printed
            time.sleep(0.5)
            self.resume()
        raise AssertionError(self.printed)


def kill_worker(search: Search) -> None:
    os.kill(search.rng.choice(search.workers), signal.SIGKILL)


def kill_leader(search: Search) -> None:
    search.process.kill()


def kill_all(search: Search) -> None:
    for pid in (*search.workers, search.process.pid):
        os.kill(pid, signal.SIGKILL)


def interrupt_leader(search: Search) -> None:
    search.process.send_signal(search.rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))


def kill_database(search: Search) -> None:
    if search.server is None:
        kill_leader(search)
        return
    search.server.kill()
    time.sleep(search.rng.uniform(0.0, 3.0))
    search.server.start()


def truncate_results(search: Search) -> None:
    for name in ("trials.csv", "pareto.csv"):
        file = search.out / name
        if file.exists():
            os.truncate(file, search.rng.randrange(file.stat().st_size + 1))


def truncate_cache(search: Search) -> None:
    kept = [file for file in (search.files / "cache").rglob("*") if file.is_file() and file.stat().st_size]
    for file in search.rng.sample(kept, min(3, len(kept))):
        os.truncate(file, search.rng.randrange(file.stat().st_size))


def halt_worker(search: Search) -> None:
    """As a machine that sleeps."""
    pid = search.rng.choice(search.workers)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(search.rng.uniform(1.0, 5.0))
    os.kill(pid, signal.SIGCONT)


def hang_worker(search: Search) -> None:
    """It never goes on: its lease runs out."""
    os.kill(search.rng.choice(search.workers), signal.SIGSTOP)


def cut_connections(search: Search) -> None:
    """Several times, shortly after each other."""
    if search.proxy is None:
        kill_worker(search)
        return
    for _ in range(search.rng.randrange(1, 4)):
        search.proxy.cut()
        time.sleep(search.rng.uniform(0.0, 1.0))


def limit_memory(search: Search) -> None:
    """No worker that there is now gets any more."""
    for pid in search.workers:
        [line] = re.findall(r"VmSize:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
        limits = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (1024 * int(line), limits[1]))


def fill_disk(search: Search) -> None:
    """The run's own; there is room again when it has ended, or has done without for a while."""
    filling = search.out.parent / "filling"
    with suppress(OSError), filling.open("wb", buffering=0) as handle:
        while True:
            handle.write(bytes(1 << 12))
    with suppress(subprocess.TimeoutExpired):
        search.process.wait(search.rng.uniform(5.0, 60.0))
    filling.unlink()


KINDS: list[Callable[[Search], None]] = [
    kill_worker, kill_leader, kill_all, interrupt_leader, kill_database, truncate_results, truncate_cache, halt_worker,
    hang_worker, cut_connections, limit_memory, fill_disk,
]  # fmt: skip


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one of the test's own; a folder where nobody may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    is_own = subprocess.run(mounting, capture_output=True, check=False).returncode == 0
    yield folder
    if is_own:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("number", range(FAULTS))
def test_nothing_measured_is_lost_and_nothing_is_stuck(number, files, tmp_path, disk, postgres):
    rng = random.Random(1000 * SEED + number)
    fault, server = KINDS[number % len(KINDS)], rng.choice([None, postgres])
    if fault is fill_disk and not disk.is_mount():
        pytest.skip("nobody may mount a disk here")
    with Proxy(postgres.port).running() as proxy:
        search = Search(files, disk / "run", tmp_path / "printed", rng, server=server, proxy=server and proxy)
        end_with(search, fault)


def end_with(search: Search, fault: Callable[[Search], None]) -> None:
    """Let it have its fault when some recipes are measured, and see it through."""
    rng = search.rng
    wanted, deadline = rng.randrange(1, TRIALS - 5), time.monotonic() + 300
    while len(search.trials) < wanted:
        assert search.process.poll() is None, search.printed
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 0.5))
    before = search.trials
    fault(search)
    search.to_its_end()
    after = search.trials
    assert {measured(row) for row in before} <= {measured(row) for row in after}
    assert each_once(after)
    assert sum(row["state"] != "rejected" for row in after) >= TRIALS
    assert not [row["note"] for row in after if row["state"] == "failed"]
    shutil.rmtree(search.out / "models", ignore_errors=True)
