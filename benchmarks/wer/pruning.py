"""Which heads, channels and layers to remove, and how to repair what is left: a table of measured WERs.

    python benchmarks/wer/pruning.py --data MANIFEST --calibration MANIFEST [--share S] [--only PATTERN] [--json]

Removes the same number of units by each importance measure, spread over the stack by that measure or evenly, with the
removed units' mean folded into the bias (always) and with or without the least-squares refit, which `iterative` always
has; then each layer on its own, beside what calibration says of it. Weights stay in floating point. Differences are
paired with the original model on the same clips, resampled by speaker. `loss_rise`: of the cross-entropy of the
original's own transcripts of the data, in nats a token, teacher forced; it tells recipes apart that WERs cannot.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

import torch
from comparison import Comparison, parser_of
from techniques import BLOCK, of_units, with_counts
from whisper.model import Whisper

from compression.calibration.calibration import Calibration, CalibrationSample, calibration_loss
from compression.compress import compress
from compression.recipe.importance import allocate
from compression.recipe.recipe import IMPORTANCE_MEASURES, ImportanceMeasure, Recipe
from evaluators.learning.calibration import calibration_samples


def recipes(original: Recipe, calibration: Calibration, share: float) -> Iterator[tuple[str, Recipe]]:
    """Recipes with `share` of all heads, then of all FFN channels, then one layer removed; with a name each."""
    for units in ("heads", "ffn_channels"):
        for measure in IMPORTANCE_MEASURES:
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
    is_heads = units == "heads"
    block, names = (1, ("heads", "cross_heads")) if is_heads else (BLOCK, (units,))
    kept: dict[str, int] = {}
    for stack in ("",) if is_heads else ("encoder", "decoder"):
        scores = of_units(calibration.importance(measure), *names, stack=stack)
        if spread == "even":
            kept |= {key: len(s) - round(len(s) * share / block) * block for key, s in scores.items()}
        else:
            kept |= allocate(scores, round(sum(map(len, scores.values())) * share), block=block)
    return kept


def main() -> None:
    parser = parser_of(__doc__)
    parser.set_defaults(window=15.0)
    parser.add_argument("--share", type=float, default=1 / 6)
    parser.add_argument("--only", default="", help="only recipes whose name matches this regular expression")
    options = parser.parse_args()
    for measurement in measured(options):
        if options.json:
            print(json.dumps(measurement), flush=True)
        else:
            print("  ".join(f"{value!s:>8}" for value in measurement.values()), flush=True)


def measured(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    comparison = Comparison.open(options)
    original, calibration, model = comparison.original, comparison.calibration, comparison.model
    samples = calibration_samples(model, comparison.evaluator.speech.utterances, comparison.features)
    whole = mean_loss(model.network, samples)
    yield {"recipe": "original", **comparison.figures(comparison.baseline), "loss_rise": 0.0}
    for name, recipe in recipes(original, calibration, options.share):
        if re.search(options.only, name):
            compressed = compress(model, recipe, calibration)
            figures = comparison.figures(comparison.evaluate(compressed, recipe))
            yield {"recipe": name, **figures, "loss_rise": round(mean_loss(compressed.network, samples) - whole, 4)}


def mean_loss(network: Whisper, samples: Sequence[CalibrationSample]) -> float:
    with torch.inference_mode():
        return fmean(float(calibration_loss(network, sample)) for sample in samples)


if __name__ == "__main__":
    main()
