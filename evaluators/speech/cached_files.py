"""Files of the cache folder: each may be missing, cut off or damaged, and is then made again."""

import zlib
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import TypeVar
from zipfile import BadZipFile

Content = TypeVar("Content")

_DAMAGE = (
    ArithmeticError,
    AttributeError,
    BadZipFile,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TokenError,
    TypeError,
    ValueError,
    zlib.error,
)
"""What numpy and json raise for files that they cannot read, found by feeding them thousands of broken ones."""


def read_cached(file: Path, read: Callable[[Path], Content]) -> Content | None:
    """What `read` makes of the file; None when there is none or it is damaged.

    `read` raises an error of any common kind, such as ValueError, when the content is not what it should be.
    """
    try:
        return read(file)
    except _DAMAGE:
        return None
