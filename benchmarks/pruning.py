"""Which heads and channels to remove, and how to repair what is left: a table of measured WERs.

    python benchmarks/pruning.py --data MANIFEST --calibration MANIFEST [--json]

Removes the same number of units by each importance measure, spread over the stack by that measure or evenly, with the
removed units' mean folded into the bias (always) and with or without the least-squares refit. Weights stay in
floating point. Differences are paired with the original model on the same clips, resampled by speaker.
"""

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import replace

from comparison import Comparison, parser_of
from techniques import BLOCK, of_units, with_counts

from compression.calibration import Calibration
from compression.compress import compress
from compression.importance import allocate
from compression.recipe import ImportanceMeasure, Recipe

MEASURES: tuple[ImportanceMeasure, ...] = ("norm", "activation", "taylor")


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
    for one in measured(options):
        if options.json:
            print(json.dumps(one), flush=True)
        else:
            print("  ".join(f"{value!s:>8}" for value in one.values()), flush=True)


def measured(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    comparison = Comparison.open(options)
    original, calibration = comparison.original, comparison.calibration
    yield {"recipe": "original", **comparison.figures(comparison.baseline)}
    for name, recipe in recipes(original, calibration, options.share):
        if re.search(options.only, name):
            network = compress(comparison.model, recipe, calibration)
            yield {"recipe": name, **comparison.figures(comparison.evaluate(network, recipe))}


if __name__ == "__main__":
    main()
