"""How long `whisperfit reprice` takes, as a user waits for it: the whole command, Python's start included.

    python benchmarks/speed/reprice.py [--trials 300] [--device rpi4] [--run results/first] [--repeats 5] [--json]

Two runs: one of `--trials` trials that is made up here, and the one in `--run`. The made-up run is a study as a search
leaves it (tiny.en's dimensions, per-layer space, recipes drawn at random, costs of i.MX 8M Plus, a size limit that
rejects some, errors of 80 utterances in each record); only its word errors are invented. Medians over the repeats.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import STACKS
from devices.profile import DeviceProfile, load_profile
from evaluators.accuracy.error_rate import ErrorRate
from search.configuration.config import SearchConfig
from search.engines.optuna_engine import OptunaEngine
from search.front import front
from search.outcome import Confirmation
from search.pricing import mark_unscored, rejection, trial_costs
from search.records.folder import RunFolder
from search.records.run_records import RunFacts, save_confirmation, save_facts
from search.records.study_store import StudyStore
from search.space.genes import units_of
from search.space.space import Space, fine
from search.trial import Trial, TrialAccuracy, TrialCosts, TrialState, UtteranceErrors

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from search.cli import main; main()")
TINY_EN = Dimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=384,
    n_audio_head=6,
    n_audio_layer=4,
    n_vocab=51864,
    n_text_ctx=448,
    n_text_state=384,
    n_text_head=6,
    n_text_layer=4,
)
UTTERANCES, WORDS = 80, 30
"""Of the made-up speech, and in each of its utterances."""
BASELINE_WER, HOPELESS_WER = 0.07, 0.12


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of the whole command; `front` counts the trials on the device's front."""

    run: str
    device: str
    trials: int
    front: int
    repeats: int
    median_s: float
    fastest_s: float
    slowest_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--device", default="rpi4")
    parser.add_argument("--run", type=Path, default=ROOT / "results" / "first")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        made_up = synthetic_run(Path(scratch) / "made-up", trials=options.trials, max_size_mb=45)
        out = Path(scratch) / "repriced"
        runs = (("made up", made_up.path), (options.run.name, options.run.absolute()))
        timings = [timed(name, run, options.device, out / name, options.repeats) for name, run in runs]
    if options.json:
        print(json.dumps({"timings": [asdict(timing) for timing in timings]}, indent=2))
        return
    for timing in timings:
        print(
            f"{timing.run}, {timing.trials} trials, on {timing.device}: {timing.median_s:.2f} s "
            f"({timing.fastest_s:.2f} to {timing.slowest_s:.2f}, {timing.repeats} repeats), front of {timing.front}"
        )


def timed(name: str, run: Path, device: str, out: Path, repeats: int) -> Timing:
    """The command's time over the repeats, after one that is not counted."""
    arguments = [*COMMAND, "reprice", str(run), "--device", device, "--out", str(out), "--json"]
    seconds = []
    for _ in range(repeats + 1):
        started = perf_counter()
        ended = subprocess.run(arguments, check=True, cwd=ROOT, capture_output=True, text=True)
        seconds.append(perf_counter() - started)
    shown = json.loads(ended.stdout)
    return Timing(
        run=name,
        device=device,
        trials=shown["trials"],
        front=len(shown["front"]),
        repeats=repeats,
        median_s=median(seconds[1:]),
        fastest_s=min(seconds[1:]),
        slowest_s=max(seconds[1:]),
    )


def synthetic_run(
    path: Path, *, trials: int, device: str = "imx8mplus", max_size_mb: float | None = None, seed: int = 0
) -> RunFolder:
    """A run of so many trials, all of them told to its study; recipes and costs are real, word errors are made up.

    The front is confirmed, half of it within the budget.
    """
    flags = {"model": "tiny.en", "device": device, "trials": trials, "max_size_mb": max_size_mb, "seed": seed}
    config = SearchConfig.build(None, flags)
    profile = load_profile(device)
    folder = RunFolder.create(path, config)
    folder.write_environment({"device_sha256": profile.digest})
    store = StudyStore(folder.study)
    save_facts(store, _facts(config, profile))
    rng = np.random.default_rng(seed)
    space = made_up_space(profile, rng)
    engine = OptunaEngine(store, space, sampler="random", seed=seed)
    told: list[Trial] = []
    for number in range(trials):
        recipe = space.decode(space.sample(rng) if told else space.default_genes)
        trial = made_up_trial(number, recipe, told[0] if told else None, profile, config, rng)
        told.append(engine.add(trial))
    for place, trial in enumerate((told[0], *front(told))):
        save_confirmation(store, trial.recipe, _confirmation(trial, within_budget=place % 2 == 0))
    return folder


