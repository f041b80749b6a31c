"""The run loop: ask, score, tell, until the time or the trials are used up."""

from dataclasses import replace
from time import perf_counter
from typing import Protocol

from common.errors import CompressionError, EvaluationError
from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from search.engines.archive import Judged
from search.engines.base import Engine, Proposal
from search.engines.proof import Proof
from search.outcome import EndReason, Outcome
from search.records.ledger import SCORED, Ledger
from search.run.interrupts import Interruption
from search.run.own_recipes import OwnRecipes
from search.run.screening import Candidate, Screening
from search.run.standstill import Standstill
from search.run.time_budget import RunClock, TimeBudget
from search.scorer import Baseline
from search.space.space import Space
from search.trial import Trial

MAX_UNSCORED = 300
"""Proposals in a row that are known or rejected, after which the space counts as used up."""
MAX_DEATHS = 2
"""How often a recipe may end the process that scores it before it counts as failed."""

OWN = "given by --try"
"""The note of a trial of the user's own recipe."""


class Scorer(Protocol):
    """Turns recipes into trials, the run's first one into the baseline of the others."""

    def baseline(self, trial: Trial) -> Baseline:
        """What the run's first trial measured. Raises EvaluationError when that trial failed."""

    def score(
        self, number: int, recipe: Recipe, baseline: Baseline | None, divergence: Divergence | None = None
    ) -> Trial:
        """The recipe's trial; without a baseline, the first one. `divergence`: as far as it is known."""

    def stopped(self, number: int, recipe: Recipe, divergence: Divergence, note: str) -> Trial:
        """The trial of a recipe that is not worth its transcripts, and why."""

    def objective(self, recipe: Recipe) -> float: ...

    def rejection(self, recipe: Recipe) -> str | None:
        """Why its costs or the runtime speak against a recipe, or None."""

    def failed(self, number: int, recipe: Recipe, note: str) -> Trial:
        """The trial of a recipe that is not to be tried again."""


class Watcher(Protocol):
    """Is told what happens, to show it or to write files."""

    def started(self, number: int, recipe: Recipe) -> None: ...

    def finished(self, outcome: Outcome, elapsed_s: float) -> None: ...


