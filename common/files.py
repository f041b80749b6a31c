"""Whole-file writes that survive a kill, and digests."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from platformdirs import user_cache_path

from common.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` in one step, when the block ends without an error.

    A reader or a killed process sees the old or the new file. Raises OSError (full disk, read-only folder); the
    old file is then untouched.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text_whole(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step (see `whole_file`), on the disk before this returns."""
    with whole_file(path) as handle:
        handle.write(text.encode())
        handle.flush()
        os.fsync(handle.fileno())


def sha256_of_text(text: str) -> str:
    """Hexadecimal SHA-256 of the UTF-8 text."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of the file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def expanded(path: Path) -> Path:
    """The path with a leading `~` replaced. Raises InputError where nobody knows that home folder."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InputError(f"{path}: no such home folder is known; write the whole path") from error


def cache_folder(kind: str) -> Path:
    """The folder for regenerable data of one kind (mel features, calibration).

    It lies under $WHISPERFIT_CACHE, else in the system's folder for caches: $XDG_CACHE_HOME/whisperfit, else
    ~/.cache/whisperfit. Everything in it may be deleted at any time between runs. Raises InputError when it cannot be
    made.
    """
    root = os.environ.get("WHISPERFIT_CACHE")
    try:
        folder = (Path(root) if root else user_cache_path("whisperfit", appauthor=False)) / kind
    except RuntimeError as error:  # platformdirs'
        raise InputError(
            "no folder for the cache: this user has no home folder; name one in WHISPERFIT_CACHE"
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"the cache {folder} cannot be made ({error.strerror})"
        raise InputError(f"{reason}: name another folder in WHISPERFIT_CACHE") from error
    return folder
