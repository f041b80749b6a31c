"""`--on-end`: a command of the user's that is told how a run ended, so that nobody has to look."""

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import WhisperfitError

TIMEOUT_S = 60.0
"""For the command; a mail server or a chat may be slow."""
Say = Callable[[str], None]


def run_on_end(command: str | None, values: dict[str, Any], say: Say) -> None:
    """Run the command, without a shell, with the values as one JSON object on its stdin.

    What goes wrong with it is a line: the run has ended as it has.
    """
    if command is None:
        return
    text = json.dumps(values)
    try:
        done = subprocess.run(
            shlex.split(command), input=text, text=True, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"Note: --on-end {command}: {error}")
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        say(f"Note: --on-end {command} ended with exit code {done.returncode}: {last}")


@contextmanager
def telling_errors(command: str | None, folder: Path, say: Say) -> Iterator[None]:
    """Tell the command of an error that ends the run, which goes on its way."""
    try:
        yield
    except WhisperfitError as error:
        run_on_end(command, {"run": str(folder), "error": str(error)}, say)
        raise
