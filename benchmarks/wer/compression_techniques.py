"""What each way to compress a Whisper costs in WER, technique by technique.

    python benchmarks/wer/compression_techniques.py --data MANIFEST --calibration MANIFEST --out FILE.jsonl [--limit N]
        [--only NAME...] [--recovered FOLDER...] [--json]

Each technique (`techniques.py`) is applied alone to the original, at a window of 15 s. --recovered takes folders that
`benchmarks/wer/recovery.py` made: their recipes are scored before and after the training. A row is added to --out
when it is measured; the same command goes on after the last one. Rows of another model, speech, limit or calibration
may be in the file, they are left alone. At the end all rows go to stdout, as Markdown or, with --json, one object a
line.

Differences are paired with the original on the same clips; 95 % intervals by bootstrap over speakers. Sizes are those
of the recipes' tensors. CPU seconds are those of this process, all threads together: of compressing, and of scoring.
Calibration, which all rows share, is measured once, in a row of its own.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any

from comparison import Comparison, parser_of
from techniques import techniques

from common.errors import InputError, WhisperfitError
from compression.calibration.calibration import measure
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.trained_weights import RECIPE_FILE, load_recovered
from evaluators.costs.price import stored_bytes
from evaluators.learning.calibration import calibration_samples
from search.commands.baseline import read_recipe

ORIGINAL, CALIBRATION = "original", "calibration"
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One row to be: a name, a recipe, how its network is made; `training_s`: what a training took beforehand."""

    name: str
    recipe: Recipe
    network: Callable[[], Compressed]
    training_s: float | None = None


class Rows:
    """A file of measured rows; of those, the last of each technique of one model, speech and calibration."""

    def __init__(self, file: Path, identity: Row) -> None:
        self._file, self._identity = file, identity
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        rows = [row for row in map(json.loads, lines) if identity.items() <= row.items()]
        self._by_technique = {row["technique"]: row for row in rows}

    @property
    def all(self) -> list[Row]:
        return list(self._by_technique.values())

    def has(self, technique: str, recipe_id: str | None) -> bool:
        """Whether the technique was measured, and was this recipe."""
        row = self._by_technique.get(technique)
        return row is not None and row.get("recipe_id") == recipe_id

    def add(self, row: Row) -> None:
        """Keep a row, on the disk before anything else is measured."""
        self._by_technique[row["technique"]] = self._identity | row
        with self._file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(self._by_technique[row["technique"]]) + "\n")


def identity_of(comparison: Comparison, options: argparse.Namespace) -> Row:
    """What rows of one table have in common."""
    evaluator = comparison.evaluator
    return {
        "model": comparison.model.name,
        "model_sha256": comparison.model.digest,
        "speech": evaluator.speech.name,
        "speech_sha256": evaluator.speech.digest,
        "utterances": len(evaluator.speech.utterances),
        "normaliser": evaluator.normaliser,
        "calibration_sha256": comparison.calibration_speech.digest,
        "calibration_utterances": options.calibration_utterances,
        "window_s": options.window,
    }


def candidates(comparison: Comparison, options: argparse.Namespace) -> Iterator[Candidate]:
    """The original, every technique, and what training made of recipes."""
    dimensions, calibration = comparison.model.dimensions, comparison.calibration

    def candidate(name: str, recipe: Recipe) -> Candidate:
        recipe = recipe.canonical(dimensions)
        return Candidate(name=name, recipe=recipe, network=lambda: compress(comparison.model, recipe, calibration))

    yield candidate(ORIGINAL, comparison.original)
    for name, make in techniques(dimensions, options.language or "en").items():
        yield candidate(name, make(comparison.original, calibration))
    for folder in options.recovered:
        recipe = read_recipe(folder / RECIPE_FILE)
        if recipe.recovery is None:
            raise InputError(f"{folder} holds no recovered recipe: make one with benchmarks/wer/recovery.py")
        yield candidate(f"{folder.name}, before", replace(recipe, recovery=None))
        yield recovered(comparison, folder, recipe)


