"""Folders that appear under their name when they are complete."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import FULL, InputError


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """An empty folder, which takes the place of `out` at the end, if nothing was raised.

    Raises InputError when it cannot be written, OSError on a full disk.
    """
    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_replaceable(out: Path, mark: str, what: str) -> None:
    """Raise InputError unless `out` is free, an empty folder or holds the file `mark`, by which `what` is known."""
    if not out.exists() or (out / mark).is_file():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise InputError(f"--out {out}: exists and is no {what}; give a new or an empty folder")
