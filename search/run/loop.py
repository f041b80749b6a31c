"""The run loop: ask, score, tell, until the time or the trials are used up."""

from typing import Protocol

from compression.recipe.recipe import Recipe
from search.engines.base import Engine, Proposal
from search.outcome import Outcome
from search.records.ledger import SCORED, Ledger
from search.run.interrupts import Interruption
from search.run.time_budget import RunClock, TimeBudget
from search.scorer import Baseline
from search.space.space import Space
from search.trial import Trial

MAX_UNSCORED = 300
"""Proposals in a row that are known or rejected, after which the space counts as used up."""
MAX_DEATHS = 2
"""How often a recipe may end the process that scores it before it counts as failed."""


class Scorer(Protocol):
    """Turns recipes into trials, the run's first one into the baseline of the others."""

    def baseline(self, trial: Trial) -> Baseline:
        """What the run's first trial measured. Raises EvaluationError when that trial failed."""

    def score(self, number: int, recipe: Recipe, baseline: Baseline | None) -> Trial:
        """The recipe's trial; without a baseline, the first one."""

    def failed(self, number: int, recipe: Recipe, note: str) -> Trial:
        """The trial of a recipe that is not to be tried again."""


class Watcher(Protocol):
    """Is told what happens, to show it or to write files."""

    def started(self, number: int, recipe: Recipe) -> None: ...

    def finished(self, outcome: Outcome, elapsed_s: float) -> None: ...


class Run:
    """The search of one run; a new one and its continuations share the engine's store."""

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
        max_unscored: int = MAX_UNSCORED,
    ) -> None:
        self._space = space
        self._engine = engine
        self._scorer = scorer
        self._ledger = ledger
        self._clock = clock
        self._watcher = watcher
        self._interruption = interruption
        self._max_unscored = max_unscored

    def search(self, budget: TimeBudget) -> bool:
        """Try recipes until the budget is used up; False when the user interrupted it."""
        unscored = 0
        with self._interruption.caught():
            while not self._interruption.asked and unscored < self._max_unscored:
                if budget.is_over(self._clock.elapsed_s):
                    break
                unscored = 0 if self._step() else unscored + 1
        return not self._interruption.asked

    def _step(self) -> bool:
        """One proposal; whether it came to be scored."""
        proposal = self._engine.ask()
        recipe = self._space.decode(proposal.genes)
        known = self._ledger.find(recipe)
        if known:
            self._engine.drop(proposal, known)
            return False
        trial = self._scored(proposal, recipe)
        self._engine.tell(proposal, trial)
        self._ledger.add(trial)
        self._clock.save()
        self._watcher.finished(self._ledger.outcome(), self._clock.elapsed_s)
        return trial.state in SCORED

    def _scored(self, proposal: Proposal, recipe: Recipe) -> Trial:
        """The proposal's trial; one that ended the process too often is not tried again."""
        self._watcher.started(proposal.number, recipe)
        if proposal.deaths >= MAX_DEATHS:
            note = f"not tried again: it ended the process {proposal.deaths} times (out of memory?)"
            return self._scorer.failed(proposal.number, recipe, note)
        self._engine.begin(proposal, recipe)
        try:
            return self._scorer.score(proposal.number, recipe, self._baseline)
        except KeyboardInterrupt:
            self._engine.put_back(proposal)
            raise

    @property
    def _baseline(self) -> Baseline | None:
        """From the first trial; None before it."""
        return self._scorer.baseline(self._ledger.trials[0]) if self._ledger.trials else None
