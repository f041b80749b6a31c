"""Does every recipe on the fronts of runs load in sherpa-onnx, and does it transcribe there as in our own runtime?

    python benchmarks/models/sherpa_onnx_fronts.py --data ../shared/speech/splits/read_confirm.jsonl --clips 8 \\
        --run results/first --run results/second > benchmarks/results/sherpa_onnx_fronts.md

Both decode greedily. sherpa-onnx's frames lie half a frame behind Whisper's, and its last ones see mirrored samples
where Whisper's see silence: it is given 80 mirrored samples before each clip and 320 zeros behind it, so that both see
the same frames. Without them (`as it comes`) the same audio is cut 5 ms later. Recipes are
calibrated on their run's speech; those with trained weights are left out. Needs `pip install sherpa-onnx`.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from compression.compress import compress
from compression.export.manifest import Sources
from compression.export.targets import export
from compression.recipe.recipe import Recipe
from compression.recipe.runtimes import unsupported_reason
from compression.whisper.load import LoadedModel
from evaluators.runtimes.own import ArtifactRecogniser
from evaluators.runtimes.process import RuntimeProcess
from evaluators.speech.speech_set import Utterance
from search.artifacts import calibrated
from search.configuration.config import SearchConfig
from search.loading import load_speech, open_model, use_threads
from search.records.folder import RunFolder

MIRRORED, ZEROS = 80, 320
MAX_TOKENS = 224


@dataclass(frozen=True, kw_only=True)
class Row:
    """`same`: clips with the same text as in our runtime, framed alike; `as_it_comes`: otherwise."""

    recipe: Recipe
    clips: int
    same: int
    as_it_comes: int
    refused: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=8)
    options = parser.parse_args()
    use_threads(1)
    print("| run | recipes of the front | refused | same text | same text, as it comes |\n|---|---|---|---|---|")
    totals = [row for run in options.run for row in rows_of(run, options.data, options.clips)]
    print(line("all", totals))


def rows_of(run: Path, data: Path, count: int) -> list[Row]:
    """A row for each recipe of the run's front; prints their sum."""
    config = RunFolder(run).config()
    model = open_model(config.model, lambda _: None)
    clips = load_speech(data, model, language="en", skip_broken=False).utterances[:count]
    rows = [tried(model, recipe, sources_of(config), clips) for recipe in front(run) if recipe.recovery is None]
    print(line(run.name, rows), flush=True)
    return rows


def front(run: Path) -> Iterator[Recipe]:
    with (run / "pareto.csv").open(encoding="utf-8", newline="") as handle:
        yield from (Recipe.from_json(row["recipe"]) for row in csv.DictReader(handle))


def sources_of(config: SearchConfig) -> Sources:
    return Sources(
        model=config.model,
        calibration=str(config.calibration or config.data),
        calibration_utterances=config.calibration_utterances,
        language=config.language or "en",
    )


def tried(model: LoadedModel, recipe: Recipe, sources: Sources, clips: tuple[Utterance, ...]) -> Row:
    refused = unsupported_reason("sherpa-onnx", recipe, model.dimensions)
    if refused:
        print(f"{recipe.id}: {refused}", file=sys.stderr)
        return Row(recipe=recipe, clips=0, same=0, as_it_comes=0, refused=refused)
    network = compress(model, recipe, calibrated(model, recipe, sources))
    with TemporaryDirectory() as scratch:
        for target in ("onnxruntime", "sherpa-onnx"):
            export(model, recipe, network, Path(scratch) / target, target=target, sources=sources)
        own = ArtifactRecogniser(Path(scratch) / "onnxruntime", threads=1)
        expected = [own(clip, MAX_TOKENS).text for clip in clips]
        with RuntimeProcess("sherpa-onnx", Path(scratch) / "sherpa-onnx", threads=1) as process:
            aligned = [process.timed(framed_alike(clip), "en")[0] for clip in clips]
            plain = [process.timed(clip.samples(), "en")[0] for clip in clips]
    for clip, text, other in zip(clips, expected, aligned, strict=True):
        if text != other:
            print(f"{recipe.id} {clip.id}\n  own         {text}\n  sherpa-onnx {other}", file=sys.stderr, flush=True)
    return Row(recipe=recipe, clips=len(clips), same=equal(expected, aligned), as_it_comes=equal(expected, plain))


def framed_alike(clip: Utterance) -> np.ndarray:
    samples = clip.samples()
    return np.concatenate([samples[MIRRORED:0:-1], samples, np.zeros(ZEROS, np.float32)])


def equal(texts: list[str], others: list[str]) -> int:
    return sum(text == other for text, other in zip(texts, others, strict=True))


def line(name: str, rows: list[Row]) -> str:
    clips, refused = sum(row.clips for row in rows), sum(row.refused is not None for row in rows)
    same, plain = sum(row.same for row in rows), sum(row.as_it_comes for row in rows)
    return f"| {name} | {len(rows)} | {refused} | {same} of {clips} | {plain} of {clips} |"


if __name__ == "__main__":
    main()
