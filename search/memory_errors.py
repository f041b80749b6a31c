"""Memory that is not there, as torch, numpy and the system tell it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import EvaluationError

_WORDS = ("can't allocate memory", "DefaultCPUAllocator", "out of memory", "not enough memory", "bad_alloc")
"""Of torch's RuntimeErrors, by any of which it tells it."""


class MemoryShortageError(EvaluationError):
    """What was to be computed needs more memory than there is now."""


@contextmanager
def telling_memory_shortage() -> Iterator[None]:
    """Raise MemoryShortageError for every error in the block that says that memory is short."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not _is_shortage(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MemoryShortageError(f"not enough memory ({reason or type(error).__name__})") from None


def _is_shortage(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(word in str(error) for word in _WORDS)