def _facts(config: SearchConfig, profile: DeviceProfile) -> RunFacts:
    return RunFacts(
        model="tiny.en",
        device=profile.name,
        speech="made up",
        confirm_speech="made up too",
        normaliser="none",
        wer_budget=config.wer_budget,
        utterances=UTTERANCES,
        broken_lines=0,
        confirm_broken_lines=0,
        dimensions=TINY_EN,
        limits=config.cost_limits(profile.ram_available_mb),
    )


def made_up_space(profile: DeviceProfile, rng: np.random.Generator) -> Space:
    """The per-layer space of the device, with random importance."""
    original = Recipe.original(TINY_EN)
    importance = {
        f"{stack}.{index}.{units}": rng.random(getattr(layer, units), dtype=np.float32)
        for stack in STACKS
        for index, layer in enumerate(getattr(original, stack))
        for units in units_of(stack)
    }
    return Space(
        original=original,
        dimensions=TINY_EN,
        choices=fine(TINY_EN, profile.runtime, 16),
        importance=importance,
        layer_importance={key.rpartition(".")[0]: float(rng.random()) for key in importance},
        channel_block=profile.runtime.channel_multiple,
        vocabulary_language="en",
    )


def made_up_trial(  # noqa: PLR0913, PLR0917 - what a trial is made of
    number: int,
    recipe: Recipe,
    baseline: Trial | None,
    profile: DeviceProfile,
    config: SearchConfig,
    rng: np.random.Generator,
) -> Trial:
    """As `search.scorer` makes it, without a model."""
    costs = trial_costs(recipe, TINY_EN, profile, config)
    original = baseline.recipe if baseline else recipe
    violations = config.cost_limits(profile.ram_available_mb).violations(costs)
    reason = rejection(recipe, violations, profile.runtime, original=original) if baseline else None
    state: TrialState = "rejected" if reason else "complete"
    accuracy = None
    if not reason:
        wer = BASELINE_WER if baseline is None else BASELINE_WER * rng.uniform(0.9, 2.2)
        state = "stopped" if wer > HOPELESS_WER else "complete"
        accuracy = _accuracy(wer, UTTERANCES // 4 if state == "stopped" else UTTERANCES)
        baseline_rate = baseline.accuracy.rate if baseline and baseline.accuracy else accuracy.rate
        violations["wer"] = accuracy.wer / config.parsed_wer_budget.limit(baseline_rate).wer - 1
    mark_unscored(violations, state)
    return Trial(
        number=number,
        recipe=recipe,
        state=state,
        objective=config.parsed_objective.value(costs, _costs_of(baseline, costs)),
        costs=costs,
        accuracy=accuracy,
        violations=violations,
        seconds=20.0,
        note=reason or "",
    )


def _costs_of(baseline: Trial | None, otherwise: TrialCosts) -> TrialCosts:
    return baseline.costs if baseline else otherwise


def _accuracy(wer: float, utterances: int) -> TrialAccuracy:
    """Substitutions only, spread evenly."""
    errors = round(wer * utterances * WORDS)
    spread = [errors * (n + 1) // utterances - errors * n // utterances for n in range(utterances)]
    scored = [
        UtteranceErrors(id=f"utterance-{n:04}", insertions=0, deletions=0, substitutions=error, words=WORDS)
        for n, error in enumerate(spread)
    ]
    words = utterances * WORDS
    return TrialAccuracy(rate=_rate(errors, words), utterances=tuple(scored))


def _confirmation(trial: Trial, *, within_budget: bool) -> Confirmation:
    wer = trial.accuracy.wer if trial.accuracy else BASELINE_WER
    return Confirmation(rate=_rate(round(1000 * wer), 1000), within_budget=within_budget)


def _rate(errors: int, words: int) -> ErrorRate:
    wer = errors / words
    return ErrorRate(
        errors=errors, words=words, low=0.8 * wer, high=1.2 * wer, insertions=0, deletions=0, substitutions=errors
    )


if __name__ == "__main__":
    main()
