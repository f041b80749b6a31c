"""Divergence of recipes from the original, as a search measures it (docs/search.md).

    S=../shared/speech/splits
    python benchmarks/wer/divergence.py --data $S/read_search.jsonl --calibration $S/read_calibration.jsonl \\
        --run results/second --trial 62 --trial 96 --trial 97 --recipe FILE.json > benchmarks/results/divergence.md

On the clips that a search with seed 0 draws, as they are and with every second one under another condition.
"""

import argparse
from pathlib import Path

from calibrated_model import calibrated_model
from given_recipes import add_recipe_options, given_recipes

from compression.compress import compress
from evaluators.accuracy.divergence_meter import DivergenceMeter
from evaluators.speech.divergence_clips import draw_clips
from search.configuration.options import CALIBRATION_UTTERANCES

SEED = 0


def main() -> None:
    """Print the table."""
    options = _parser().parse_args()
    model, speech, calibration = calibrated_model(options)
    meters = [
        DivergenceMeter(model, draw_clips(speech.utterances, options.clips, seed=SEED, widen=widen))
        for widen in (False, True)
    ]
    print(f"{model.name}, {options.clips} clips of {speech.name}; nats a token\n")
    print("| recipe | as it is | every second clip widened |\n|---|---|---|")
    for name, recipe in given_recipes(options):
        network = compress(model, recipe, calibration)
        found = [meter.measure(network, window_s=recipe.window_s).mean for meter in meters]
        print(f"| {name} | {found[0]:.4f} | {found[1]:.4f} |", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--calibration-utterances", type=int, default=CALIBRATION_UTTERANCES)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--language", help="where the speech sets do not state it")
    parser.add_argument("--threads", type=int)
    add_recipe_options(parser)
    return parser


if __name__ == "__main__":
    main()
