"""What a user sees while a run goes on, on stderr: one status line on a terminal, one line a trial elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

from compression.recipe.recipe import Recipe
from search.outcome import Outcome
from search.records.ledger import SCORED
from search.report.baseline_vs_pick import percent
from search.run.interrupts import say_beside
from search.run.time_budget import End
from search.trial import Trial

_MARKS = {"complete": "scored", "stopped": "stopped", "rejected": "rejected", "failed": "failed"}


class Progress:
    """The watcher of a search, of confirming and of exporting."""

    def __init__(self, console: Console, end: End) -> None:
        self._console = console
        self._end = end
        self._status = Status("Starting", console=console)
        self._line = "Starting"

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def started(self, number: int, recipe: Recipe) -> None:
        """A log has the recipe before anything is done with it, should that end the process."""
        if not self._console.is_terminal:
            self.say(f"trial {number:>4}   begins  {recipe.id}  {recipe.summary()}")
        self._status.update(f"{self._line}\n  now: trial {number}, {recipe.summary()}")

    def finished(self, outcome: Outcome, elapsed_s: float) -> None:
        trial = outcome.trials[-1]
        wer = percent(trial.accuracy.wer) if trial.accuracy else "-"
        feasible = " feasible" if trial.feasible else ""
        self.say(
            f"trial {trial.number:>4} {_MARKS[trial.state]:>8}{feasible:>9}  WER {wer:>8}  "
            f"{trial.costs.size_mb:6.1f} MB  objective {trial.objective:.3f}  {trial.seconds:5.1f} s  "
            f"{trial.recipe.summary()}"
        )
        self._line = self._headline(outcome, elapsed_s)
        if not self._console.is_terminal:
            self.say(f"  {self._line}")
        self._status.update(self._line)

    def left_s(self, elapsed_s: float) -> float | None:
        """Seconds until the run's time is over; None where it has no such end."""
        return None if self._end.seconds is None else round(max(0.0, self._end.seconds - elapsed_s), 3)

    def _headline(self, outcome: Outcome, elapsed_s: float) -> str:
        scored = sum(trial.state in SCORED for trial in outcome.trials)
        busy_s = sum(trial.seconds for trial in outcome.trials)  # the rate of trials is without any set-up
        rate = 3600 * scored / busy_s if busy_s else 0.0
        left_s = self.left_s(elapsed_s)
        remaining = [] if left_s is None else [f"{clock_time(left_s)} left"]
        if self._end.trials is not None:
            remaining.append(f"{max(0, self._end.trials - scored)} trials left")
        best = min((trial.objective for trial in outcome.front), default=None)
        return (
            f"{clock_time(elapsed_s)} elapsed, {', '.join(remaining)}, {rate:.0f} trials/h, "
            f"best feasible objective {'none yet' if best is None else f'{best:.3f}'}, front of {len(outcome.front)}"
        )

    def confirming(self, trial: Trial) -> None:
        self.say(f"confirming trial {trial.number}: {trial.recipe.summary()}")

    def exporting(self, trial: Trial) -> None:
        self.say(f"exporting trial {trial.number}: {trial.recipe.summary()}")

    def interrupted(self) -> None:
        say_beside(self.say, "Interrupted: finishing the trial in flight; Ctrl-C again drops it.")


def clock_time(seconds: float) -> str:
    """Such as 0:07:30."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
