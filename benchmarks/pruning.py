"""Which heads and channels to remove, and how to repair what is left: a table of measured WERs.

    python benchmarks/pruning.py --data MANIFEST --calibration MANIFEST [--json]

Removes the same number of units by each importance measure, spread over the stack by that measure or evenly, with the
removed units' mean folded into the bias (always) and with or without the least-squares refit. Weights stay in
floating point. Differences are paired with the original model on the same clips, resampled by speaker.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from compression.calibration import Calibration
from compression.compress import compress
from compression.importance import allocate
from compression.models import LoadedModel, load_model
from compression.recipe import ImportanceMeasure, Recipe
from evaluators.accuracy import paired_difference
from evaluators.calibration_speech import calibrate
from evaluators.evaluator import Evaluation, Evaluator
from evaluators.features import CachedFeatures
from search.session import load_speech, use_threads

MEASURES: tuple[ImportanceMeasure, ...] = ("norm", "activation", "taylor")
CHANNEL_BLOCK = 32


def recipes(original: Recipe, calibration: Calibration, share: float) -> Iterator[tuple[str, Recipe]]:
    """Recipes with `share` of all heads, then of all FFN channels, removed; with a name each."""
    for units in ("heads", "ffn_channels"):
        for measure in MEASURES:
            for spread in ("global", "even"):
                kept = kept_counts(calibration, measure, units, share, spread=spread)
                for refit in (False, True):
                    name = f"{units} -{share:.0%} {measure} {spread} {'refit' if refit else 'mean'}"
                    yield name, with_counts(replace(original, importance=measure, refit=refit), kept)


def kept_counts(
    calibration: Calibration, measure: ImportanceMeasure, units: str, share: float, *, spread: str
) -> dict[str, int]:
    """Units kept by site key; heads leave over the whole model, channels over each stack."""
    block = CHANNEL_BLOCK if units == "ffn_channels" else 1
    scores = {key: s for key, s in calibration.importance(measure).items() if key.endswith(units)}
    if spread == "even":
        return {key: len(s) - round(len(s) * share / block) * block for key, s in scores.items()}
    if units == "heads":
        return allocate(scores, round(sum(map(len, scores.values())) * share))
    kept: dict[str, int] = {}
    for stack in ("encoder", "decoder"):
        of_stack = {key: s for key, s in scores.items() if key.startswith(stack)}
        kept |= allocate(of_stack, round(sum(map(len, of_stack.values())) * share), block=block)
    return kept


def with_counts(recipe: Recipe, kept: dict[str, int]) -> Recipe:
    """The recipe with these units kept."""
    stacks = {}
    for stack in ("encoder", "decoder"):
        layers = []
        for index, layer in enumerate(getattr(recipe, stack)):
            counts = {key.rpartition(".")[2]: n for key, n in kept.items() if key.startswith(f"{stack}.{index}.")}
            layers.append(replace(layer, **counts))
        stacks[stack] = tuple(layers)
    return replace(recipe, **stacks)


def row(name: str, evaluation: Evaluation, baseline: Evaluation) -> dict[str, object]:
    difference = paired_difference(baseline.counts, evaluation.counts, seed=0)
    accuracy = evaluation.accuracy
    return {
        "recipe": name,
        "wer": round(accuracy.wer, 4),
        "wer_low": round(accuracy.wer_low, 4),
        "wer_high": round(accuracy.wer_high, 4),
        "difference": round(difference.difference, 4),
        "difference_low": round(difference.low, 4),
        "difference_high": round(difference.high, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--calibration-utterances", type=int, default=64)
    parser.add_argument("--share", type=float, default=1 / 6)
    parser.add_argument("--window", type=float, default=15.0, help="shortest encoder window in seconds")
    parser.add_argument("--only", default="", help="only recipes whose name matches this regular expression")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    use_threads(None)
    model = load_model(options.model)
    for one in measured(model, options):
        if options.json:
            print(json.dumps(one), flush=True)
        else:
            print("  ".join(f"{value!s:>8}" for value in one.values()), flush=True)


def measured(model: LoadedModel, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    speech = load_speech(options.data, model, language=None, skip_broken=False)
    spoken = load_speech(options.calibration, model, language=None, skip_broken=False)
    calibration = calibrate(model, spoken, limit=options.calibration_utterances, features=features)
    evaluator = Evaluator(speech, dimensions=model.dimensions, features=features)
    original = replace(Recipe.original(model.dimensions, stored_bits=model.stored_bits), window_s=options.window)
    print(f"{speech.name}, {evaluator.normaliser}, window {options.window:g} s", file=sys.stderr)
    baseline = evaluator.evaluate(compress(model, original), window_s=options.window)
    yield row("original", baseline, baseline)
    for name, recipe in recipes(original, calibration, options.share):
        if not re.search(options.only, name):
            continue
        network = compress(model, recipe, calibration)
        yield row(name, evaluator.evaluate(network, window_s=options.window, drafts=baseline), baseline)


if __name__ == "__main__":
    main()
