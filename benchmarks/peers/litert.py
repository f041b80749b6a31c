"""The same recipes in LiteRT and in ONNX Runtime: transcripts beside torch's, bytes, time and memory.

    python benchmarks/peers/litert.py --data MANIFEST --calibration MANIFEST --clips 20

Each artifact is exported and then verified as `whisperfit verify` does it, in a process of its own.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common.errors import WhisperfitError
from common.log import tell
from compression.compress import compress
from compression.export.manifest import Sources
from compression.export.targets import export
from compression.recipe.recipe import Recipe
from compression.whisper.load import LoadedModel
from evaluators.accuracy.evaluator import Evaluator
from evaluators.runtimes.verification import Verification, verify
from evaluators.speech.features import CachedFeatures
from runtime.measure import Plan
from search.artifacts import calibrated
from search.loading import load_speech, open_model, use_threads

TARGETS = ("litert", "onnxruntime")
CALIBRATION_UTTERANCES = 32


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A recipe's artifact for a target."""

    recipe: str
    target: str
    found: Verification

    @property
    def line(self) -> str:
        """A row of the table."""
        parity, measured = self.found.parity, self.found.measured
        cells = (
            self.recipe,
            self.target,
            f"{parity.identical} of {parity.utterances}",
            self.found.accuracy.text,
            f"{self.found.size_bytes / 1e6:.1f}",
            f"{measured.utterance_ms:.0f}",
            f"{measured.peak_rss_bytes / 1e6:.0f}",
            f"{1000 * measured.load_s:.0f}",
        )
        return f"| {' | '.join(cells)} |"


HEADER = ("recipe", "target", "transcripts as torch's", "WER", "MB", "ms per utterance", "peak RSS, MB", "load, ms")


def recipes(model: LoadedModel) -> dict[str, Recipe]:
    """What LiteRT takes. Windows are of 30 s: of a shorter one, longer audio gets 30 s there, and less elsewhere."""
    original = Recipe.original(model.dimensions, stored_bits=model.stored_bits)

    def integers(bits: int, **fields: Any) -> Recipe:
        layers = original.with_each_layer(attention_bits=bits, ffn_bits=bits)
        return replace(layers, **{"embedding_bits": bits, "convolution_bits": 8} | fields)

    found = {
        "float16": original,
        "8 bits": integers(8),
        "8 bits, rounded activations": integers(8, activation_bits=8),
        "the same, 15 s": integers(8, activation_bits=8, window_s=15.0),
        "4 bits in groups of 32, calibrated": integers(4, group_size=32, activation_bits=8, rounding="calibrated"),
        "4 bits by row, embedding 8, calibrated": integers(
            4, embedding_bits=8, activation_bits=8, rounding="calibrated"
        ),
    }
    return {name: recipe.canonical(model.dimensions) for name, recipe in found.items()}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all rows share. `sources`: what artifacts are made from."""

    model: LoadedModel
    evaluator: Evaluator
    sources: Sources
    plan: Plan

    def measured(self, name: str, recipe: Recipe) -> Iterator[Measured]:
        """A recipe for each target."""
        network = compress(self.model, recipe, calibrated(self.model, recipe, self.sources))
        heard = self.evaluator.evaluate(network, window_s=recipe.window_s).texts
        for target in TARGETS:
            with TemporaryDirectory() as scratch:
                folder = Path(scratch) / "artifact"
                export(self.model, recipe, network, folder, target=target, sources=self.sources)
                found = verify(
                    folder, self.evaluator, self.plan, compressed=network, window_s=recipe.window_s, heard=heard
                )
            yield Measured(recipe=name, target=target, found=found)
            for difference in found.parity.differences:
                tell(f"{target}, {name}: {difference.artifact!r} where torch has {difference.torch!r}")


def run(options: argparse.Namespace) -> None:
    use_threads(options.threads)
    model = open_model(options.model, tell)
    speech = load_speech(options.data, model, language=None, skip_broken=False)
    speech = replace(speech, utterances=speech.utterances[: options.clips])
    evaluator = Evaluator(speech, dimensions=model.dimensions, features=CachedFeatures(n_mels=model.dimensions.n_mels))
    plan = Plan(threads=options.threads, repeats=options.repeats, reference_s=10.0, reference_tokens=30)
    sources = Sources(
        model=model.name, calibration=str(options.calibration), calibration_utterances=CALIBRATION_UTTERANCES
    )
    print(f"| {' | '.join(HEADER)} |\n{'|---' * len(HEADER)}|")
    bench = Bench(model=model, evaluator=evaluator, sources=sources, plan=plan)
    for name, recipe in recipes(model).items():
        for row in bench.measured(name, recipe) if name in (options.only or [name]) else ():
            print(row.line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True, help="speech for calibrated rounding")
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--clips", type=int, default=20, help="the first so many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only this recipe; may be repeated")
    try:
        run(parser.parse_args())
    except WhisperfitError as error:
        print(f"litert: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
