"""The error tree. The command line prints any of these as one line and exits with code 2.

WhisperfitError
├── InputError            what the user gave cannot be used: a flag, a file, a manifest, a checkpoint
│   └── UnknownNameError  a name that is not known, with the nearest known one
├── CompressionError      a valid recipe cannot be applied to this model
└── EvaluationError       a compressed model cannot be scored (non-finite logits, for example)

A trial that ends in CompressionError or EvaluationError is recorded as failed; the run goes on.
"""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from reprlib import repr as shortened

INTERRUPTED_EXIT = 130
"""The exit code after Ctrl-C, as shells have it."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Numbers of the OSErrors of a disk, a quota or a file that takes no more."""


class WhisperfitError(Exception):
    """Root of every error that whisperfit raises on purpose."""


class InputError(WhisperfitError):
    """What the user gave cannot be used; the message says what was asked, what exists and what to do."""


class UnknownNameError(InputError):
    """A name that is not among the known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = get_close_matches(name, names, n=1)
        suggestion = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"unknown {kind} {name!r}.{suggestion} Known: {', '.join(names)}")


class CompressionError(WhisperfitError):
    """A valid recipe cannot be applied to this model."""


class EvaluationError(WhisperfitError):
    """A compressed model cannot be scored."""


def require(holds: bool, rule: str, value: object) -> None:
    """Raise InputError, with what of the value fits into a line, unless the rule holds."""
    if not holds:
        raise InputError(f"{rule} must hold, but got {shortened(value)}")


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Let an InputError say where it arose: `place: message`."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
