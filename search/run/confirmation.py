"""Whether the front keeps its promise on speech that the search never saw."""

from collections.abc import Callable
from typing import Protocol

from common.errors import EvaluationError
from compression.recipe.recipe import Recipe
from search.records.ledger import Ledger
from search.records.run_records import judged
from search.run.interrupts import Interruption
from search.trial import Trial, TrialAccuracy

Measure = Callable[[Recipe], TrialAccuracy]
"""The accuracy of a recipe on the confirm set. Raises EvaluationError."""


class Watcher(Protocol):
    """Is told what happens."""

    def confirming(self, trial: Trial) -> None: ...

    def say(self, text: str) -> None: ...


def confirm(ledger: Ledger, measure: Measure, watcher: Watcher, interruption: Interruption) -> bool:
    """Score the baseline and the front on the confirm set; False when interrupted.

    What was confirmed before is not scored again. What cannot be scored stays unconfirmed, and is tried again by the
    next session. The budget is relative to the original on the same speech: without that, nothing is confirmed.
    """
    tried: set[int] = set()
    with interruption.caught():
        while not interruption.asked and (trial := _next(ledger, tried)):
            tried.add(trial.number)
            watcher.confirming(trial)
            try:
                accuracy = measure(trial.recipe)
            except EvaluationError as error:
                watcher.say(f"trial {trial.number} is not confirmed: {error}")
                if trial is ledger.trials[0]:
                    break
                continue
            baseline = ledger.confirmation(ledger.trials[0])
            ledger.confirm(trial, judged(accuracy, baseline or accuracy, ledger.facts))
    return not interruption.asked


def _next(ledger: Ledger, tried: set[int]) -> Trial | None:
    """The first without a confirmation, of the front as it is now: each confirmation may change it."""
    waiting = (t for t in ledger.baseline_and_front if ledger.confirmation(t) is None and t.number not in tried)
    return next(waiting, None)
