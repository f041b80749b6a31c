"""Which heads, channels and layers to remove, and how to repair what is left: a table of measured WERs.

    python benchmarks/pruning.py --data MANIFEST --calibration MANIFEST [--share S] [--only PATTERN] [--json]

Removes the same number of units by each importance measure, spread over the stack by that measure or evenly, with the
removed units' mean folded into the bias (always) and with or without the least-squares refit, which `iterative` always
has; then each layer on its own, beside what calibration says of it. Weights stay in floating point. Differences are
paired with the original model on the same clips, resampled by speaker. `loss_rise`: of the cross-entropy of the
original's own transcripts of the data, in nats a token, teacher forced; it tells recipes apart that WERs cannot.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from whisper.model import Whisper

from compression.calibration import Calibration, CalibrationSample, calibration_loss
from compression.compress import compress
from compression.importance import allocate
from compression.models import LoadedModel, load_model
from compression.recipe import ImportanceMeasure, Recipe
from evaluators.accuracy import paired_difference
from evaluators.calibration_speech import calibrate, calibration_samples
from evaluators.evaluator import Evaluation, Evaluator
from evaluators.features import CachedFeatures
from search.session import load_speech, use_threads

MEASURES: tuple[ImportanceMeasure, ...] = ("norm", "activation", "taylor", "iterative")
CHANNEL_BLOCK = 32


def recipes(original: Recipe, calibration: Calibration, share: float) -> Iterator[tuple[str, Recipe]]:
    """Recipes with `share` of all heads, then of all FFN channels, then one layer removed; with a name each."""
    for units in ("heads", "ffn_channels"):
        for measure in MEASURES:
            for spread in ("global", "even"):
                kept = kept_counts(calibration, measure, units, share, spread=spread)
                for refit in (True,) if measure == "iterative" else (False, True):
                    name = f"{units} -{share:.0%} {measure} {spread} {'refit' if refit else 'mean'}"
                    yield name, with_counts(replace(original, importance=measure, refit=refit), kept)
    for stack in ("encoder", "decoder"):
        layers = getattr(original, stack)
        for index in range(len(layers)):
            rise = calibration.layer_importance[f"{stack}.{index}"]
            without = tuple(None if other == index else layer for other, layer in enumerate(layers))
            yield f"{stack} layer {index} skipped, {rise:+.2f} in calibration", replace(original, **{stack: without})


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


def row(name: str, evaluation: Evaluation, baseline: Evaluation, loss_rise: float) -> dict[str, object]:
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
        "loss_rise": round(loss_rise, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="only the first N utterances")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--calibration-utterances", type=int, default=64)
    parser.add_argument("--share", type=float, default=1 / 6)
    parser.add_argument("--window", type=float, default=15.0, help="shortest encoder window in seconds")
    parser.add_argument("--threads", type=int, help="torch's; default: all cores")
    parser.add_argument("--only", default="", help="only recipes whose name matches this regular expression")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    use_threads(options.threads)
    model = load_model(options.model)
    for one in measured(model, options):
        if options.json:
            print(json.dumps(one), flush=True)
        else:
            print("  ".join(f"{value!s:>8}" for value in one.values()), flush=True)


def measured(model: LoadedModel, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    speech = load_speech(options.data, model, language=None, skip_broken=False)
    speech = replace(speech, utterances=speech.utterances[: options.limit])
    spoken = load_speech(options.calibration, model, language=None, skip_broken=False)
    calibration = calibrate(model, spoken, limit=options.calibration_utterances, features=features)
    samples = calibration_samples(model, speech.utterances, features)
    evaluator = Evaluator(speech, dimensions=model.dimensions, features=features)
    original = replace(Recipe.original(model.dimensions, stored_bits=model.stored_bits), window_s=options.window)
    print(f"{speech.name}, {evaluator.normaliser}, window {options.window:g} s", file=sys.stderr)
    baseline = evaluator.evaluate(compress(model, original), window_s=options.window)
    whole = mean_loss(model.network, samples)
    yield row("original", baseline, baseline, 0.0)
    for name, recipe in recipes(original, calibration, options.share):
        if not re.search(options.only, name):
            continue
        network = compress(model, recipe, calibration)
        evaluation = evaluator.evaluate(network, window_s=options.window, drafts=baseline)
        yield row(name, evaluation, baseline, mean_loss(network, samples) - whole)


def mean_loss(network: Whisper, samples: Sequence[CalibrationSample]) -> float:
    with torch.inference_mode():
        return fmean(float(calibration_loss(network, sample)) for sample in samples)


if __name__ == "__main__":
    main()
