"""Runs `whisperfit` commands in children of a process that has imported everything: an import takes seconds.

A line of JSON a command on stdin: its arguments. A line of JSON for each on stdout: exit code (negative: the signal
that ended it), what it said on stderr, seconds, and MB that it had beyond this process.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback

import torch  # noqa: F401 - what commands import when they run
import whisper  # noqa: F401

from search.cli import main
from search.commands import (  # noqa: F401
    baseline,
    export,
    recover,
    report,
    reprice,
    search,
    status,
    transcribe,
    verify,
)

LIMIT_S = 60
"""A machine may be busy: what hangs would hang for ever."""
ADDRESS_SPACE = 24 << 30
"""More than that would be taken from the machine."""


def serve() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_run(json.loads(line))) + "\n")
        sys.stdout.flush()


def _run(arguments: list[str]) -> dict[str, object]:
    before_mb = _resident_mb()
    with tempfile.TemporaryFile() as said:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _be_the_command(arguments, said.fileno())
        _, status_, usage = os.wait4(child, 0)
        seconds = time.monotonic() - began
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    code = os.waitstatus_to_exitcode(status_)
    return {"code": code, "said": text, "seconds": seconds, "mb": usage.ru_maxrss / 1024 - before_mb}


def _be_the_command(arguments: list[str], said: int) -> None:
    os.dup2(said, 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    signal.alarm(LIMIT_S)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    sys.argv = ["whisperfit", *arguments]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:  # noqa: BLE001 - what a command lets through is what is looked for
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def _resident_mb() -> float:
    with open("/proc/self/status", encoding="utf-8") as handle:  # noqa: PTH123
        return next(int(line.split()[1]) for line in handle if line.startswith("VmRSS")) / 1024


if __name__ == "__main__":
    serve()
