"""Peak memory of exported artifacts, measured, against what `Costs.peak_memory_bytes` says.

    python benchmarks/speed/memory.py [--models tiny.en base] [--random small] [--json]

Each recipe is exported for ONNX Runtime and transcribes in a process of its own, `python -m runtime.measure` on one
thread; its peak is VmHWM, the most memory that was ever resident, pages of mapped files included. Windows of 10 and
30 s, by a clip and a reference utterance that are 4 s shorter. Python, numpy, the vocabulary and the spectrogram are
not in the model: what they take is measured by a process that does all this without onnxruntime, and added.

Models in `--random` get random weights, which take as much room: no files are needed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from common.errors import WhisperfitError
from compression.compress import compress
from compression.export.manifest import Sources
from compression.export.targets import export
from compression.recipe.dimensions import published_dimensions
from compression.recipe.recipe import Recipe
from compression.whisper.load import LoadedModel, load_model
from devices.profile import load_profile
from evaluators.costs.price import price
from evaluators.profiling.workload_artifacts import random_model
from runtime.window import MARGIN_S

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "evaluators" / "sample_speech" / "audio" / "sample-31.flac"
WINDOWS_S = (10.0, 30.0)
TOKENS = 30
WITHOUT_RUNTIME = """
import argparse, json, sys
from pathlib import Path
from runtime.artifact import Artifact
from runtime.audio import read_audio
from runtime.mel import log_mel
artifact = Artifact.open(Path(sys.argv[1]))
log_mel(read_audio(Path(sys.argv[2])), artifact.n_mels)
status = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")))
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One artifact at one window. `python_mb`: without onnxruntime; `predicted_mb`: the model of docs/costs.md.

    `error_percent`: of predicted + python against measured.
    """

    model: str
    weights: str
    recipe: str
    window_s: float
    tokens: int
    measured_mb: float
    python_mb: float
    predicted_mb: float

    @property
    def error_percent(self) -> float:
        return 100 * ((self.predicted_mb + self.python_mb) / self.measured_mb - 1)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["tiny.en", "base"], metavar="NAME")
    parser.add_argument("--random", nargs="*", default=["small"], metavar="NAME", help="models with random weights")
    parser.add_argument("--json", action="store_true", help="all rows as JSON")
    options = parser.parse_args(arguments)
    try:
        rows = [row for name in options.models for row in measured_rows(load_model(name), "trained")]
        for name in options.random:
            rows += measured_rows(random_model(name, published_dimensions(name)), "random")
    except WhisperfitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([asdict(row) | {"error_percent": round(row.error_percent, 1)} for row in rows], indent=1))
    else:
        print("\n".join(text_lines(rows)))
    return 0


def text_lines(rows: Sequence[Row]) -> Iterator[str]:
    """A table in Markdown."""
    yield "| model | recipe | window s | measured MB | predicted, and Python MB | error |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        predicted = f"{row.predicted_mb:.0f} + {row.python_mb:.0f}"
        name = row.model if row.weights == "trained" else f"{row.model}, random weights"
        yield (
            f"| {name} | {row.recipe} | {row.window_s:g} | {row.measured_mb:.0f} | {predicted} "
            f"| {row.error_percent:+.0f} % |"
        )


def recipes(model: LoadedModel) -> dict[str, Recipe]:
    """Whole models at one precision, and mixtures of two; the shortest window is left to the audio."""
    eight, four = (_at(model, bits) for bits in (8, 4))
    found = {
        "float32": Recipe.original(model.dimensions, stored_bits=32),
        "float16": Recipe.original(model.dimensions),
        "float16, embedding 8 bits": replace(Recipe.original(model.dimensions), embedding_bits=8),
        "8 bits": eight,
        "8 bits, activations 8": replace(eight, activation_bits=8),
        "4 bits": four,
        "4 bits in groups of 32": replace(four, group_size=32),
        "4 bits in groups of 32, activations 8": replace(four, group_size=32, activation_bits=8),
        "4 bits, embedding float16": replace(four, embedding_bits=16),
    }
    return {name: replace(recipe, window_s=1.0).canonical(model.dimensions) for name, recipe in found.items()}


def _at(model: LoadedModel, bits: int) -> Recipe:
    """All matrices at so many bits, convolutions at 8."""
    recipe = Recipe.original(model.dimensions)
    return replace(
        recipe.with_each_layer(attention_bits=bits, ffn_bits=bits),
        embedding_bits=bits,
        convolution_bits=8,
    )


def measured_rows(model: LoadedModel, weights: str) -> Iterator[Row]:
    """Every recipe of a model at every window."""
    profile = load_profile("host")
    with tempfile.TemporaryDirectory() as scratch:
        for name, recipe in recipes(model).items():
            artifact, sources = Path(scratch) / recipe.id, Sources(model=model.name)
            export(model, recipe, compress(model, recipe), artifact, target="onnxruntime", sources=sources)
            python_bytes = int(_output("-c", WITHOUT_RUNTIME, str(artifact), str(CLIP)))
            for window_s in WINDOWS_S:
                audio_s = window_s - MARGIN_S
                measured = measured_peak(artifact, audio_s)
                costs = price(model.dimensions, recipe, profile, audio_s=audio_s, tokens=measured.tokens)
                yield Row(
                    model=model.name,
                    weights=weights,
                    recipe=name,
                    window_s=window_s,
                    tokens=measured.tokens,
                    measured_mb=round(measured.peak_bytes / 1e6, 1),
                    python_mb=round(python_bytes / 1e6, 1),
                    predicted_mb=round(costs.peak_memory_bytes / 1e6, 1),
                )


@dataclass(frozen=True, kw_only=True)
class Peak:
    """`tokens`: of the longest text, that of the clip or of the reference utterance."""

    peak_bytes: int
    tokens: int


def measured_peak(artifact: Path, audio_s: float) -> Peak:
    """VmHWM of a process that transcribes the clip and an utterance of so many seconds and `TOKENS` tokens."""
    work = ("--threads", "1", "--repeats", "1", "--reference-s", str(audio_s), "--reference-tokens", str(TOKENS))
    found = json.loads(_output("-m", "runtime.measure", str(artifact), str(CLIP), *work))
    return Peak(peak_bytes=found["peak_rss_bytes"], tokens=max(TOKENS, round(found["tokens"])))


def _output(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