class Run:
    """The search of one run; a new one and its continuations share the engine's store.

    It ends when `standstill` is reached. With `screening` a recipe is judged by divergence first, and may wait for its
    WER while others are judged. `own` recipes come right after the original, and have a WER whatever their divergence
    is. `proof`: the engine's, if it has one.
    """

    def __init__(  # noqa: PLR0913 - the parts of a run
        self,
        *,
        space: Space,
        engine: Engine,
        scorer: Scorer,
        ledger: Ledger,
        clock: RunClock,
        watcher: Watcher,
        interruption: Interruption,
        screening: Screening | None = None,
        standstill: Standstill | None = None,
        own: OwnRecipes | None = None,
        proof: Proof | None = None,
        max_unscored: int = MAX_UNSCORED,
    ) -> None:
        self._space = space
        self._engine = engine
        self._scorer = scorer
        self._ledger = ledger
        self._clock = clock
        self._watcher = watcher
        self._interruption = interruption
        self._screening = screening
        self._standstill = standstill
        self._own = own
        self._proof = proof
        self._max_unscored = max_unscored

    def search(self, budget: TimeBudget) -> EndReason:
        """Try recipes until the budget is used up, nothing new or better comes, or the user interrupts."""
        unscored, reason = 0, self._reason_to_end(budget)
        with self._interruption.caught():
            while reason is None:
                brought = self._step()
                unscored = 0 if brought else unscored + 1
                is_exhausted = brought is None or unscored >= self._max_unscored
                reason = self._nothing_left if is_exhausted else self._reason_to_end(budget)
            if self._screening:
                self._close(self._screening)
        return "interrupted" if self._interruption.asked else reason

    def _reason_to_end(self, budget: TimeBudget) -> EndReason | None:
        if self._interruption.asked:
            return "interrupted"
        stands_still = self._standstill is not None and self._standstill.is_reached()
        return budget.used_up(self._clock.elapsed_s) or ("standstill" if stands_still else None)

    @property
    def _nothing_left(self) -> EndReason:
        return "proven" if self._proof and self._proof.holds else "exhausted"

    def _step(self) -> bool | None:
        """One recipe; whether something was measured of it, None when the engine has no further one."""
        own = self._own.next(self._ledger) if self._own else None
        if self._own and own:
            return self._try(self._own, own)
        due = self._screening.next_to_score() if self._screening else None
        if due:
            return self._finish(due.proposal, due.recipe, due)
        proposal = self._engine.ask()
        if proposal is None:
            last = self._screening.last_to_score(0) if self._screening else None
            return self._finish(last.proposal, last.recipe, last) if last else None
        recipe = self._space.decode(proposal.genes)
        known = self._ledger.find(recipe)
        if known:
            self._engine.drop(proposal, known)
            return False
        if self._screening and self._ledger.trials and not self._scorer.rejection(recipe):
            return self._judge(self._screening, proposal, recipe)
        return self._finish(proposal, recipe)

    def _try(self, own: OwnRecipes, recipe: Recipe) -> bool:
        """Score one of the user's own recipes, in the space or not."""
        number, deaths = len(self._ledger.trials), own.deaths(recipe)
        self._watcher.started(number, recipe)
        own.begin(recipe)
        try:
            if deaths >= MAX_DEATHS:
                scored = self._given_up(number, recipe, deaths)
            else:
                scored = self._scorer.score(number, recipe, self._baseline, None)
        except KeyboardInterrupt:
            own.put_back(recipe)
            raise
        trial = self._engine.add(replace(scored, note="; ".join(filter(None, (scored.note, OWN)))))
        if self._screening:
            self._screening.know(recipe, trial.objective, trial.divergence)
        self._record(trial)
        return True

    def _judge(self, screening: Screening, proposal: Proposal, recipe: Recipe) -> bool:
        """Measure the divergence; the recipe then waits for its WER, or is stopped, and so are those that it beats."""
        self._watcher.started(proposal.number, recipe)
        if proposal.deaths >= MAX_DEATHS:
            return self._finish(proposal, recipe)
        self._engine.begin(proposal, recipe)
        started, objective = perf_counter(), self._scorer.objective(recipe)
        try:
            divergence = screening.divergence(recipe, objective)
        except (CompressionError, EvaluationError) as error:
            screening.know(recipe, objective, None)
            return self._keep(proposal, self._scorer.failed(proposal.number, recipe, str(error)))
        except KeyboardInterrupt:
            self._engine.put_back(proposal)
            raise
        judged = Judged(recipe_id=recipe.id, genes=proposal.genes, objective=objective, divergence=divergence)
        candidate = Candidate(proposal=proposal, recipe=recipe, judged=judged, seconds=perf_counter() - started)
        reason = screening.judge(candidate)
        if reason:
            self._stop(candidate, reason)
        else:
            self._engine.pause(proposal)
        for beaten, why in screening.beaten():
            self._stop(beaten, why)
        return True

    def _stop(self, candidate: Candidate, reason: str) -> None:
        trial = self._scorer.stopped(candidate.proposal.number, candidate.recipe, candidate.judged.divergence, reason)
        self._keep(candidate.proposal, replace(trial, seconds=candidate.seconds))

    def _finish(self, proposal: Proposal, recipe: Recipe, candidate: Candidate | None = None) -> bool:
        """Score the recipe; whether it came to be scored."""
        trial = self._scored(proposal, recipe, candidate)
        if self._screening and not candidate:
            self._screening.know(recipe, trial.objective, trial.divergence)
        return self._keep(proposal, trial)

    def _keep(self, proposal: Proposal, trial: Trial) -> bool:
        self._engine.tell(proposal, trial)
        self._record(trial)
        return trial.state in SCORED

    def _record(self, trial: Trial) -> None:
        """Know a trial that the engine has kept."""
        self._ledger.add(trial)
        self._clock.save()
        self._watcher.finished(self._ledger.outcome(), self._clock.elapsed_s)

    def _scored(self, proposal: Proposal, recipe: Recipe, candidate: Candidate | None) -> Trial:
        """The proposal's trial; one that ended the process too often is not tried again."""
        self._watcher.started(proposal.number, recipe)
        if proposal.deaths >= MAX_DEATHS:
            return self._given_up(proposal.number, recipe, proposal.deaths)
        self._engine.begin(proposal, recipe)
        divergence = candidate.judged.divergence if candidate else None
        try:
            trial = self._scorer.score(proposal.number, recipe, self._baseline, divergence)
        except KeyboardInterrupt:
            self._engine.put_back(proposal)
            raise
        return replace(trial, seconds=trial.seconds + candidate.seconds) if candidate else trial

    def _given_up(self, number: int, recipe: Recipe, deaths: int) -> Trial:
        note = f"not tried again: it ended the process {deaths} times (out of memory?)"
        return self._scorer.failed(number, recipe, note)

    def _close(self, screening: Screening) -> None:
        """Score what would be the pick; what still waits ends without a WER, unless the user goes on later."""
        scored = 0
        while not self._interruption.asked and (last := screening.last_to_score(scored)):
            self._finish(last.proposal, last.recipe, last)
            scored += 1
        if not self._interruption.asked:
            for candidate in screening.rest():
                self._stop(candidate, "not scored: nothing cheaper beats it, but others came first")

    @property
    def _baseline(self) -> Baseline | None:
        """From the first trial; None before it."""
        return self._scorer.baseline(self._ledger.trials[0]) if self._ledger.trials else None
