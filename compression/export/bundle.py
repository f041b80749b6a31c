"""Several artifacts for ONNX Runtime in one folder, files that are equal stored once: what `runtime.bundle` reads."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.parsing import parse_json
from compression.export.manifest import MANIFEST

BUNDLE = "bundle.json"
BUNDLE_VERSION = 1
FEWEST, MOST = 2, 4
TOGETHER = {"encoder.onnx": "encoder.onnx.data", "decoder.onnx": "decoder.onnx.data"}
"""A graph and its weights are only shared together: ONNX Runtime looks for weights beside the graph."""


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
