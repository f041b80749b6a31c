"""What a run's loop takes beside scoring, as the run grows, and how long `whisperfit report` takes then.

    python benchmarks/speed/run_overhead.py [--trials 100,1000,4000] [--steps 5] [--sampler tpe] [--json]

Runs of so many trials are made up as in `reprice.py`; then the real loop goes on for some trials whose scoring takes no
time: the proposal (sampler and local steps), and all the rest (store, ledger, outcome, CSV files). `opening` is what a
resume takes to read the run; `report` is the whole command, Python's start included.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from reprice import COMMAND, ROOT, TINY_EN, made_up_space, made_up_trial, synthetic_run

from compression.recipe.recipe import Recipe
from devices.profile import load_profile
from search.configuration.options import SamplerName
from search.engines.base import Proposal
from search.engines.local_steps import LocalSteps
from search.engines.optuna_engine import OptunaEngine
from search.outcome import Outcome
from search.pricing import rejection, trial_costs
from search.records.folder import RunFolder
from search.records.ledger import Ledger
from search.records.study_store import StudyStore
from search.report.result_files import ResultFiles
from search.run.interrupts import Interruption
from search.run.loop import Run
from search.run.time_budget import End, RunClock, TimeBudget
from search.scorer import Baseline
from search.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """Seconds; medians over the steps, after one that is not counted."""

    trials: int
    opening_s: float
    proposal_s: float
    rest_s: float
    report_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="100,1000,4000")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--sampler", default="tpe", choices=("tpe", "nsga2", "random"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for count in map(int, options.trials.split(",")):
        with tempfile.TemporaryDirectory() as scratch:
            folder = synthetic_run(Path(scratch) / "run", trials=count, max_size_mb=45)
            found = overhead(folder, count, options.steps, options.sampler)
        if options.json:
            print(json.dumps(asdict(found)), flush=True)
            continue
        print(
            f"{found.trials} trials: {found.rest_s:.3f} s a trial beside {found.proposal_s:.3f} s for its proposal; "
            f"opening {found.opening_s:.2f} s, report {found.report_s:.1f} s",
            flush=True,
        )


def overhead(folder: RunFolder, trials: int, steps: int, sampler: SamplerName) -> Overhead:
    started = perf_counter()
    store = StudyStore(folder.study)
    ledger = Ledger(store)
    opening_s = perf_counter() - started
    made_up = _MadeUp(folder, ledger)
    space = made_up_space(made_up.profile, np.random.default_rng(0))
    engine = _TimedSteps(OptunaEngine(store, space, sampler=sampler, seed=1), space, ledger, made_up)
    watcher = _Watcher(ResultFiles(folder.path, TINY_EN))
    run = Run(
        space=space,
        engine=engine,
        scorer=made_up,
        ledger=ledger,
        clock=RunClock(store, perf_counter, started=perf_counter()),
        watcher=watcher,
        interruption=Interruption(lambda: None),
    )
    end = End(seconds=None, trials=len(ledger.scored) + steps + 1)
    begun = perf_counter()
    run.search(TimeBudget(ledger=ledger, end=end, confirm_share=0.0))
    times = np.diff([begun, *watcher.times])
    proposals_s = engine.seconds_by_trial(watcher.numbers)
    return Overhead(
        trials=trials,
        opening_s=opening_s,
        proposal_s=median(proposals_s[1:]),
        rest_s=median([whole - proposal for whole, proposal in zip(times, proposals_s, strict=True)][1:]),
        report_s=_timed(
            lambda: subprocess.run([*COMMAND, "report", str(folder.path)], check=True, cwd=ROOT, capture_output=True)
        ),
    )


def _timed(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


class _TimedSteps(LocalSteps):
    """Notes what each trial's proposals took, those that were known before it included."""

    asked: list[tuple[int, float]]

    def ask(self) -> Proposal:
        started = perf_counter()
        proposal = super().ask()
        self.asked = [*getattr(self, "asked", []), (proposal.number, perf_counter() - started)]
        return proposal

    def seconds_by_trial(self, numbers: list[int]) -> list[float]:
        bounds = [-1, *numbers]
        return [
            sum(seconds for number, seconds in self.asked if after < number <= until)
            for after, until in pairwise(bounds)
        ]


class _Watcher:
    def __init__(self, results: ResultFiles) -> None:
        self._results = results
        self.times: list[float] = []
        self.numbers: list[int] = []

    def started(self, number: int, recipe: Recipe) -> None:
        self.numbers.append(number)

    def finished(self, outcome: Outcome, elapsed_s: float) -> None:
        self._results.write(outcome)
        self.times.append(perf_counter())


class _MadeUp:
    """A scorer whose costs are real and whose word errors are drawn."""

    def __init__(self, folder: RunFolder, ledger: Ledger) -> None:
        self._config = folder.config()
        self._ledger = ledger
        self._rng = np.random.default_rng(1)
        self.profile = load_profile(self._config.device)

    def baseline(self, trial: Trial) -> Baseline:
        if trial.accuracy is None:
            raise ValueError("the made-up original has a WER")
        return Baseline(accuracy=trial.accuracy, wer_limit=1.0)

    def score(self, number: int, recipe: Recipe, baseline: Baseline | None) -> Trial:
        return made_up_trial(number, recipe, self._ledger.trials[0], self.profile, self._config, self._rng)

    def failed(self, number: int, recipe: Recipe, note: str) -> Trial:
        raise NotImplementedError

    def objective(self, recipe: Recipe) -> float:
        costs = trial_costs(recipe, TINY_EN, self.profile, self._config)
        return self._config.parsed_objective.value(costs, self._ledger.trials[0].costs)

    def rejection(self, recipe: Recipe) -> str | None:
        costs = trial_costs(recipe, TINY_EN, self.profile, self._config)
        violations = self._config.cost_limits(self.profile.ram_available_mb).violations(costs)
        return rejection(recipe, violations, self.profile.runtime, original=self._ledger.trials[0].recipe)


if __name__ == "__main__":
    main()
