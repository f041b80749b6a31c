"""The `whisperfit` command. Every sub-command imports what it needs when it runs, so that --help is immediate."""

import errno
import signal
import sys

import typer

from common.errors import FULL, INTERRUPTED_EXIT, WhisperfitError
from common.signals import handling
from runtime.errors import TranscribeError
from search.cli import measuring, running, shipping  # which add their commands
from search.cli.app import app

__all__ = ["app", "main", "measuring", "running", "shipping"]

FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def main() -> None:
    """Entry point: prints errors as one line and exits 2; Ctrl-C, SIGTERM and a terminal that closes exit 130."""
    try:
        with handling(signal.default_int_handler):
            app()
    except (WhisperfitError, TranscribeError) as error:
        _tell(error)
        sys.exit(2)
    except OSError as error:
        if error.errno not in FULL | FORBIDDEN:
            raise
        reason = "the disk is full" if error.errno in FULL else "a file may not be read or written"
        _tell(f"{reason} ({error})")
        sys.exit(2)
    except SystemExit as ended:
        if isinstance(ended.__context__, typer.Exit) and ended.code == INTERRUPTED_EXIT:  # typer's way with Ctrl-C
            _tell("interrupted")
        raise


def _tell(problem: object) -> None:
    from common.log import tell

    tell(f"whisperfit: {problem}")
