"""CPU seconds to compress recipes in the order in which a search proposes them, on one thread.

    python benchmarks/speed/compress_speed.py [--model tiny.en] [--space fine] [--recipes 50] [--json]

Everything a first run on this machine does: calibration, the profile, the search's starting points, then neighbours of
what came before, drawn with a seed. The cache folder is a new one, so nothing was rounded before. `output_error` is
what the stored matrices do to their outputs, sum d^T M d over sum w^T M w of all matrices on integer grids: two
revisions that round alike have the same. For another revision, from a worktree of it:

    git worktree add --detach /tmp/before c3c7906
    PYTHONPATH=/tmp/before python benchmarks/speed/compress_speed.py --json
"""

import argparse
import json
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from statistics import median
from time import process_time
from typing import TypeVar

import numpy as np
import torch

from compression.calibration.calibration import Calibration
from compression.calibration.inputs import EMBEDDING
from compression.compress import compress, multiplied, unrounded
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel, load_model
from devices.profile import load_profile
from evaluators.learning.calibration import calibrate, sensitivity_profile
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet
from search.configuration.name_or_path import speech_path
from search.engines.proposals import DOWN, UP, starting_genes
from search.loading import load_speech, use_threads
from search.space.genes import MEAN_BITS
from search.space.space import MEASURE, PRESETS, Space, common_bits, with_original

STAYS = 0.5
"""How often a parent stays when a neighbour was tried."""
CALIBRATION_UTTERANCES = 32
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """CPU seconds of one thread, and memory: of the process before the first recipe, and at most."""

    model: str
    space: str
    device: str
    calibration_s: float
    profile_s: float
    median_s: float
    total_s: float
    loaded_mb: float
    peak_mb: float
    recipes: tuple[str, ...]
    seconds: tuple[float, ...]
    output_errors: tuple[float, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--data", default="sample", help="speech to calibrate on")
    parser.add_argument("--device", default="imx8mplus")
    parser.add_argument("--space", default="fine", choices=tuple(PRESETS))
    parser.add_argument("--recipes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    use_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["WHISPERFIT_CACHE"] = cache
        found = speed(options)
    if options.json:
        print(json.dumps(asdict(found)))
        return
    print(
        f"{found.model}, {found.space} space of {found.device}: median {found.median_s:.2f} s, {len(found.recipes)} "
        f"recipes {found.total_s:.1f} s, calibration {found.calibration_s:.1f} s, profile {found.profile_s:.1f} s, "
        f"{found.peak_mb:.0f} MB at most, {found.loaded_mb:.0f} MB before the first"
    )


def speed(options: argparse.Namespace) -> Speed:
    model = load_model(options.model)
    speech = load_speech(speech_path(options.data), model, language=None, skip_broken=False)
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    for utterance in speech.utterances[:CALIBRATION_UTTERANCES]:
        features.mel(utterance)
    calibration, calibration_s = _timed(
        lambda: calibrate(model, speech, limit=CALIBRATION_UTTERANCES, features=features)
    )
    space, profile_s = _timed(lambda: _space(options, model, speech, features, calibration))
    recipes = tuple(proposed(space, options.recipes, np.random.default_rng(options.seed)))
    loaded_mb = _peak_mb()
    seconds, errors = [], []
    for recipe in recipes:
        compressed, taken_s = _timed(lambda recipe=recipe: compress(model, recipe, calibration))  # type: ignore[misc]
        seconds.append(taken_s)
        errors.append(output_error(model, recipe, calibration, compressed))
    return Speed(
        model=options.model,
        space=options.space,
        device=options.device,
        calibration_s=round(calibration_s, 2),
        profile_s=round(profile_s, 2),
        median_s=round(median(seconds), 3),
        total_s=round(sum(seconds), 2),
        loaded_mb=round(loaded_mb),
        peak_mb=round(_peak_mb()),
        recipes=tuple(recipe.id for recipe in recipes),
        seconds=tuple(round(taken_s, 3) for taken_s in seconds),
        output_errors=tuple(float(f"{error:.6g}") for error in errors),
    )


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    started = process_time()
    result = work()
    return result, process_time() - started


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _space(
    options: argparse.Namespace,
    model: LoadedModel,
    speech: SpeechSet,
    features: CachedFeatures,
    calibration: Calibration,
) -> Space:
    """As a session makes it; its profile is made for a fine space as well, which the default one needs."""
    runtime = load_profile(options.device).runtime
    original = Recipe.original(model.dimensions, stored_bits=model.stored_bits)
    presets = PRESETS[options.space](model.dimensions, runtime, model.stored_bits)
    choices = with_original(presets, original, model.dimensions)
    first = {name: choices[name][0] for name in ("group_size", "symmetric", "rounding")}
    sensitivity = sensitivity_profile(
        model,
        speech,
        limit=CALIBRATION_UTTERANCES,
        features=features,
        grid=replace(original, **first),
        bits=common_bits(runtime, model.stored_bits),
    )
    return Space(
        original=original,
        dimensions=model.dimensions,
        choices=choices,
        importance=calibration.importance(MEASURE),
        layer_importance=calibration.layer_importance,
        sensitivity=sensitivity if MEAN_BITS in choices else {},
        channel_block=runtime.channel_multiple,
        vocabulary_language="en",
    )


def proposed(space: Space, count: int, rng: np.random.Generator) -> Iterator[Recipe]:
    """So many different recipes: the starting points, then neighbours of parents at several cost levels.

    The parents are the starting points with the vocabularies that there are; a neighbour differs by two genes, and may
    take its parent's place. All are rounded with regard to inputs and keep their layers, as what costs most does.
    """
    starts = starting_genes(space)
    known = set(map(space.decode, starts))
    yield from map(space.decode, starts)
    vocabularies = space.choices["vocabulary"]
    parents = [{**genes, "vocabulary": vocabularies[i % len(vocabularies)]} for i, genes in enumerate(starts[1:])]
    names = [name for name in space.choices if not name.endswith(("kept", "layers_removed", "rounding", "window_s"))]
    while len(known) < count:
        place = rng.integers(len(parents))
        child = dict(parents[place])
        for name in rng.choice(names, size=2, replace=False):
            values = space.choices[name]
            index = values.index(child[name]) + int(rng.choice([*DOWN, *DOWN, *UP]))
            child[name] = values[min(max(index, 0), len(values) - 1)]
        recipe = space.decode(child)
        if recipe not in known:
            known.add(recipe)
            yield recipe
        if rng.random() > STAYS:
            parents[place] = child


def output_error(model: LoadedModel, recipe: Recipe, calibration: Calibration, compressed: Compressed) -> float:
    """Over all matrices on integer grids that multiply what was recorded, relative to their outputs' squares."""
    before = unrounded(model, recipe, calibration)
    error, whole = 0.0, 0.0
    mixed = compressed.mixed_embedding
    for name, matrix in (*compressed.matrices.items(), *(((EMBEDDING, mixed),) if mixed else ())):
        if "conv" not in name:
            moment = before.inputs.of(multiplied(name)).moment.float()
            weight = before.network.get_submodule(name).get_parameter("weight").detach()
            error += _square(matrix.dequantised() - weight, moment)
            whole += _square(weight, moment)
    return error / whole if whole else 0.0


def _square(weight: torch.Tensor, moment: torch.Tensor) -> float:
    return float(((weight @ moment) * weight).sum(dtype=torch.float64))


if __name__ == "__main__":
    main()
