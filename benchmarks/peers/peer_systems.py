"""The systems that peers.py compares: what each is made of and how it is run."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

import peer_files
import sherpa_files
import transcribe_cpp_files
from peer_files import OUR_WINDOW_S, Pick

from common.errors import UnknownNameError
from common.files import cache_folder, sha256_of_file, sha256_of_text
from compression.export.manifest import Sources
from compression.recipe.recipe import MAX_WINDOW_S, Recipe
from compression.recipe.runtimes import RUNTIMES
from compression.whisper.load import LoadedModel

Prepare = Callable[[LoadedModel, Path], None]
Side = Literal["original", "ours", "peer", "peer with our window"]

HERE = Path(__file__).parent
REFERENCE = "torch float32"
"""Whose transcripts the others' are compared with."""


@dataclass(frozen=True, kw_only=True)
class System:
    """`recogniser`: a module of `recognisers`; `compute` is for it. `window_s`: the encoder's shortest window.

    `prepare`: writes the system's files into an empty folder. `recipe`: of our artifacts.
    """

    name: str
    side: Side
    recogniser: str
    prepare: Prepare
    window_s: float = MAX_WINDOW_S
    compute: str = ""
    recipe: Recipe | None = None

    @property
    def recipe_id(self) -> str | None:
        return None if self.recipe is None else self.recipe.id


def systems(model: LoadedModel, pick: Pick | None) -> tuple[System, ...]:
    """All of them, in the order of the table. `pick`: None to leave it out."""
    return (
        System(name=REFERENCE, side="original", recogniser="openai_whisper", prepare=peer_files.openai_checkpoint),
        *_ours(model, pick),
        *_faster_whisper(),
        System(
            name="sherpa-onnx int8",
            side="peer",
            recogniser="other_runtime",
            compute="sherpa-onnx",
            prepare=sherpa_files.int8,
        ),
        *_transcribe_cpp(model),
        *_with_a_choice_of_window("peer", MAX_WINDOW_S),
        *_with_a_choice_of_window("peer with our window", OUR_WINDOW_S),
        System(
            name="torch qint8",
            side="peer",
            recogniser="openai_whisper",
            prepare=peer_files.torch_qint8,
            compute="qint8",
        ),
    )


def _ours(model: LoadedModel, pick: Pick | None) -> list[System]:
    sources = Sources(model=model.name)
    points = {
        "onnx float16": peer_files.original(model, 16, window_s=OUR_WINDOW_S),
        "onnx 8 bits": peer_files.integers(model, 8, group_size=0, activation_bits=32),
        "onnx 8 bits, a8": peer_files.integers(model, 8, group_size=0, activation_bits=8),
        "onnx 4 bits": peer_files.integers(model, 4, group_size=16, activation_bits=32),
        "onnx 4 bits, a8": peer_files.integers(model, 4, group_size=16, activation_bits=8),
    }
    ours = [
        in_onnx_runtime("onnx float32", "original", peer_files.original(model, 32, window_s=MAX_WINDOW_S), sources),
        *(in_onnx_runtime(name, "ours", recipe, sources) for name, recipe in points.items()),
        *(in_other_runtime("sherpa-onnx", name, recipe, sources) for name, recipe in points.items()),
    ]
    if pick is None:
        return ours
    picked = in_onnx_runtime("onnx mixed pick", "ours", pick.recipe, pick.sources)
    return [*ours, picked, in_other_runtime("sherpa-onnx", picked.name, pick.recipe, pick.sources)]


def in_onnx_runtime(name: str, side: Side, recipe: Recipe, sources: Sources) -> System:
    """Our artifact, by the package `runtime`."""
    prepare = partial(peer_files.artifact, "onnxruntime", recipe, sources)
    return System(
        name=name, side=side, recogniser="onnx_runtime", prepare=prepare, window_s=recipe.window_s, recipe=recipe
    )


