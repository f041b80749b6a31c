"""How NNI's processes reach the search: one line of JSON each way over a Unix socket, in a folder of this user alone.

What calls is NNI's tuner, which asks what to try next, and one process for each of NNI's trials, which asks what its
parameters are worth. Nothing here imports torch or NNI.
"""

import json
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from common.errors import InputError

_BACKLOG = 8
_READING_S = 10.0
"""What calls sends its line at once."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A process of NNI's that waits for its answer."""

    message: dict[str, Any]
    connection: socket.socket

    def answer(self, reply: dict[str, Any]) -> None:
        """Let it go on; one that died meanwhile needs no answer."""
        with suppress(OSError):
            self.connection.sendall(_line(reply))
        self.hang_up()

    def hang_up(self) -> None:
        """Without an answer: the process ends."""
        self.connection.close()


class Calls:
    """The search's end."""

    def __init__(self) -> None:
        """Raises InputError where the system's folder for temporary files cannot hold a socket."""
        self._folder = mkdtemp(prefix="whisperfit-nni-")
        self.address = str(Path(self._folder) / "socket")
        self._listening = socket.socket(socket.AF_UNIX)
        try:
            self._listening.bind(self.address)
        except OSError as error:
            self.close()
            raise InputError(f"no socket at {self.address} ({error}): set TMPDIR to a short local path") from error
        self._listening.listen(_BACKLOG)

    def wait(self, seconds: float) -> Caller | None:
        """The next caller; None if there is none for so long, or it died before it had said anything."""
        self._listening.settimeout(seconds)
        try:
            connection, _ = self._listening.accept()
        except TimeoutError:
            return None
        connection.settimeout(_READING_S)
        try:
            return Caller(message=_read(connection), connection=connection)
        except (ConnectionError, TimeoutError):
            connection.close()
            return None

    def close(self) -> None:
        """Who waits, and who calls from now on, gets a ConnectionError."""
        self._listening.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def call(address: str, message: dict[str, Any]) -> dict[str, Any]:
    """Tell the search, and wait for its answer, however long that takes.

    Raises ConnectionError when the search has ended, or hung up.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except FileNotFoundError as error:
            raise ConnectionError(f"{address}: the search has ended") from error
        connection.sendall(_line(message))
        return _read(connection)


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _read(connection: socket.socket) -> dict[str, Any]:
    with connection.makefile("r", encoding="utf-8") as lines:
        line = lines.readline()
    if not line:
        raise ConnectionError("the other side has ended")
    message: dict[str, Any] = json.loads(line)
    return message
