"""Recipes that a search judges an hour, by where torch computes, for models of several sizes.

    python benchmarks/models/compute.py --models tiny.en base small large-v3-turbo --compute cpu cuda > compute.md
    python benchmarks/models/compute.py --models tiny.en base --compute cpu --calculate "H200" 60 4.0 5.0

A recipe is compressed (its matrices were rounded before) and its divergence measured on 12 clips, as in a search
(results/tenth). Models that are not on this machine have random weights, which take as long. Medians of repeats.

`--calculate NAME TFLOPS TB_PER_S MICROSECONDS` adds what a GPU that is not here would need, at best: the floating-point
operations of the encoder's and decoder's matrices at so many 10^12 a second, the bytes of the weights at so many 10^12
a second, and so many microseconds to start each operation, whichever is more. A calculation, not a measurement.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from sizes import four_bits
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.recipe.dimensions import published_dimensions
from compression.recipe.recipe import Recipe
from compression.whisper.compute import compute_device, name_of
from compression.whisper.load import LoadedModel, load_model, must_be_downloaded
from evaluators.accuracy.divergence_meter import DivergenceMeter
from evaluators.learning.calibration import calibrate
from evaluators.profiling.workload_artifacts import random_model
from evaluators.speech.divergence_clips import draw_clips
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import load_speech_set
from search.needs.estimate import CLIPS_JUDGED

CALIBRATION_UTTERANCES = 2
Card = tuple[str, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One recipe: seconds, and the work in it. `operations`: of torch, each at least one start on a GPU."""

    seconds: float
    flops: int
    operations: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base", "small", "large-v3-turbo"])
    parser.add_argument("--compute", nargs="+", default=["cpu"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument(
        "--calculate", nargs=4, action="append", default=[], metavar=("NAME", "TFLOPS", "TB_PER_S", "MICROSECONDS")
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cards = [(name, float(flops), float(rate), float(start)) for name, flops, rate, start in options.calculate]
    print("| model | million parameters | where | s a recipe | recipes an hour | |\n|---|---|---|---|---|---|")
    for name in options.models:
        for row in rows(name, options.compute, cards, options.repeats):
            print("| " + " | ".join(row) + " |", flush=True)


def rows(name: str, computes: list[str], cards: list[Card], repeats: int) -> Iterator[tuple[str, ...]]:
    judged: Judged | None = None
    for compute in computes:
        device = compute_device(compute)
        model = model_of(name).on(device)
        judged = judge(model, repeats)
        yield row(name, model, name_of(device), judged.seconds, "measured")
    if judged:
        for card in cards:
            yield row(name, model, card[0], calculated_s(judged, model, card), "calculated, at best")


def row(name: str, model: LoadedModel, where: str, seconds: float, how: str) -> tuple[str, ...]:
    parameters = f"{model.dimensions.parameters / 1e6:.0f}"
    return name, parameters, where, f"{seconds:.3g}", f"{3600 / seconds:,.0f}", how


def calculated_s(judged: Judged, model: LoadedModel, card: Card) -> float:
    _, tera_flops, terabytes, microseconds = card
    weights = 4 * model.dimensions.parameters * CLIPS_JUDGED / (1e12 * terabytes)
    return max(judged.flops / (1e12 * tera_flops), weights, judged.operations * microseconds / 1e6)


def model_of(name: str) -> LoadedModel:
    if not must_be_downloaded(name):
        return load_model(name)
    return replace(random_model(name, published_dimensions(name)), digest=f"random {name}")


def judge(model: LoadedModel, repeats: int) -> Judged:
    speech = load_speech_set(Path("sample-search"), language="en")
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    calibration = calibrate(model, speech, limit=CALIBRATION_UTTERANCES, features=features)
    meter = DivergenceMeter(model, draw_clips(speech.utterances, CLIPS_JUDGED, seed=0, widen=False))
    recipe = four_bits(model)
    one(model, recipe, calibration, meter)  # rounds, and asks the original
    counter, operations = FlopCounterMode(display=False), Operations()
    with counter, operations:
        one(model, recipe, calibration, meter)
    seconds = [one(model, recipe, calibration, meter) for _ in range(repeats)]
    return Judged(seconds=median(seconds), flops=counter.get_total_flops(), operations=operations.count)


def one(model: LoadedModel, recipe: Recipe, calibration: Calibration, meter: DivergenceMeter) -> float:
    """Seconds."""
    started = perf_counter()
    meter.measure(compress(model, recipe, calibration), window_s=recipe.window_s)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter() - started


class Operations(TorchDispatchMode):
    """Counts what torch is asked to compute; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


if __name__ == "__main__":
    main()
