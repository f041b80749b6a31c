"""Searches of a modelled world: what each method had judged, and would have picked, after how many seconds.

Time is a model's for what the search waits for (COMPRESS_S, SCORE_S, JUDGE_S) and measured for what the search itself
computes: CPU seconds of this process around ask and tell, and in our run loop around everything.
"""

import logging
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import process_time
from typing import Any
from unittest.mock import patch

import optuna
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from world import BLOCK, World, rate_of

from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from search.configuration.knobs import ScreeningKnobs
from search.engines.archive import Archive
from search.engines.evolution import Evolution
from search.engines.optuna_engine import OptunaEngine
from search.limits.stopping import surely_over_budget
from search.limits.verdict import Judge
from search.outcome import Outcome
from search.records.ledger import Ledger
from search.records.run_records import save_facts
from search.records.study_store import StudyStore
from search.run.interrupts import Interruption
from search.run.loop import Run
from search.run.measuring import Executor
from search.run.screening import Screening
from search.run.time_budget import End, RunClock, TimeBudget
from search.scorer import Baseline, clips_of, never
from search.trial import Heard, Transcripts, Trial, TrialAccuracy, TrialState

COMPRESS_S = 0.2
"""tiny.en with matrices that were rounded before (benchmarks/results/compress_speed_tiny.en.json)."""
NO_BANK_S = 2.0
"""The mean before there was a bank of rounded matrices (benchmarks/results/compress_speed_tiny.en_c3c7906.json)."""
SCORE_S = 8.8
"""80 utterances; the median of the complete trials of results/seventh."""
JUDGE_S = {False: 2.0, True: 6.9}
"""32 clips, compressing included, by whether the encoder is a new one; twice the medians of 16 in results/seventh."""
ENCODERS_KEPT = 28
"""Of which the outputs for 16 clips fit the meter's cache of 512 MB."""
NO_END = End(seconds=None, trials=None)
CONFIDENCE = 0.5
"""As peers have it: what is expected to be just within the budget will do."""
REFERENCE = (1.0, 0.4)
"""Objective and expected rise up to which hypervolume counts: the original's, four times the budget."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that was judged or scored, or a pick that changed. `objective`, `expected`, `true`: of that recipe."""

    seconds: float
    kind: str
    objective: float
    expected: float
    true: float


@dataclass(kw_only=True)
class Trace:
    """Of one search. `spent`: seconds by what they went into."""

    events: list[Event] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return sum(self.spent.values())

    def spend(self, what: str, seconds: float) -> None:
        self.spent[what] = self.spent.get(what, 0.0) + seconds

    def note(self, world: World, kind: str, recipe: Recipe) -> None:
        self.events.append(
            Event(
                seconds=self.seconds,
                kind=kind,
                objective=world.objective(recipe),
                expected=world.expected_rise(recipe),
                true=world.true_rise(recipe),
            )
        )


# peers

Ask = Callable[[], dict[str, int]]
Tell = Callable[[float, float], None]
"""Objective, and the violation of the WER."""


def peer(world: World, method: str, *, seed: int, limit_s: float) -> Trace:
    """Every recipe is compressed and scored; the pick is the cheapest that was measured to be within the budget."""
    ask, tell = _nni(world, seed) if method == "NNI TPE" else _optuna(world, method, seed)
    trace, best = Trace(), float("inf")
    names = [name for name, values in world.space.choices.items() if len(values) > 1]
    while trace.seconds < limit_s:
        started = process_time()
        indices = ask()
        trace.spend("proposals", process_time() - started)
        genes = {name: world.space.choices[name][indices[name]] for name in names}
        recipe = world.space.decode({**world.space.default_genes, **genes})
        objective, errors = world.objective(recipe), sum(u.errors for u in world.errors(recipe))
        over = world.limit.violation(errors)
        trace.spend("compressing", COMPRESS_S)
        trace.spend("transcripts", SCORE_S)
        started = process_time()
        tell(objective, over)
        trace.spend("proposals", process_time() - started)
        trace.note(world, "scored", recipe)
        if over <= 0 and objective < best:
            best = objective
            trace.note(world, "pick", recipe)
    return trace


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "NSGA-II": lambda seed: NSGAIISampler(seed=seed),
    "TPE": lambda seed: TPESampler(seed=seed),
    "GP": lambda seed: GPSampler(seed=seed),
}


