"""The runtimes that recipes are exported to, behind one interface."""

from collections.abc import Callable
from pathlib import Path

from common.errors import InputError, UnknownNameError
from compression.export import ctranslate2, ggml, huggingface, transcribe_cpp
from compression.export.litert import artifact as litert
from compression.export.manifest import MANIFEST, Sources, write_manifest
from compression.export.onnx_runtime import artifact as onnx_runtime
from compression.export.sherpa_onnx import artifact as sherpa_onnx
from compression.export.whole_folder import check_replaceable, whole_folder
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.recipe.runtimes import unsupported_reason
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel

Export = Callable[[LoadedModel, Recipe, Compressed, Path], None]
"""Writes a compressed model into an empty folder."""

TARGETS: dict[str, Export] = {
    "onnxruntime": onnx_runtime.export,
    "sherpa-onnx": sherpa_onnx.export,
    "ctranslate2": ctranslate2.export,
    "huggingface": huggingface.export,
    "ggml": ggml.export,
    "transcribe-cpp": transcribe_cpp.export,
    "litert": litert.export,
}
"""What their runtimes execute stands in `compression.recipe.runtimes`."""


def check_exportable(recipe: Recipe, dimensions: Dimensions, target: str) -> None:
    """Raise InputError when the target's runtime cannot execute the recipe, UnknownNameError for an unknown target."""
    if target not in TARGETS:
        raise UnknownNameError("target", target, TARGETS)
    reason = unsupported_reason(target, recipe, dimensions)
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
    check_replaceable(out, MANIFEST, "artifact")
    with whole_folder(out) as partial:
        TARGETS[target](model, recipe, compressed, partial)
        write_manifest(partial, target=target, model=model, recipe=recipe, sources=sources)
