"""The runtimes that recipes are exported to, behind one interface."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import FULL, InputError, UnknownNameError
from compression.export import ctranslate2, ggml, huggingface
from compression.export.manifest import MANIFEST, Sources, write_manifest
from compression.export.onnx_runtime import artifact as onnx_runtime
from compression.export.sherpa_onnx import artifact as sherpa_onnx
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel


@dataclass(frozen=True, kw_only=True)
class Target:
    """`unsupported_reason`: the gene that the runtime cannot execute, and why, or None.

    `export`: writes into an empty folder.
    """

    unsupported_reason: Callable[[Recipe, Dimensions], str | None]
    export: Callable[[LoadedModel, Recipe, Compressed, Path], None]


TARGETS = {
    "onnxruntime": Target(unsupported_reason=onnx_runtime.unsupported_reason, export=onnx_runtime.export),
    "sherpa-onnx": Target(unsupported_reason=sherpa_onnx.unsupported_reason, export=sherpa_onnx.export),
    "ctranslate2": Target(unsupported_reason=ctranslate2.unsupported_reason, export=ctranslate2.export),
    "huggingface": Target(unsupported_reason=huggingface.unsupported_reason, export=huggingface.export),
    "ggml": Target(unsupported_reason=ggml.unsupported_reason, export=ggml.export),
}


def check_exportable(recipe: Recipe, dimensions: Dimensions, target: str) -> None:
    """Raise InputError when the target's runtime cannot execute the recipe, UnknownNameError for an unknown target."""
    if target not in TARGETS:
        raise UnknownNameError("target", target, TARGETS)
    reason = TARGETS[target].unsupported_reason(recipe, dimensions)
    if reason:
        raise InputError(f"recipe {recipe.id} cannot be exported to {target}: {reason}")


def export(  # noqa: PLR0913 - what an artifact is made from
    model: LoadedModel,
    recipe: Recipe,
    compressed: Compressed,
    out: Path,
    *,
    target: str,
    sources: Sources,
) -> None:
    """Write `compressed`, which is `compress(model, recipe, ...)`, as an artifact.

    The folder appears under its name when it is complete; an artifact that is there already is replaced. Raises as
    `check_exportable`, InputError when the folder cannot be written or holds something else, OSError on a full disk.
    """
    check_exportable(recipe, model.dimensions, target)
    check_replaceable(out)
    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        TARGETS[target].export(model, recipe, compressed, partial)
        write_manifest(partial, target=target, model=model, recipe=recipe, sources=sources)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_replaceable(out: Path) -> None:
    """Raise InputError unless `out` is free, an empty folder or an artifact."""
    if not out.exists() or (out / MANIFEST).is_file():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise InputError(f"--out {out}: exists and is no artifact; give a new or an empty folder")
