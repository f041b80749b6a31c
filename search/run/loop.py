"""The run loop: ask, score, tell, until the time or the trials are used up."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from search.engines.archive import Judged
from search.engines.base import Engine, Proposal
from search.engines.proof import Proof
from search.outcome import EndReason, Outcome
from search.records.ledger import SCORED, Ledger
from search.run.interrupts import Interruption
from search.run.measuring import Answer, Executor, Here, Job
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

    def divergence(
        self, recipe: Recipe, enough: Callable[[Divergence], bool], known: Divergence | None = None
    ) -> Divergence:
        """On the run's clips, or as many as are enough. Raises CompressionError, EvaluationError."""

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


@dataclass(frozen=True, kw_only=True)
class _Pending:
    """What is being measured. `proposal`: None for a recipe of the user's own; `candidate`: where it was judged before;
    `repeats`: proposals of the same recipe that came since.
    """

    proposal: Proposal | None
    candidate: Candidate | None = None
    repeats: list[Proposal] = field(default_factory=list)


class Run:
    """The search of one run; a new one and its continuations share the engine's store.

    It ends when `standstill` is reached. With `screening` a recipe is judged by divergence first, and may wait for its
    WER while others are judged. `own` recipes come right after the original, and have a WER whatever their divergence
    is. `proof`: the engine's, if it has one. `executor`: who measures; None: this process.
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
        executor: Executor | None = None,
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
        self._executor = executor or Here(scorer, lambda: self._baseline)
        self._max_unscored = max_unscored
        self._pending: dict[str, _Pending] = {}

    def search(self, budget: TimeBudget) -> EndReason:
        """Try recipes until the budget is used up, nothing new or better comes, or the user interrupts."""
        reason = self._reason_to_end(budget)
        with self._interruption.caught():
            while reason is None:
                self._fill(budget)
                if self._pending:
                    self._take()
                    reason = self._reason_to_end(budget)
                else:
                    reason = self._nothing_left
            self._drain()
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

    # what is begun

    def _fill(self, budget: TimeBudget) -> None:
        """Begin what there is room for; nothing, where the engine has nothing new."""
        unscored = 0
        while self._executor.room and budget.has_trial(len(self._pending)) and unscored < self._max_unscored:
            begun = self._begin_next()
            if begun is None or self._interruption.asked:
                return
            unscored = 0 if begun else unscored + 1
            if self._pending and not self._ledger.trials:
                return  # all others are compared with the original

    def _begin_next(self) -> bool | None:
        """Whether something came to be measured; None when the engine has no further recipe now."""
        own = self._own.next(self._ledger, self._pending) if self._own else None
        if self._own and own:
            return self._begin_own(self._own, own)
        due = self._screening.next_to_score() if self._screening else None
        if due:
            return self._score(due)
        proposal = self._engine.ask()
        if proposal is None:
            last = self._screening.last_to_score(0) if self._screening and not self._pending else None
            return self._score(last) if last else None
        recipe = self._space.decode(proposal.genes)
        if recipe.id in self._pending:
            self._pending[recipe.id].repeats.append(proposal)
            return None
        known = self._ledger.find(recipe)
        if known:
            self._engine.drop(proposal, known)
            return False
        return self._begin(proposal, recipe)

    def _begin(self, proposal: Proposal, recipe: Recipe) -> bool:
        """Have a new recipe judged, or scored where nothing judges it; whether it came to that."""
        self._watcher.started(proposal.number, recipe)
        if proposal.deaths >= MAX_DEATHS:
            return self._finish(proposal, self._given_up(proposal.number, recipe, proposal.deaths))
        is_compared = bool(self._ledger.trials)
        if is_compared and self._scorer.rejection(recipe):
            return self._finish(proposal, self._scorer.score(proposal.number, recipe, self._baseline))
        screening = self._screening if is_compared else None
        enough = screening.begun(recipe, self._scorer.objective(recipe)) if screening else None
        job = Job(number=proposal.number, recipe=recipe, enough=enough)
        self._submit(job, proposal)
        return True

    def _score(self, candidate: Candidate) -> bool:
        """Have a recipe scored that was judged."""
        proposal, recipe = candidate.proposal, candidate.recipe
        self._watcher.started(proposal.number, recipe)
        job = Job(number=proposal.number, recipe=recipe, divergence=candidate.judged.divergence)
        self._submit(job, proposal, candidate)
        return True

    def _submit(self, job: Job, proposal: Proposal, candidate: Candidate | None = None) -> None:
        self._engine.begin(proposal, job.recipe)
        if not self._executor.is_here:
            self._engine.pause(proposal)
        self._pending[job.recipe.id] = _Pending(proposal=proposal, candidate=candidate)
        self._executor.submit(job)

    def _begin_own(self, own: OwnRecipes, recipe: Recipe) -> bool:
        """Have one of the user's own recipes scored, in the space or not."""
        number, deaths = len(self._ledger.trials), own.deaths(recipe.id)
        self._watcher.started(number, recipe)
        if deaths >= MAX_DEATHS:
            self._keep_own(self._given_up(number, recipe, deaths))
            return True
        if self._executor.is_here:
            own.begin(recipe.id)
        self._pending[recipe.id] = _Pending(proposal=None)
        self._executor.submit(Job(number=number, recipe=recipe))
        return True

    # what comes of it

    def _take(self) -> None:
        """Wait for an answer, and take it up. What the user drops is put back, all of it."""
        try:
            found = self._executor.wait()
        except KeyboardInterrupt:
            self._executor.withdraw()
            for recipe_id in list(self._pending):
                self._put_back(recipe_id)
            raise
        if found is None:
            return
        job, answer = found
        pending = self._pending.pop(job.recipe.id)
        if pending.proposal is None:
            self._keep_own(answer.trial or self._scorer.failed(job.number, job.recipe, answer.problem))
        elif answer.divergence and self._screening:
            self._take_up(self._screening, job.recipe, pending.proposal, answer)
        else:
            self._take_trial(job, pending.proposal, pending.candidate, answer)
        known = self._ledger.find(job.recipe)
        for proposal in pending.repeats:
            if known:
                self._engine.drop(proposal, known)
            else:
                self._engine.put_back(proposal)

    def _put_back(self, recipe_id: str) -> None:
        pending = self._pending.pop(recipe_id)
        for proposal in filter(None, (pending.proposal, *pending.repeats)):
            self._engine.put_back(proposal)
        if self._own and pending.proposal is None and self._executor.is_here:
            self._own.put_back(recipe_id)

    def _take_trial(self, job: Job, proposal: Proposal, candidate: Candidate | None, answer: Answer) -> None:
        """Of a recipe that was scored, or could not be judged."""
        trial = answer.trial or self._scorer.failed(job.number, job.recipe, answer.problem)
        if candidate:
            trial = replace(trial, seconds=trial.seconds + candidate.seconds)
        self._finish(proposal, trial)

    def _take_up(self, screening: Screening, recipe: Recipe, proposal: Proposal, answer: Answer) -> None:
        """A recipe that was judged waits for its WER, or is stopped, and so are those that it beats."""
        if answer.divergence is None:
            raise ValueError(f"recipe {recipe.id} was not judged")
        judged = Judged(
            recipe_id=recipe.id,
            genes=proposal.genes,
            objective=self._scorer.objective(recipe),
            divergence=answer.divergence,
        )
        candidate = Candidate(proposal=proposal, recipe=recipe, judged=judged, seconds=answer.seconds)
        reason = screening.judge(candidate)
        if reason:
            self._stop(candidate, reason)
        else:
            self._engine.pause(proposal)
        for beaten, why in screening.beaten():
            self._stop(beaten, why)

    def _stop(self, candidate: Candidate, reason: str) -> None:
        trial = self._scorer.stopped(candidate.proposal.number, candidate.recipe, candidate.judged.divergence, reason)
        self._keep(candidate.proposal, replace(trial, seconds=candidate.seconds))

    def _finish(self, proposal: Proposal, trial: Trial) -> bool:
        """Take up the trial of a recipe that is not to be judged any more; whether it counts as scored."""
        if self._screening:
            self._screening.finished(trial)
        self._keep(proposal, trial)
        return trial.state in SCORED

    def _keep(self, proposal: Proposal, trial: Trial) -> None:
        self._engine.tell(proposal, trial)
        self._record(trial)

    def _keep_own(self, scored: Trial) -> None:
        trial = self._engine.add(replace(scored, note="; ".join(filter(None, (scored.note, OWN)))))
        if self._screening:
            self._screening.finished(trial)
        self._record(trial)

    def _record(self, trial: Trial) -> None:
        """Know a trial that the engine has kept."""
        self._ledger.add(trial)
        self._clock.save()
        self._watcher.finished(self._ledger.outcome(), self._clock.elapsed_s)

    def _given_up(self, number: int, recipe: Recipe, deaths: int) -> Trial:
        note = f"not tried again: it ended the process {deaths} times (out of memory?)"
        return self._scorer.failed(number, recipe, note)

    def _drain(self) -> None:
        """Take up all that is in flight; what nobody has begun when the user interrupts comes again later."""
        while self._pending:
            if self._interruption.asked:
                for job in self._executor.withdraw():
                    self._put_back(job.recipe.id)
            if self._pending:
                self._take()

    def _close(self, screening: Screening) -> None:
        """Score what would be the pick; what still waits ends without a WER, unless the user goes on later."""
        scored = 0
        while not self._interruption.asked and (last := screening.last_to_score(scored)):
            self._score(last)
            self._drain()
            scored += 1
        if not self._interruption.asked:
            for candidate in screening.rest():
                self._stop(candidate, "not scored: nothing cheaper beats it, but others came first")

    @property
    def _baseline(self) -> Baseline | None:
        """From the first trial; None before it."""
        return self._scorer.baseline(self._ledger.trials[0]) if self._ledger.trials else None
