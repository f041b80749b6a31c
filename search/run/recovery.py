"""Training inside a search: after the search proper, the most promising recipes are made better (see `halving`)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from time import monotonic

from common.errors import CompressionError, EvaluationError, InputError
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import RecoveryMethod
from compression.techniques.trained_weights import RECIPE_FILE
from compression.training.checkpoint import Checkpoint, Point
from compression.training.run import Limits
from compression.training.settings import TrainingSettings
from compression.training.subject import can_be_trained
from evaluators.learning.training_speech import TrainingSpeech
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet
from search.engines.archive import Judged
from search.engines.base import Engine
from search.memory_errors import telling_memory_shortage
from search.outcome import EndReason
from search.record_json import RecordFormat
from search.records.ledger import Ledger
from search.records.study_store import StudyStore
from search.recover_trial import (
    Listener,
    Recovered,
    RecoveryPlan,
    add_noted,
    add_scored,
    effort_of,
    improve,
    keep_recovered,
    origin,
    progress_line,
    subject_of,
)
from search.run.halving import (
    FINALISTS,
    LEAST_S,
    SLOPE_UP_TO,
    Halving,
    NextTraining,
    Rung,
    Source,
    Standing,
    affordable,
    eligible,
    finalists,
    next_training,
    spread,
)
from search.run.interrupts import Interruption
from search.run.loop import MAX_DEATHS, Run, Watcher
from search.run.screening import Screening
from search.run.time_budget import RunClock, TimeBudget
from search.scorer import Scorer, never
from search.session import Session

_KEPT = "recovery"
_FORMAT = RecordFormat(Halving, "record of its recovery")
UNSCORED = "no WER: another trained recipe promises more"
NO_NEARER = "no WER: training brought it no nearer to the original"
EXPECTED_ERRORS = (CompressionError, EvaluationError, InputError)
"""What ends the training of one recipe, not the run."""


def settings_for(recipe: Recipe, seed: int) -> TrainingSettings:
    """How a recipe is trained inside a search, in the window in which it is scored.

    By what it is judged by: the divergence alone, without the term that draws it to one token (docs/training.md), and
    for scales without the one that draws the encoder to the original's. What scales can learn of little speech they
    have learned after an epoch or two; then they learn the speech.
    """
    settings = TrainingSettings(window_s=recipe.window_s, seed=seed, hard=0.0, temperature=1.0)
    is_scales = method_for(recipe) == "scales"
    for_scales = {"part": "both", "encoded": 0.0, "batch_size": 4, "evaluate_every": 25, "patience": 2}
    return settings.model_copy(update=for_scales) if is_scales else settings


def method_for(recipe: Recipe) -> RecoveryMethod:
    """`scales` wherever weights are integers, `distill` elsewhere."""
    return "scales" if recipe.is_quantised else "distill"


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """The recovery of one run: at most one, over all of its sessions. `speech`: what is learned from."""

    session: Session
    speech: SpeechSet
    store: StudyStore
    ledger: Ledger
    engine: Engine
    scorer: Scorer
    screening: Screening
    clock: RunClock
    budget: TimeBudget
    watcher: Watcher
    interruption: Interruption
    say: Callable[[str], None]

    @property
    def state(self) -> Halving | None:
        """Where it stands; None before it began."""
        text = self.store.recall(_KEPT)
        return _FORMAT.read(text) if text else None

    def _keep(self, state: Halving) -> Halving:
        self.store.remember(_KEPT, _FORMAT.write(state))
        self.clock.save()
        return state

    def run(self, search_ended: EndReason) -> bool:
        """Train, and score what came out; False when interrupted. Goes on where an earlier session stopped."""
        with self.interruption.caught():
            state = self.state or self._begun(search_ended)
            while state and not state.is_trained and not self.interruption.asked:
                state = self._go_on(state)
            if state and not state.is_over and not self.interruption.asked:
                self._finish(state)
        return not self.interruption.asked

    def _begun(self, search_ended: EndReason) -> Halving | None:
        """Whom to train; None, and a line that says why, where there is nobody or no time."""
        target = self.screening.target()
        front = [judged for judged in self.screening.archive.front if self._can_be_trained(judged)]
        found = eligible(front, bound=self.screening.cheapest_within(), target=target)
        if not found:
            self.say(
                f"No training: no recipe of the front that is cheaper than the pick is near {target:.4f} nats a token"
            )
            return None
        training_s = self._left_s(search_ended, 0.0)
        count = affordable(len(found), training_s, least_s=LEAST_S)
        if not count:
            self.say(
                f"No training: {training_s / 60:.0f} minutes are left for it, and one recipe needs {LEAST_S / 60:.0f}"
            )
            return None
        sources = tuple(self._source(judged) for judged in spread(found, count))
        self.say(f"Listening to {self.speech.name}: the original's transcripts are what is learned")
        try:
            self._listen(self._recipe(sources[0].recipe_id))
        except EXPECTED_ERRORS as error:
            self.say(f"No training: {error}")
            return None
        named = ", ".join(f"{source.trial} ({source.method})" for source in sources)
        self.say(f"Training for about {training_s / 60:.0f} minutes, the better half twice as long each time: {named}")
        rate = self.screening.archive.rate(SLOPE_UP_TO * target)
        return self._keep(Halving(search_ended=search_ended, target=target, rate=rate, sources=sources))

    def _can_be_trained(self, judged: Judged) -> bool:
        trial = self.ledger.find_id(judged.recipe_id)
        return trial is not None and can_be_trained(trial.recipe)

    def _source(self, judged: Judged) -> Source:
        trial = self.ledger.find_id(judged.recipe_id)
        if trial is None:
            raise ValueError(f"recipe {judged.recipe_id} has no trial")
        return Source(
            recipe_id=judged.recipe_id,
            trial=trial.number,
            method=method_for(trial.recipe),
            objective=judged.objective,
            divergence=judged.divergence.mean,
        )

    def _recipe(self, recipe_id: str) -> Recipe:
        """Of a trial, or of a rung. Raises InputError when its file is gone."""
        trial = self.ledger.find_id(recipe_id)
        if trial:
            return trial.recipe
        file = self._folder / recipe_id / RECIPE_FILE
        if not file.is_file():
            raise InputError(f"{file} is missing: what was trained cannot be used")
        return Recipe.from_json(file.read_text(encoding="utf-8"))

    @property
    def _folder(self) -> Path:
        if self.session.recovered is None:
            raise InputError("a recovery needs a run's folder")
        return self.session.recovered

    @cached_property
    def _features(self) -> CachedFeatures:
        return CachedFeatures(n_mels=self.session.model.dimensions.n_mels)

    def _listen(self, recipe: Recipe) -> None:
        """Make the original's transcripts now, which are kept: they belong to no training's time."""
        TrainingSpeech(self.session.model, self.speech, self._plan(recipe, method_for(recipe)).settings, self._features)

    def _plan(self, recipe: Recipe, method: RecoveryMethod) -> RecoveryPlan:
        return RecoveryPlan(method=method, settings=settings_for(recipe, self.session.config.seed), speech=self.speech)

    def _left_s(self, search_ended: EndReason, trained_s: float) -> float:
        """For training: its share, and all that is left where the search had nothing more to find."""
        left_s = self.budget.left_for_training(self.clock.elapsed_s, FINALISTS)
        is_all = search_ended in {"standstill", "exhausted"}
        return left_s if is_all else max(0.0, min(left_s, self.budget.training_s - trained_s))

    def _go_on(self, state: Halving) -> Halving:
        """One training, or the end of all."""
        coming = next_training(state)
        if coming is None:
            return self._keep(replace(state, is_trained=True))
        left_s = self._left_s(state.search_ended, sum(result.seconds for result in state.results))
        if state.seconds is None:
            seconds = coming.share * left_s
            if seconds < LEAST_S / 2:
                self.say("The time for training is over")
                return self._keep(replace(state, is_trained=True))
            state = replace(state, seconds=seconds)
        result = self._trained(state, coming, left_s)
        if result is None:
            return self.state or state
        if result.problem:
            self.say(f"Trial {coming.source.trial} is trained no further: {result.problem}")
        before = state.standing(coming.source).best
        state = self._keep(replace(state, results=(*state.results, result), seconds=None, begun=0))
        self._checkpoint(coming, before).unlink(missing_ok=True)
        if result.recipe_id and before and before.recipe_id and before.recipe_id != result.recipe_id:
            rmtree(self._folder / before.recipe_id, ignore_errors=True)
        return state

    def _checkpoint(self, coming: NextTraining, before: Rung | None) -> Path:
        recipe_id = before.recipe_id if before else coming.source.recipe_id
        return self._folder / f"{recipe_id}-{coming.source.method}-search.checkpoint"

    def _trained(self, state: Halving, coming: NextTraining, left_s: float) -> Rung | None:
        """What came of it, also where nothing did; None when interrupted."""
        source, before = coming.source, state.standing(coming.source).best
        self.say(f"Training trial {source.trial} by {source.method}, rung {coming.rung + 1}")
        if state.begun >= MAX_DEATHS:
            return _failed(coming, f"it ended the process {state.begun} times (out of memory?)")
        self._keep(replace(state, begun=state.begun + 1))
        try:
            with telling_memory_shortage():
                recipe = self._recipe(before.recipe_id if before and before.recipe_id else source.recipe_id)
                recovered = self._improved(state, coming, recipe, left_s)
                if recovered is None:
                    self._keep(state)  # that was no death
                    return None
                return self._judged(coming, recipe, recovered)
        except EXPECTED_ERRORS as error:
            return _failed(coming, str(error))
        except KeyboardInterrupt:
            self._keep(state)
            raise

    def _improved(self, state: Halving, coming: NextTraining, recipe: Recipe, left_s: float) -> Recovered | None:
        """At most until the time for training is over, also where a part of it was lost with an earlier session."""
        plan = self._plan(recipe, coming.source.method)
        file = self._checkpoint(coming, state.standing(coming.source).best)
        trained_s = Checkpoint(file=file, identity=plan.identity(recipe)).trained_s
        seconds = max(1.0, min(state.seconds or 0.0, trained_s + left_s))

        def watch(point: Point) -> None:
            self.say(f"  {progress_line(point)}")
            if point.step:
                self._keep(replace(state, begun=0))

        limits = Limits(seconds=seconds, clock=monotonic, should_stop=lambda: self.interruption.asked)
        listener = Listener(say=lambda text: self.say(f"  {text}"), watch=watch)
        self.session.forget_outputs()
        return improve(subject_of(self.session, recipe), plan, limits, file, listener, self._features)

    def _judged(self, coming: NextTraining, recipe: Recipe, recovered: Recovered) -> Rung:
        """Keep the better weights and measure their divergence."""
        training = recovered.training
        steps, seconds = (training.steps, training.seconds) if training else (0, 0.0)
        if recovered.failure_reason:
            return replace(_failed(coming, recovered.failure_reason), steps=steps, seconds=seconds)
        better = keep_recovered(self.session, recipe, self._plan(recipe, coming.source.method), recovered)
        divergence = self.scorer.divergence(better, never)
        self.say(f"  trial {coming.source.trial}: {divergence.mean:.4f} nats a token after {seconds / 60:.1f} min")
        return Rung(
            source_id=coming.source.recipe_id,
            rung=coming.rung,
            recipe_id=better.id,
            divergence=divergence,
            steps=steps,
            seconds=seconds,
        )

    def _finish(self, state: Halving) -> None:
        """Score the best; the others are trials that have a divergence and no WER."""
        best = finalists(state)
        for standing in best:
            if self.interruption.asked:
                return
            self._add(standing, is_scored=True)
        for standing in state.standings:
            if standing not in best and standing.best:
                self._add(standing, is_scored=False)
        self._keep(replace(state, is_over=True))

    def _add(self, standing: Standing, *, is_scored: bool) -> None:
        """The trial of a trained recipe, unless it has one."""
        best, source = standing.best, standing.source
        if best is None or best.recipe_id is None or best.divergence is None or self.ledger.find_id(best.recipe_id):
            return
        steps, seconds = (sum(getattr(rung, name) for rung in standing.rungs) for name in ("steps", "seconds"))
        note = origin(source.trial, source.method, effort_of(steps, seconds))
        try:
            recipe = self._recipe(best.recipe_id)
            self.watcher.started(len(self.ledger.trials), recipe)
            if is_scored:
                add_scored(self.engine, self.ledger, self.scorer, recipe, note, best.divergence)
            else:
                why = UNSCORED if standing.is_better else NO_NEARER
                stopped = self.scorer.stopped(len(self.ledger.trials), recipe, best.divergence, why)
                add_noted(self.engine, self.ledger, stopped, note)
        except InputError as error:
            self.say(f"The recovery of trial {source.trial} has no trial: {error}")
            return
        self.clock.save()
        self.watcher.finished(self.ledger.outcome(), self.clock.elapsed_s)


def _failed(coming: NextTraining, problem: str) -> Rung:
    return Rung(
        source_id=coming.source.recipe_id,
        rung=coming.rung,
        recipe_id=None,
        divergence=None,
        steps=0,
        seconds=0.0,
        problem=problem,
    )


def search_and_recover(run: Run, budget: TimeBudget, recovery: Recovery | None) -> EndReason:
    """Search, train, and search on in the time that training left; why the run ended.

    Without a recovery, and when it is over, all the time is the search's.
    """
    state = recovery.state if recovery else None
    if recovery is None or (state and state.is_over):
        return run.search(budget)
    reason = state.search_ended if state else run.search(recovery.budget)
    if reason == "interrupted" or not recovery.run(reason):
        return "interrupted"
    return run.search(budget) if reason == "time" else reason