def recovered(comparison: Comparison, folder: Path, recipe: Recipe) -> Candidate:
    """What training made of a recipe; `curve.json` is `benchmarks/wer/recovery.py`'s."""
    course = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
    return Candidate(
        name=f"{folder.name}, {course['method']}",
        recipe=recipe,
        network=lambda: compress(comparison.model, recipe, comparison.calibration, load_recovered(recipe, folder)),
        training_s=course["seconds"],
    )


def measured(candidate: Candidate, comparison: Comparison) -> Row:
    """Compress, score, and what both took."""
    began = process_time()
    network = candidate.network()
    compressed = process_time()
    evaluation = comparison.evaluate(network, candidate.recipe)
    scored = process_time()
    accuracy, dimensions = evaluation.accuracy, comparison.model.dimensions
    return {
        "technique": candidate.name,
        "recipe_id": candidate.recipe.id,
        "summary": candidate.recipe.summary(),
        "size_bytes": stored_bytes(dimensions, candidate.recipe),
        **comparison.figures(evaluation),
        "insertions": accuracy.rate.insertions,
        "deletions": accuracy.rate.deletions,
        "substitutions": accuracy.rate.substitutions,
        "words": accuracy.rate.words,
        "ran_on": sum(utterance.hypothesis.ending != "complete" for utterance in evaluation.utterances),
        "calibrated": candidate.recipe.needs_calibration(dimensions),
        "compress_cpu_s": round(compressed - began, 2),
        "score_cpu_s": round(scored - compressed, 2),
        "training_s": candidate.training_s,
        "recipe": json.loads(candidate.recipe.to_json()),
    }


def calibration_row(comparison: Comparison, options: argparse.Namespace) -> Row:
    """What calibration costs, made again without what is cached of it."""
    began = process_time()
    clips = comparison.calibration_speech.utterances[: options.calibration_utterances]
    measure(comparison.model, calibration_samples(comparison.model, clips, comparison.features))
    return {"technique": CALIBRATION, "compress_cpu_s": round(process_time() - began, 2)}


def markdown(rows: list[Row]) -> list[str]:
    """The rows as a table; `*`: calibration comes on top."""
    lines = [
        "| technique | MB | WER % | difference in points | ran on | CPU s to compress | minutes of training |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["technique"] == CALIBRATION:
            continue
        low, high = 100 * row["difference_low"], 100 * row["difference_high"]
        cells = (
            row["technique"],
            f"{row['size_bytes'] / 1e6:.1f}",
            f"{100 * row['wer']:.2f} ({100 * row['wer_low']:.2f} to {100 * row['wer_high']:.2f})",
            "" if row["technique"] == ORIGINAL else f"{100 * row['difference']:+.2f} ({low:+.2f} to {high:+.2f})",
            f"{row['ran_on']}",
            f"{row['compress_cpu_s']:.1f}{'*' if row['calibrated'] else ''}",
            "" if row["training_s"] is None else f"{row['training_s'] / 60:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    spent = [row for row in rows if row["technique"] == CALIBRATION]
    return lines + [f"\n*: and {row['compress_cpu_s']:.0f} CPU s of calibration, once for all" for row in spent]


def parse() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.set_defaults(calibration_utterances=32, window=15.0)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; kept and gone on with")
    parser.add_argument("--only", nargs="*", default=(), metavar="NAME", help="rows whose names match one of these")
    parser.add_argument("--recovered", type=Path, nargs="*", default=(), metavar="FOLDER")
    return parser.parse_args()


def main() -> int:
    options = parse()
    try:
        comparison = Comparison.open(options)
        rows = Rows(options.out, identity_of(comparison, options))
        if not rows.has(CALIBRATION, None):
            rows.add(calibration_row(comparison, options))
        for candidate in candidates(comparison, options):
            is_asked_for = not options.only or any(re.search(name, candidate.name) for name in options.only)
            if is_asked_for and not rows.has(candidate.name, candidate.recipe.id):
                row = measured(candidate, comparison)
                rows.add(row)
                print(f"{candidate.name}: WER {100 * row['wer']:.2f} %", file=sys.stderr)
    except WhisperfitError as error:
        print(f"compression_techniques: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(json.dumps, rows.all) if options.json else markdown(rows.all)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
