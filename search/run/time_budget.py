"""How long a run has taken, and whether what is left is enough for another trial."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from search.records.ledger import Ledger
from search.records.run_records import load_elapsed, save_elapsed
from search.records.study_store import StudyStore

MOST_KEPT = 0.5
"""Share of a run's time that is kept for confirming and exporting; a run so short that they take longer is late."""
MEASURING_S = 15.0
"""Writing an artifact and timing it in a process of its own, on a small model."""
Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """When a run ends: seconds (confirmation included) and scored trials; None where unlimited.

    Both count from the beginning of the run's first session.
    """

    seconds: float | None
    trials: int | None


class RunClock:
    """How long a run has taken, over all of its sessions."""

    def __init__(self, store: StudyStore, clock: Clock, *, started: float) -> None:
        """`started`: the clock's time at which this session began, set-up included."""
        self._store = store
        self._clock = clock
        self._started = started
        self._before_s = load_elapsed(store)

    @property
    def elapsed_s(self) -> float:
        """Seconds that the run has taken, earlier sessions included."""
        return self._before_s + self._clock() - self._started

    def save(self) -> None:
        """Keep them with the run."""
        save_elapsed(self._store, self.elapsed_s)


@dataclass(frozen=True, kw_only=True)
class TimeBudget:
    """`confirm_share`: seconds of confirm speech for each second of the search's; 0 without a confirm set.

    `training_share`: of the time, what training gets after the search.
    """

    ledger: Ledger
    end: End
    confirm_share: float
    training_share: float = 0.0

    def used_up(self, elapsed_s: float) -> Literal["time", "trials"] | None:
        """What is, if the run has its trials, or another one would take time that confirming and exporting need."""
        scored = self.ledger.scored
        if not scored:
            return None
        if self.end.trials is not None and len(scored) >= self.end.trials:
            return "trials"
        if self.end.seconds is None:
            return None
        next_trial_s = fmean(trial.seconds for trial in scored)
        left_s = self.end.seconds - self._kept_s(self.end.seconds) - self.training_s
        return "time" if elapsed_s + next_trial_s > left_s else None

    def has_trial(self, pending: int) -> bool:
        """Whether the run may have another trial beside so many that are not scored yet."""
        return self.end.trials is None or len(self.ledger.scored) + pending < self.end.trials

    def _kept_s(self, seconds: float) -> float:
        """For confirming and exporting, of the run's whole time."""
        return min(self._confirmation_s + self._export_s, MOST_KEPT * seconds)

    @property
    def training_s(self) -> float:
        """What training gets: its share of the time that is not kept; 0 in a run without an end in time."""
        seconds = self.end.seconds
        return self.training_share * (seconds - self._kept_s(seconds)) if seconds else 0.0

    def left_for_training(self, elapsed_s: float, finalists: int) -> float:
        """Seconds until the run must score so many trained recipes, confirm and export; 0 if it has no end in time."""
        if self.end.seconds is None:
            return 0.0
        each_s = (2 + self.confirm_share) * self._full_evaluation_s + MEASURING_S
        return max(0.0, self.end.seconds - elapsed_s - self._kept_s(self.end.seconds) - finalists * each_s)

    @property
    def _confirmation_s(self) -> float:
        """What confirming the front will take, from the time of an average full evaluation on the search set."""
        waiting = [trial for trial in self.ledger.baseline_and_front if self.ledger.confirmation(trial) is None]
        return len(waiting) * self.confirm_share * self._full_evaluation_s

    @property
    def _export_s(self) -> float:
        """What exporting the front will take: artifacts are evaluated, and networks whose transcripts were not kept."""
        waiting = [trial for trial in self.ledger.baseline_and_front if self.ledger.artifact(trial) is None]
        evaluations = sum(1 if trial.heard else 2 for trial in waiting)
        return evaluations * self._full_evaluation_s + len(waiting) * MEASURING_S

    @property
    def _full_evaluation_s(self) -> float:
        """Seconds of an average trial that was scored on the whole set; 0 before the first."""
        full = [trial.seconds for trial in self.ledger.scored if trial.state == "complete"]
        return median(full) if full else 0.0
