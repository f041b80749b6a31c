"""Workers on this machine: processes of this program, started, watched and ended by the run."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from common.errors import InputError
from runtime.cores import usable_cores
from search.configuration.options import LogFormat
from search.configuration.study_address import StudyAddress
from search.workers.presence import PARENT

MOST_RESTARTS = 20
"""Of one worker, after which something is wrong that another start does not put right."""
END_S = 30.0
"""What a worker that is asked to end may take for what it is doing."""
Say = Callable[[str], None]


def threads_of_each(threads: int | None, workers: int) -> int:
    """How many threads each of so many workers computes with, so that they do not fight for cores."""
    return max(1, (threads or usable_cores()) // workers)


def check_memory(workers: int, each_mb: float, cached_mb: float, available_mb: float | None, say: Say) -> None:
    """Raise InputError where so many workers would need more memory than there is.

    Say so where they could come to need it: each keeps up to `cached_mb` of outputs of encoders.
    """
    if available_mb is None or workers * (each_mb + cached_mb) <= available_mb:
        return
    free = f"{available_mb / 1000:.1f} GB are free"
    if workers * each_mb > available_mb:
        raise InputError(
            f"--workers {workers}: each needs about {each_mb / 1000:.1f} GB of memory, as this process does, and "
            f"{free}: ask for {max(1, int(available_mb // each_mb))}, or free some"
        )
    say(f"Note: {workers} workers may come to need {(each_mb + cached_mb) / 1000:.1f} GB of memory each, and {free}")


class LocalWorkers:
    """So many worker processes of one study; each writes a log of its own into the folder."""

    def __init__(  # noqa: PLR0913 - what they are started with
        self,
        address: StudyAddress,
        computes: Sequence[str],
        *,
        threads: int,
        log_format: LogFormat,
        folder: Path,
        say: Say,
    ) -> None:
        """`computes`: where each of them computes."""
        self._command = [
            *(sys.executable, "-m", "search", "worker"),
            *("--storage", address.storage, "--study", address.name, "--threads", str(threads)),
            *("--log-format", log_format),
        ]
        self._computes = computes
        self._folder = folder
        self._say = say
        self._starts = [0] * len(computes)
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * len(computes)

    @contextmanager
    def running(self) -> Iterator["LocalWorkers"]:
        """Start them, and end them with the block."""
        self._folder.mkdir(exist_ok=True)
        with ExitStack() as stack:
            stack.callback(self._end)
            self.look_after()
            yield self

    def look_after(self) -> None:
        """Start what does not run, again where it has died. Raises InputError where that has happened too often."""
        for index, process in enumerate(self._processes):
            code = process.poll() if process else None
            if process and code is None:
                continue
            log = self._log(index)
            if process and self._starts[index] > MOST_RESTARTS:
                raise InputError(f"worker {index + 1} has ended {MOST_RESTARTS} times; see {log}")
            if process:
                self._say(f"Worker {index + 1} has ended ({_reason(code)}; see {log}) and is started again")
            self._start(index)

    def _start(self, index: int) -> None:
        self._starts[index] += 1
        with self._log(index).open("ab") as log:  # a session of its own: Ctrl-C is for the run to answer
            self._processes[index] = subprocess.Popen(
                [*self._command, "--compute", self._computes[index]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, PARENT: str(os.getpid())},
            )

    def _log(self, index: int) -> Path:
        return self._folder / f"worker-{index + 1}.log"

    def _end(self) -> None:
        alive = [process for process in self._processes if process and process.poll() is None]
        for process in alive:
            process.terminate()
        for process in alive:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _reason(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
