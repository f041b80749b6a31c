"""What a search tells a program while it goes on: one event a line, in place of what `progress` shows a user."""

from common.log import note, tell
from compression.recipe.recipe import Recipe
from runtime.memory import resident_bytes
from search.outcome import Outcome
from search.run.progress import Progress
from search.trial import Trial


class ProgressEvents(Progress):
    """The watcher of a search whose log is JSON."""

    def say(self, text: str) -> None:
        tell(text)

    def started(self, number: int, recipe: Recipe) -> None:
        note("trial begins", trial=number, recipe=recipe.id, summary=recipe.summary())

    def finished(self, outcome: Outcome, elapsed_s: float) -> None:
        trial = outcome.trials[-1]
        pick = outcome.recommended
        note(
            "trial ends",
            trial=trial.number,
            recipe=trial.recipe.id,
            state=trial.state,
            feasible=trial.feasible,
            wer=trial.accuracy.wer if trial.accuracy else None,
            divergence=trial.divergence.mean if trial.divergence else None,
            size_mb=trial.costs.size_mb,
            objective=trial.objective,
            seconds=round(trial.seconds, 3),
            reason=trial.note or None,
            front=len(outcome.front),
            pick=pick.number if pick else None,
            elapsed_s=round(elapsed_s, 3),
            left_s=self.left_s(elapsed_s),
            memory_mb=round(resident_bytes() / 1e6),
        )

    def confirming(self, trial: Trial) -> None:
        note("confirming", trial=trial.number, recipe=trial.recipe.id)

    def exporting(self, trial: Trial) -> None:
        note("exporting", trial=trial.number, recipe=trial.recipe.id)
