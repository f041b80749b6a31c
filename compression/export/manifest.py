"""recipe.json and manifest.json: what an artifact is and was made from, with a digest of every file."""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.errors import InputError, naming
from common.files import sha256_of_file
from common.parsing import parse_json
from compression.recipe.recipe import Recipe
from compression.whisper.load import LoadedModel

FORMAT_VERSION = 1
MANIFEST, RECIPE = "manifest.json", "recipe.json"
_PACKAGES = ("whisperfit", "torch", "openai-whisper", "numpy", "onnx")


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where an artifact came from, as on the command line, to make the same network again.

    `calibration`: the speech that decided what was pruned, of which the first `calibration_utterances` were used; None
    where the recipe needs none. `language`: of that speech, where it does not say. `recovered`: the folder of the
    weights that were trained for the recipe, if any.
    """

    model: str
    calibration: str | None = None
    calibration_utterances: int = 0
    language: str | None = None
    recovered: str | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What an artifact was made from, and for."""

    target: str
    model_sha256: str
    recipe: Recipe
    sources: Sources


def write_manifest(out: Path, *, target: str, model: LoadedModel, recipe: Recipe, sources: Sources) -> None:
    """Complete the artifact in `out`. Its readers check version and target before anything else."""
    (out / RECIPE).write_text(recipe.to_json() + "\n", encoding="utf-8")
    manifest = {
        "format_version": FORMAT_VERSION,
        "target": target,
        "model": {"name": model.name, "sha256": model.digest},
        "sources": asdict(sources),
        "recipe_id": recipe.id,
        "versions": {name: version(name) for name in _PACKAGES},
        "files": {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)} for path in sorted(out.iterdir())
        },
    }
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def artifact_bytes(artifact: Path) -> int:
    """Bytes of all that belongs to an artifact: the files that its manifest lists, and the manifest."""
    manifest = artifact / MANIFEST
    listed = parse_json(manifest.read_text(encoding="utf-8"))["files"]
    return manifest.stat().st_size + sum((artifact / name).stat().st_size for name in listed)


def read_origin(artifact: Path) -> Origin:
    """Raises InputError when the folder is no artifact."""
    try:
        manifest: dict[str, Any] = parse_json((artifact / MANIFEST).read_text(encoding="utf-8"))
        with naming(str(artifact / RECIPE)):
            recipe = Recipe.from_json((artifact / RECIPE).read_text(encoding="utf-8"))
        sources = Sources(**manifest["sources"])
        return Origin(
            target=manifest["target"], model_sha256=manifest["model"]["sha256"], recipe=recipe, sources=sources
        )
    except OSError as error:
        raise InputError(f"{artifact} is no artifact ({error.strerror}); make one: whisperfit export") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{artifact / MANIFEST} is damaged ({error!r}); export the artifact again") from error
