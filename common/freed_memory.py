"""Memory that was freed and that the C library keeps for itself, between what is still in use.

Caches of arrays that stay for long, among others that come and go, leave glibc's heap full of holes, which can take as
much as the caches do. Giving the holes back costs milliseconds; letting it map every array by itself (its variable
MALLOC_MMAP_THRESHOLD_) makes each operation of torch slower.
"""

import ctypes
import sys
from functools import cache
from typing import Any


def give_back_freed_memory() -> None:
    """To the system. Nothing happens where the C library has no such call."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    """glibc's."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
