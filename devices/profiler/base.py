"""What every way of reaching a device has in common: commands, files, a working folder, a first test.

A command is run by the device's `sh`, which then prints its exit code as a last line of stdout. So a link that drops is
told from a program that ends, whatever exit code ssh or adb make of it, and output is known to be whole.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from common.errors import InputError

OLDEST_PYTHON = (3, 9)
"""What the programs in `devices/profiler/board` are written for."""
ANSWER_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 600.0
CLOSE_TIMEOUT_S = 20.0
HELP = "see docs/profiling.md"
_NAME_PYTHON = f"name one by adding ?python=/path/to/python3 to the host; {HELP}"

_END = "whisperfit-exit"
_END_LINE = re.compile(rf"{_END} (\d+)\r?\n?$")
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
"""Exit codes of POSIX `sh`."""

# for any Python, even 2.7: what is too old must be able to say so
_PROBE = """
import json, os, platform
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
found = {"python": platform.python_version(), "machine": platform.machine()}
for name in ("numpy", "onnxruntime"):
    try:
        found[name] = __import__(name).__version__
    except Exception as error:
        found[name + "_error"] = str(error) or type(error).__name__
print(json.dumps(found))
"""


class ConnectionLostError(InputError):
    """The device was reached, and then no longer. What was printed until then was delivered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletedRun:
    """A command that ended: what it printed, and its exit code."""

    stdout: str
    stderr: str
    code: int

    @property
    def last_error(self) -> str:
        """The last line of stderr, which names the error in most programs; "" if there is none."""
        return last_line(self.stderr)


@dataclass(frozen=True, kw_only=True, slots=True)
class DevicePython:
    """The Python of a device that can measure. `machine` is the architecture, such as `aarch64`."""

    python_version: str
    onnxruntime_version: str
    numpy_version: str
    machine: str


