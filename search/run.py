"""The run loop: ask, score, tell, until the time or the trials are used up; then confirm and report."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

from common.errors import EvaluationError
from evaluators.speech.speech_set import SpeechSet
from search.artifacts import make_artifact
from search.engines.base import Engine
from search.engines.study_store import StudyStore
from search.front import front
from search.interrupts import catching_interrupts
from search.limits.group_budget import find_group_limits
from search.outcome import Confirmation, Outcome
from search.proposals import neighbours, starting_genes
from search.run_records import (
    load_artifact,
    load_confirmation,
    load_elapsed,
    load_facts,
    read_outcome,
    save_artifact,
    save_confirmation,
    save_elapsed,
)
from search.scorer import Baseline, Scorer
from search.session import Session
from search.trial import Trial

MAX_UNSCORED = 300
"""Proposals in a row that are known or rejected, after which the space counts as used up."""
MOST_KEPT = 0.5
"""Share of a run's time that is kept for confirming and exporting; a run so short that they take longer is late."""
MEASURING_S = 15.0
"""Writing an artifact and timing it in a process of its own, on a small model."""
LOCAL_EVERY = 2
"""Every other trial is a step from the best one, the rest are the sampler's."""
SCORED = ("complete", "stopped", "failed")
Clock = Callable[[], float]


