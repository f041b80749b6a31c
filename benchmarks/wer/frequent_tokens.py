"""Divergence of the token embedding at few bits, with the rows of frequent and special tokens at 8.

    S=../shared/speech/splits
    python benchmarks/wer/frequent_tokens.py --data $S/read_search.jsonl --calibration $S/read_calibration.jsonl

Nothing else is rounded. On the clips that a search with seed 0 draws, as they are, in a window of 15 s.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from calibrated_model import calibrated_model

from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.whisper.load import LoadedModel
from evaluators.accuracy.divergence_meter import DivergenceMeter
from evaluators.costs.price import stored_bytes
from evaluators.speech.divergence_clips import draw_clips
from search.configuration.options import CALIBRATION_UTTERANCES

SEED = 0
WINDOW_S = 15.0
COUNTS = (0, 512, 1024, 2048, 4096, 8192)
"""Frequent text tokens."""


def main() -> None:
    """Print the table."""
    options = _parser().parse_args()
    model, speech, calibration = calibrated_model(options)
    meter = DivergenceMeter(model, draw_clips(speech.utterances, options.clips, seed=SEED, widen=False))
    rows = f"groups of {options.group_size}, {options.rounding}"
    print(f"{model.name}, embedding at {options.bits} bits in {rows}; {options.clips} clips of {speech.name}\n")
    print("| frequent tokens | MB | nats a token |\n|---|---|---|")
    for name, recipe in _recipes(model, options):
        megabytes = stored_bytes(model.dimensions, recipe) / 1e6
        found = meter.measure(compress(model, recipe, calibration), window_s=WINDOW_S, encoder_key=recipe.encoder_key)
        print(f"| {name} | {megabytes:.2f} | {found.mean:.4f} |", flush=True)


def _recipes(model: LoadedModel, options: argparse.Namespace) -> Iterator[tuple[str, Recipe]]:
    original = Recipe.original(model.dimensions, stored_bits=model.stored_bits)
    plain = replace(
        original,
        embedding_bits=options.bits,
        group_size=options.group_size,
        symmetric=options.symmetric,
        rounding=options.rounding,
        window_s=WINDOW_S,
    )
    for count in options.counts:
        yield str(count), replace(plain, frequent_tokens=count)
    yield "all", replace(plain, embedding_bits=8)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--calibration-utterances", type=int, default=CALIBRATION_UTTERANCES)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=16)
    parser.add_argument("--symmetric", action="store_true", help="without zero points")
    parser.add_argument("--rounding", choices=("nearest", "calibrated"), default="calibrated")
    parser.add_argument("--counts", type=int, nargs="*", default=COUNTS)
    parser.add_argument("--language", help="where the speech sets do not state it")
    parser.add_argument("--threads", type=int)
    return parser


if __name__ == "__main__":
    main()
