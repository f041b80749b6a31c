"""Several artifacts for ONNX Runtime in one folder, files that are equal stored once: what `runtime.bundle` reads."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import FULL, InputError
from common.parsing import parse_json
from compression.export.manifest import MANIFEST

BUNDLE = "bundle.json"
BUNDLE_VERSION = 1
FEWEST, MOST = 2, 4
TOGETHER = {"encoder.onnx": "encoder.onnx.data", "decoder.onnx": "decoder.onnx.data"}
"""A graph and its weights are only shared together: ONNX Runtime looks for weights beside the graph."""


@contextmanager
def bundle_folder(out: Path) -> Iterator[Path]:
    """An empty folder, which becomes `out` at the end; a bundle that is there already is replaced.

    Raises InputError when the folder cannot be written or holds something else, OSError on a full disk.
    """
    if out.exists() and not (out / BUNDLE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: exists and is no bundle; give a new or an empty folder")
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


def complete_bundle(folder: Path, points: Sequence[str]) -> int:
    """Keep each file of the artifacts `folder`/POINT once, the most accurate point first. Returns the bytes saved."""
    owners: dict[tuple[str, ...], str] = {}
    saved = 0
    for point in points:
        manifest_file = folder / point / MANIFEST
        manifest: dict[str, Any] = parse_json(manifest_file.read_text(encoding="utf-8"))
        files = manifest["files"]
        for unit in _units(files):
            owner = owners.setdefault(tuple(f"{name} {files[name]['sha256']}" for name in unit), point)
            if owner != point:
                for name in unit:
                    files[name]["in"] = owner
                    (folder / point / name).unlink()
                    saved += files[name]["bytes"]
        manifest_file.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    values = {"format_version": BUNDLE_VERSION, "points": list(points)}
    (folder / BUNDLE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return saved


def _units(files: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Files that are shared together."""
    weights = set(TOGETHER.values())
    for name in files:
        if name in TOGETHER and TOGETHER[name] in files:
            yield name, TOGETHER[name]
        elif name not in weights:
            yield (name,)