def _optuna(world: World, method: str, seed: int) -> tuple[Ask, Tell]:
    """As a user writes it: minimise the objective, the WER is a constraint; the original is tried first."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    study = optuna.create_study(sampler=SAMPLERS[method](seed))
    spaces = {n: IntDistribution(0, len(v) - 1) for n, v in world.space.choices.items() if len(v) > 1}
    study.enqueue_trial(dict.fromkeys(spaces, 0))
    asked: list[optuna.Trial] = []

    def ask() -> dict[str, int]:
        asked.append(study.ask(spaces))
        return dict(asked[-1].params)

    def tell(objective: float, over: float) -> None:
        asked[-1].set_constraint("wer", over)
        study.tell(asked[-1], objective)

    return ask, tell


def _nni(world: World, seed: int) -> tuple[Ask, Tell]:
    """NNI's tuner minimises one number: the objective, or where the WER is over the budget 1 + the violation."""
    logging.getLogger("nni").setLevel(logging.WARNING)  # it would write into the tables
    tuner = TpeTuner(seed=seed)
    lengths = {n: len(v) for n, v in world.space.choices.items() if len(v) > 1}
    tuner.update_search_space({n: {"_type": "randint", "_value": [0, count]} for n, count in lengths.items()})
    number = iter(range(1 << 30))
    asked: list[int] = []

    def ask() -> dict[str, int]:
        asked.append(next(number))
        return {name: int(value) for name, value in tuner.generate_parameters(asked[-1]).items()}

    def tell(objective: float, over: float) -> None:
        tuner.receive_trial_result(asked[-1], None, objective if over <= 0 else 1 + over)

    return ask, tell


# ours


class _NoModel(Evolution):
    """Any child will do."""

    def _child(self) -> dict[str, object] | None:  # type: ignore[override]
        self._fitted = 1
        children = self._children(self._parent())
        return dict(children[0][0]) if children else None


class _NoStart(Evolution):
    """Children of one recipe, all weights at the second most bits; no gene is tried alone."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._starts, self._steps = self._starts[1:2], []


class _Simulated:
    """A scorer (see `search.run.loop.Scorer`) and meter of the world, which let time pass."""

    def __init__(
        self, world: World, trace: Trace, clock: "_Clock", *, races: bool, compress_s: float = COMPRESS_S
    ) -> None:
        self._world, self._trace, self._clock, self._races = world, trace, clock, races
        self._compress_s = compress_s
        self._encoders: OrderedDict[str, None] = OrderedDict()
        self._compressed = ""
        self.objective, self.rejection = world.objective, world.rejection

    def divergence(
        self, recipe: Recipe, enough: Callable[[Divergence], bool], known: Divergence | None = None
    ) -> Divergence:
        with self._clock.stopped():
            whole, key = self._world.divergence(recipe), recipe.encoder_key
        first = clips_of(known)
        found = next((d for n in range(first + 1, whole.clips) if enough(d := whole.of_first(n))), whole)
        with self._clock.stopped():
            self._clock.wait("compressing", self._compress_s - COMPRESS_S)
            share = (found.clips - first) / whole.clips
            self._clock.wait("divergence", JUDGE_S[key not in self._encoders] * share)
            self._encoders[key] = None
            self._encoders.move_to_end(key)
            if len(self._encoders) > ENCODERS_KEPT:
                self._encoders.popitem(last=False)
            self._trace.note(self._world, "judged", recipe)
        return found

    def baseline(self, trial: Trial) -> Baseline:
        if trial.accuracy is None:
            raise ValueError("the original has no WER")
        return Baseline(accuracy=trial.accuracy, wer_limit=self._world.limit)

    def score(
        self, number: int, recipe: Recipe, baseline: Baseline | None, divergence: Divergence | None = None
    ) -> Trial:
        heard: list[Heard] = []
        stopped = None
        for block in range(self.blocks):
            if baseline and heard and (stopped := self.over(heard, baseline)):
                break
            heard.append(self.hear(recipe, block))
        is_judged = clips_of(divergence) >= self.most_clips
        whole = divergence if is_judged else self.divergence(recipe, never, divergence)
        trial = self.assembled(number, recipe, heard, baseline=baseline, divergence=whole, stopped=stopped)
        return replace(trial, seconds=self._compress_s + SCORE_S * len(heard) / self.blocks)

    @property
    def blocks(self) -> int:
        return -(-len(self._world.utterances) // BLOCK)

    @property
    def most_clips(self) -> int:
        return ScreeningKnobs().judged_clips

    def hear(self, recipe: Recipe, block: int) -> Heard:
        with self._clock.stopped():
            errors = self._world.errors(recipe)
            share = 1 / self.blocks
            if recipe.id != self._compressed:
                self._compressed = recipe.id
                self._clock.wait("compressing", self._compress_s)
            self._clock.wait("transcripts", SCORE_S * share)
            found = tuple(errors[block * BLOCK : (block + 1) * BLOCK])
        return Heard(utterances=found, transcripts=Transcripts.of(()))

    def over(self, heard: Sequence[Heard], baseline: Baseline) -> str | None:
        scored = [utterance for block in heard for utterance in block.utterances]
        return surely_over_budget(scored, baseline.errors, wer_limit=self._world.limit) if self._races else None

    def assembled(  # noqa: PLR0913 - as `search.scorer.Scorer`
        self,
        number: int,
        recipe: Recipe,
        heard: Sequence[Heard],
        *,
        baseline: Baseline | None,
        divergence: Divergence | None,
        stopped: str | None = None,
    ) -> Trial:
        del baseline
        errors = [utterance for block in heard for utterance in block.utterances]
        accuracy = TrialAccuracy(rate=rate_of(errors), utterances=tuple(errors))
        state: TrialState = "stopped" if stopped else "complete"
        judge = Judge(wer_limit=self._world.limit, group_limits=None, errors={u.id: u for u in self._world.utterances})
        violations = self._world.violations(recipe) | judge.violations(accuracy, state)
        self._trace.note(self._world, "scored", recipe)
        found = divergence or self._world.divergence(recipe)
        return self._trial(number, recipe, state, violations, stopped or "", 0.0, accuracy, found)

    def stopped(self, number: int, recipe: Recipe, divergence: Divergence, note: str) -> Trial:
        return self._trial(number, recipe, "stopped", self._world.violations(recipe), note, 0.0, None, divergence)

    def failed(self, number: int, recipe: Recipe, note: str) -> Trial:
        raise RuntimeError(f"trial {number}, {recipe.id}: {note}")

    def _trial(  # noqa: PLR0913, PLR0917 - a trial's fields
        self,
        number: int,
        recipe: Recipe,
        state: TrialState,
        violations: dict[str, float],
        note: str,
        seconds: float,
        accuracy: TrialAccuracy | None,
        divergence: Divergence,
    ) -> Trial:
        return Trial(
            number=number,
            recipe=recipe,
            state=state,
            objective=self._world.objective(recipe),
            costs=self._world.costs(recipe),
            accuracy=accuracy,
            violations=violations,
            seconds=seconds,
            note=note,
            divergence=divergence,
        )


class _Clock:
    """Seconds of the trace, and those that the search computes; what the world computes is not counted."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._since = process_time()

    def __call__(self) -> float:
        now = process_time()
        self._trace.spend("proposals and records", now - self._since)
        self._since = now
        return self._trace.seconds

    def wait(self, what: str, seconds: float) -> None:
        self._trace.spend(what, seconds)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self()
        yield
        self._since = process_time()