class Watcher(Protocol):
    """Is told what happens, to show it or to write files."""

    def started(self, recipe_summary: str) -> None: ...

    def finished(self, outcome: Outcome, elapsed_s: float) -> None: ...

    def confirming(self, trial: Trial) -> None: ...

    def exporting(self, trial: Trial) -> None: ...

    def interrupted(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """When a run ends: seconds (confirmation included) and scored trials; None where unlimited.

    Both count from the beginning of the run's first session.
    """

    seconds: float | None
    trials: int | None


class Run:
    """One run over its sessions: a new one and its continuations share the engine's store."""

    def __init__(  # noqa: PLR0913 - the parts of a run
        self, session: Session, store: StudyStore, engine: Engine, *, clock: Clock, started: float, watcher: Watcher
    ) -> None:
        """`started`: the clock's time at which this session began, set-up included."""
        self._session = session
        self._store = store
        self._engine = engine
        self._clock = clock
        self._watcher = watcher
        self._scorer = Scorer(session)
        self._before_s = load_elapsed(store)
        self._started = started
        self._trials = list(store.trials())
        self._by_recipe = {trial.recipe.id: trial for trial in self._trials}
        self._interrupted = False
        self._starts = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds that this run has taken, earlier sessions included."""
        return self._before_s + self._clock() - self._started

    def search(self, end: End) -> bool:
        """Try recipes until the end is reached; False when the user interrupted it."""
        starts = starting_genes(self._session.space)
        self._starts = len(starts)
        for genes in starts:
            self._engine.enqueue(genes)
        unscored = 0
        with self._catching_interrupts():
            while not (self._interrupted or self._is_over(end)) and unscored < MAX_UNSCORED:
                unscored = 0 if self._step() else unscored + 1
        return not self._interrupted

    def _step(self) -> bool:
        """One proposal; whether it came to be scored."""
        if len(self._trials) % LOCAL_EVERY:
            self._enqueue_neighbour()
        proposal = self._engine.ask()
        recipe = self._session.space.decode(proposal.genes)
        known = self._by_recipe.get(recipe.id)
        if known:
            self._engine.drop(proposal, known)
            return False
        self._watcher.started(recipe.summary())
        trial = self._scorer.score(proposal.number, recipe, self._baseline)
        self._engine.tell(proposal, trial)
        save_elapsed(self._store, self.elapsed_s)
        self._trials.append(trial)
        self._by_recipe[recipe.id] = trial
        self._watcher.finished(read_outcome(self._store), self.elapsed_s)
        return trial.state in SCORED

    def _enqueue_neighbour(self) -> None:
        """Let the cheapest untried neighbour of the cheapest feasible trial come next."""
        found = front(self._trials)
        if not found or len(self._trials) < self._starts:
            return
        untried = neighbours(self._session.space, found[0], self._trials)
        priced = [(self._scorer.objective(recipe), genes) for genes, recipe in untried]
        cheaper = [pair for pair in priced if pair[0] < found[0].objective]
        if cheaper:
            self._engine.enqueue(min(cheaper, key=lambda pair: pair[0])[1])

    @property
    def _baseline(self) -> Baseline | None:
        """From the first trial; None before it."""
        return self._scorer.baseline(self._trials[0]) if self._trials else None

    def _is_over(self, end: End) -> bool:
        scored = [trial for trial in self._trials if trial.state in SCORED]
        if not scored:
            return False
        if end.trials is not None and len(scored) >= end.trials:
            return True
        if end.seconds is None:
            return False
        next_trial_s = sum(trial.seconds for trial in scored) / len(scored)
        kept_s = min(self._confirmation_s() + self._export_s(), MOST_KEPT * end.seconds)
        return self.elapsed_s + next_trial_s + kept_s > end.seconds

    def _confirmation_s(self) -> float:
        """What confirming the front will take, from the time of an average full evaluation on the search set."""
        session = self._session
        if session.confirm is None:
            return 0.0
        share = _seconds(session.confirm.speech) / _seconds(session.evaluator.speech)
        waiting = [t for t in self._ends() if load_confirmation(self._store, t.recipe) is None]
        return len(waiting) * share * self._full_evaluation_s()

    def _export_s(self) -> float:
        """What exporting the front will take: artifact and network are both evaluated, to compare them."""
        waiting = [t for t in self._ends() if load_artifact(self._store, t.recipe) is None]
        return len(waiting) * (2 * self._full_evaluation_s() + MEASURING_S)

    def _full_evaluation_s(self) -> float:
        """Seconds of an average trial that was scored on the whole set; 0 before the first."""
        full = [trial.seconds for trial in self._trials if trial.state == "complete"]
        return median(full) if full else 0.0

    def confirm(self) -> bool:
        """Score the baseline and the front on the confirm set, if there is one; False when interrupted.

        What was confirmed before is not scored again.
        """
        if self._session.confirm is None:
            return True
        with self._catching_interrupts():
            for trial in self._ends():
                if load_confirmation(self._store, trial.recipe) is None and not self._interrupted:
                    self._watcher.confirming(trial)
                    with suppress(EvaluationError):  # then it stays unconfirmed
                        self._confirm(trial)
        save_elapsed(self._store, self.elapsed_s)
        return not self._interrupted

    def export(self, models: Path) -> bool:
        """Export the baseline and the front into `models`, one folder by recipe id, and verify each.

        False when interrupted.
        What was exported before is not exported again, unless its folder is gone.
        """
        with self._catching_interrupts():
            for trial in self._ends():
                folder = models / trial.recipe.id
                done = folder.is_dir() and load_artifact(self._store, trial.recipe)
                if not done and not self._interrupted:
                    self._watcher.exporting(trial)
                    record = make_artifact(self._session, trial.recipe, folder, trial.heard)
                    save_artifact(self._store, trial.recipe, record)
        save_elapsed(self._store, self.elapsed_s)
        return not self._interrupted

    def _confirm(self, trial: Trial) -> None:
        accuracy = self._scorer.confirm(trial.recipe)
        baseline = load_confirmation(self._store, self._trials[0].recipe)
        limit = self._scorer.wer_limit((baseline or accuracy).rate)
        budget = load_facts(self._store).group_budget
        groups = find_group_limits(budget, baseline.groups if baseline else accuracy.groups)
        broken = groups and groups.broken(accuracy.groups)
        confirmation = Confirmation(
            rate=accuracy.rate,
            within_budget=limit.keeps(accuracy.rate) and not broken,
            groups=accuracy.groups,
        )
        save_confirmation(self._store, trial.recipe, confirmation)

    def _ends(self) -> list[Trial]:
        """The baseline and the front."""
        return [*self._trials[:1], *(trial for trial in front(self._trials) if trial.number != self._trials[0].number)]

    def _catching_interrupts(self) -> AbstractContextManager[None]:
        """The first Ctrl-C lets the trial in flight finish, the second one drops it."""
        return catching_interrupts(self._interrupt)

    def _interrupt(self) -> None:
        self._interrupted = True
        self._watcher.interrupted()


def _seconds(speech: SpeechSet) -> float:
    return sum(utterance.duration_s for utterance in speech.utterances)