class Connection(ABC):
    """A device that commands can be run on. Use it as a context manager: the working folder is removed at the end."""

    def __init__(self, *, host: str, python: str) -> None:
        """`host` is what the user wrote; `python` the interpreter on the device: a path, or a name on its PATH."""
        self.host = host
        self.python = python
        self._folder: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def test(self) -> DevicePython:
        """Say what the device's Python is.

        Raises InputError in one line when the device cannot be reached, or lacks what measuring needs.
        """
        self._reach()
        done = self.run([self.python, "-c", _PROBE], timeout_s=ANSWER_TIMEOUT_S)
        if done.code in (_NOT_EXECUTABLE, _NOT_FOUND):
            raise InputError(f"{self.host}: no Python at {self.python!r} there; {_NAME_PYTHON}")
        try:
            found: dict[str, str] = json.loads(last_line(done.stdout))
        except ValueError:
            raise InputError(
                f"{self.host}: {self.python} fails there with exit code {done.code}: {done.last_error or 'no message'}"
            ) from None
        return self._checked(found)

    def run(
        self, arguments: Sequence[str], *, stdin: IO[bytes] | None = None, timeout_s: float = RUN_TIMEOUT_S
    ) -> CompletedRun:
        """Run a command to its end, whatever its exit code.

        Raises ConnectionLostError when the link fails or nothing ends within `timeout_s`.
        """
        done = self._run_here(self._command(_with_end(arguments)), stdin=stdin, timeout_s=timeout_s)
        output, code = _split_end(done.stdout)
        if code is None:
            raise ConnectionLostError(self._why_lost(done.stderr))
        return CompletedRun(stdout=output, stderr=done.stderr, code=code)

    def stream(self, arguments: Sequence[str], *, stdin: IO[bytes] | None = None) -> Iterator[str]:
        """The lines that a command prints on stdout, without their ends, each as soon as it is there.

        Raises, after the last whole line that came, InputError with the last line of stderr when the command fails, and
        ConnectionLostError when the link does. When the iterator is closed early, a local command is killed; one on
        another device ends by a broken pipe when it next prints.
        """
        command = self._command(_with_end(arguments))
        with tempfile.TemporaryFile() as errors, _start(command, stdin=stdin, stderr=errors) as process:
            try:
                code = yield from _lines_until_end(process)
            finally:
                _end(process)
            errors.seek(0)
            message = errors.read().decode(errors="replace")
        if code is None:
            raise ConnectionLostError(self._why_lost(message))
        if code:
            program = " ".join(arguments[:2])
            raise InputError(
                f"{self.host}: {program} ended with exit code {code}: {last_line(message) or 'no message'}"
            )

    @abstractmethod
    def put(self, local: Path, remote: str) -> None:
        """Copy a file or a folder to the path `remote`, which does not exist yet; its parent does.

        Raises InputError when it cannot be written, such as on a full disk.
        """

    def folder(self) -> str:
        """The working folder on the device, made at the first call."""
        if self._folder is None:
            done = self.run(["sh", "-c", f'mktemp -d "{self._scratch()}/whisperfit.XXXXXX"'])
            if done.code:
                raise InputError(f"{self.host}: no working folder could be made: {done.last_error}")
            self._folder = last_line(done.stdout)
        return self._folder

    def close(self) -> None:
        """Remove the working folder. It stays behind, named `whisperfit.*`, when the link is gone."""
        if self._folder is not None:
            with suppress(ConnectionLostError):
                self.run(["rm", "-rf", self._folder], timeout_s=CLOSE_TIMEOUT_S)
            self._folder = None

    @abstractmethod
    def _command(self, script: str) -> list[str]:
        """The command of this machine that has the device's shell run `script`."""

    def _reach(self) -> None:  # noqa: B027 (nothing stands between this machine and itself)
        """Raise InputError when it is clear, without asking the device, that it cannot be reached."""

    @abstractmethod
    def _scratch(self) -> str:
        """Where the working folder is made; the device's shell expands variables in it."""

    def _run_here(self, command: Sequence[str], *, stdin: IO[bytes] | None = None, timeout_s: float) -> CompletedRun:
        """Run a program of this machine. Raises ConnectionLostError when it does not end within `timeout_s`."""
        with _start(command, stdin=stdin) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                raise ConnectionLostError(f"{self.host}: no answer within {timeout_s:g} s") from None
            finally:
                _end(process)
        return CompletedRun(stdout=stdout, stderr=stderr, code=process.returncode)

    def _why_lost(self, stderr: str) -> str:
        return f"{self.host}: no connection: {last_line(stderr) or 'no message'}"

    def _checked(self, found: dict[str, str]) -> DevicePython:
        """Raise InputError unless Python is new enough and has its two packages."""
        version = tuple(int(part) for part in found["python"].split(".")[:2])
        if version < OLDEST_PYTHON:
            raise InputError(
                f"{self.host}: {self.python} is Python {found['python']}, but 3.9 or later is needed; {_NAME_PYTHON}"
            )
        for name in ("numpy", "onnxruntime"):
            if name not in found:
                raise InputError(
                    f"{self.host}: {self.python} cannot load {name}: {last_line(found[f'{name}_error'])};"
                    f" install it there with `{self.python} -m pip install onnxruntime`; {HELP}"
                )
        return DevicePython(
            python_version=found["python"],
            onnxruntime_version=found["onnxruntime"],
            numpy_version=found["numpy"],
            machine=found["machine"],
        )


def last_line(text: str) -> str:
    """The last line that is not blank, or ""."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def _with_end(arguments: Sequence[str]) -> str:
    """Shell text that runs the command and then prints its exit code."""
    return f"{shlex.join(arguments)}; echo {_END} $?"


def _split_end(output: str) -> tuple[str, int | None]:
    """What a command printed, and its exit code: None if its end never came."""
    end = _END_LINE.search(output)
    return (output, None) if end is None else (output[: end.start()], int(end.group(1)))


def _start(
    command: Sequence[str], *, stdin: IO[bytes] | None, stderr: IO[bytes] | int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """A program of this machine in a session of its own, so that Ctrl-C reaches only us."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def _lines_until_end(process: subprocess.Popen[str]) -> Generator[str, None, int | None]:
    """Yield whole lines; return the command's exit code, None if its end never came."""
    line = ""
    for line in process.stdout or ():
        if line.endswith("\n") and not _END_LINE.search(line):
            yield line.rstrip("\r\n")
    with suppress(subprocess.TimeoutExpired):
        process.wait(CLOSE_TIMEOUT_S)
    unfinished, code = _split_end(line)
    if code == 0 and unfinished:
        yield unfinished
    return code


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the process and what it started, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