@dataclass
class _Watcher:
    """Notes the pick whenever it changes."""

    world: World
    trace: Trace
    clock: _Clock
    picked: str = ""

    def started(self, number: int, recipe: Recipe) -> None:
        pass

    def finished(self, outcome: Outcome, _: float) -> None:
        with self.clock.stopped():
            pick = outcome.recommended
            if pick and pick.recipe.id != self.picked:
                self.picked = pick.recipe.id
                self.trace.note(self.world, "pick", pick.recipe)


@dataclass(frozen=True)
class _Until(TimeBudget):
    """Nothing is kept for confirming and exporting."""

    limit_s: float = 0.0

    def used_up(self, elapsed_s: float) -> str | None:  # type: ignore[override]
        return "time" if elapsed_s > self.limit_s else None


def search_of(  # noqa: PLR0913 - the parts of a search
    world: World,
    store: StudyStore,
    trace: Trace,
    *,
    clock: Callable[[], float],
    scorer: _Simulated,
    seed: int,
    engine: type[Evolution] = Evolution,
    executor: Callable[[Callable[[], Baseline | None]], Executor] | None = None,
) -> Callable[[float], Ledger]:
    """The run loop, the engine, screening and the records as they are, without files of results.

    To be called with the seconds that the search may take. `executor`: made of what gives the baseline.
    """
    save_facts(store, replace(world.facts, confidence=CONFIDENCE))
    ledger, archive = Ledger(store), Archive()
    screening = Screening(archive, ledger, world.space, confidence=CONFIDENCE)
    sampler = OptunaEngine(store, world.space, sampler="random", seed=seed)
    run = Run(
        space=world.space,
        engine=engine(sampler, world.space, archive, world, target=screening.target, seed=seed),
        scorer=scorer,
        ledger=ledger,
        clock=RunClock(store, clock, started=0.0),
        watcher=_Watcher(world, trace, clock),  # type: ignore[arg-type]
        interruption=Interruption(lambda: None),
        screening=screening,
        executor=executor and executor(lambda: scorer.baseline(ledger.trials[0]) if ledger.trials else None),
    )

    def search(seconds: float) -> Ledger:
        run.search(_Until(ledger=ledger, end=NO_END, confirm_share=0.0, limit_s=seconds))
        return ledger

    return search


def ours(world: World, method: str, *, seed: int, limit_s: float) -> Trace:
    """A search of ours, whole or without one of its parts."""
    trace = Trace()
    clock = _Clock(trace)
    compress_s = NO_BANK_S if "no bank" in method else COMPRESS_S
    scorer = _Simulated(world, trace, clock, races="no race" not in method, compress_s=compress_s)
    engine = {"ours, no model": _NoModel, "ours, no start": _NoStart}.get(method, Evolution)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        store = StudyStore(Path(folder) / "study.db")
        search = search_of(world, store, trace, clock=clock, scorer=scorer, seed=seed, engine=engine)
        with patch("search.run.measuring.perf_counter", clock):
            search(limit_s)
    return trace
