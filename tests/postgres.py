"""A PostgreSQL server of the tests' own, from the system's binaries; what wants one is skipped where there are none."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

USER, PASSWORD = "whisperfit", "correct horse battery"
NONE_HERE = "needs PostgreSQL's initdb and postgres: apt-get install postgresql"


def binaries() -> Path | None:
    """The folder of initdb and postgres: in the path, or Debian's newest."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: float(file.parts[-3]))
    return versions[-1].parent if versions else None


def _as_another() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


@dataclass
class Postgres:
    """A server in a folder, which can be killed and started again. The password is in the environment only."""

    folder: Path
    binaries: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def storage(self) -> str:
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        command = [
            *_as_another(), str(self.binaries / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port),
            "-k", str(self.folder), "-c", "listen_addresses=127.0.0.1",
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(
                    host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres"
                ).close()
            except psycopg.OperationalError:
                assert time.monotonic() < until, (self.folder / "log").read_text(encoding="utf-8")
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """As the kernel does it: the server and all that serve its connections."""
        pid = int((self.folder / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
        subprocess.run(["kill", "-9", str(pid), *children], check=False)
        if self._process:
            self._process.wait()

    @contextmanager
    def running(self) -> Iterator["Postgres"]:
        self.start()
        try:
            yield self
        finally:
            self.kill()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A new server with an empty database `postgres`; its password is in PGPASSWORD while the tests last."""
    found = binaries()
    if found is None or (_as_another() and shutil.which("runuser") is None):
        pytest.skip(NONE_HERE)
    folder = Path(tempfile.mkdtemp(prefix="whisperfit-postgres-"))
    (folder / "password").write_text(PASSWORD, encoding="utf-8")
    if _as_another():
        shutil.chown(folder, "postgres")
        shutil.chown(folder / "password", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run(
        [
            *_as_another(), str(found / "initdb"), "-D", str(folder / "data"), "-U", USER, "-A", "scram-sha-256",
            "--pwfile", str(folder / "password"), "--no-sync",
        ],
        check=True,
        capture_output=True,
        cwd="/",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, Postgres(folder, found, port).running() as server:
        patch.setenv("PGPASSWORD", PASSWORD)
        yield server
    shutil.rmtree(folder, ignore_errors=True)