def in_other_runtime(runtime: str, name: str, recipe: Recipe, sources: Sources) -> System:
    """Our artifact for another runtime, by that one's package. `runtime`: a target."""
    return System(
        name=f"{name}, in {RUNTIMES[runtime].name}",
        side="ours",
        recogniser="other_runtime",
        compute=runtime,
        prepare=partial(peer_files.artifact, runtime, recipe, sources),
        window_s=recipe.window_s,
        recipe=recipe,
    )


def _faster_whisper() -> list[System]:
    build = partial(System, side="peer", recogniser="faster_whisper")
    return [
        build(name="faster-whisper float32", prepare=peer_files.ctranslate2_floats, compute="float32"),
        build(name="faster-whisper int8", prepare=peer_files.ctranslate2_int8, compute="int8"),
    ]


def _transcribe_cpp(model: LoadedModel) -> list[System]:
    """Its own files, and ours at the same bits."""
    files: dict[str, Prepare] = {"f16": transcribe_cpp_files.floats}
    files |= {f"q{bits}_0": partial(transcribe_cpp_files.blocks, bits) for bits in (8, 5, 4)}
    build = partial(System, side="peer", recogniser="other_runtime", compute="transcribe-cpp")
    ours = partial(in_other_runtime, "transcribe-cpp")
    return [
        *(build(name=f"transcribe.cpp {name}", prepare=prepare) for name, prepare in files.items()),
        *(ours(f"{bits} bits", peer_files.ggml_integers(model, bits), Sources(model=model.name)) for bits in (8, 5, 4)),
    ]


def _with_a_choice_of_window(side: Side, window_s: float) -> list[System]:
    """Peers that can be asked for another window than 30 s."""
    files: dict[str, Prepare] = {"whisper.cpp f16": peer_files.ggml_floats}
    files |= {f"whisper.cpp q{bits}_0": partial(peer_files.ggml_blocks, bits) for bits in (8, 5, 4)}
    suffix = "" if window_s == MAX_WINDOW_S else f", {window_s:g} s"
    build = partial(System, side=side, window_s=window_s)
    return [
        *(build(name=name + suffix, recogniser="whisper_cpp", prepare=prepare) for name, prepare in files.items()),
        build(
            name=f"onnxruntime quantize_dynamic{suffix}",
            recogniser="onnx_runtime",
            prepare=partial(peer_files.stock_quantised_onnx, window_s),
        ),
    ]


def chosen(known: Sequence[System], names: Sequence[str]) -> tuple[System, ...]:
    """The systems of these names, all without names. Raises UnknownNameError."""
    by_name = {system.name: system for system in known}
    for name in names:
        if name not in by_name:
            raise UnknownNameError("system", name, by_name)
    return tuple(system for system in known if not names or system.name in names)


@cache
def code_digest() -> str:
    """SHA-256 of all code that makes or runs the systems: files and rows of other code are not used again."""
    root = HERE.parents[1]
    sources = [*root.glob("compression/**/*.py"), *root.glob("runtime/**/*.py"), *HERE.glob("recognisers/*.py")]
    sources += [HERE / "peer_files.py", HERE / "sherpa_files.py"]
    sources += [HERE / "transcribe_cpp_files.py", HERE / "peer_systems.py"]
    return sha256_of_text("".join(f"{path.relative_to(root)} {sha256_of_file(path)}\n" for path in sorted(sources)))


def prepared(system: System, model: LoadedModel) -> Path:
    """The folder with the system's files, made now unless it is there; what other code made is removed."""
    parent = cache_folder("peers") / model.digest[:12]
    folder = parent / code_digest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    for other in parent.iterdir():
        if other != folder:
            shutil.rmtree(other)
    own = folder / " ".join(filter(None, (system.name, system.recipe_id)))
    if not own.exists():
        partial_folder = own.with_name(f".{own.name}.partial")
        shutil.rmtree(partial_folder, ignore_errors=True)
        partial_folder.mkdir()
        system.prepare(model, partial_folder)
        partial_folder.rename(own)
    return own
