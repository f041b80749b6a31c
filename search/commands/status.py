"""`whisperfit status`: where a run stands, while it goes on or afterwards; writes nothing."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search.configuration.study_address import StudyAddress
from search.outcome import Outcome
from search.records.folder import RunFolder
from search.records.run_records import (
    find_outcome,
    load_elapsed,
    load_facts,
    load_taken_over,
    load_whole_configuration,
)
from search.records.study_store import StudyStore
from search.report.baseline_vs_pick import percent
from search.report.ended import ended_sentence
from search.report.summary import outcome_values
from search.run.progress import clock_time
from search.trial import Trial
from search.workers.job_queue import JobQueue


@dataclass(frozen=True, kw_only=True)
class Status:
    """`place`: the run's `folder`, or its storage and study. `writer`: the process that leads the run, for people.

    `left_s`: None in a run without an end in time. `outcome`: None before the original was scored. `taken_over`: of its
    trials, those that another run measured. `workers`: names of those that are alive; `late_answers`: of workers whose
    job another one had answered.
    """

    place: str
    writer: str | None
    elapsed_s: float
    left_s: float | None
    taken_over: int
    outcome: Outcome | None
    folder: Path | None = None
    workers: tuple[str, ...] = ()
    late_answers: int = 0

    @classmethod
    def of_folder(cls, path: Path) -> "Status":
        """Raises InputError when there is no run."""
        folder = RunFolder.open(path)
        status = cls._of(StudyStore(folder.study, create=False), str(path), folder.config().hours, folder.writer)
        return replace(status, folder=path)

    @classmethod
    def of_storage(cls, storage: str, study: str) -> "Status":
        """Raises InputError when there is no such study."""
        store = StudyStore(StudyAddress.of_storage(storage, study), create=False)
        return cls._of(store, str(store.address), load_whole_configuration(store).get("hours"), None)

    @classmethod
    def _of(cls, store: StudyStore, place: str, hours: float | None, writer: str | None) -> "Status":
        elapsed_s, queue = load_elapsed(store), JobQueue.find(store.engine, store.address.name)
        return cls(
            place=place,
            writer=writer or (queue.leader if queue else None),
            elapsed_s=elapsed_s,
            left_s=None if hours is None else max(0.0, 3600 * hours - elapsed_s),
            taken_over=load_taken_over(store),
            outcome=_outcome(store),
            workers=tuple(queue.workers()) if queue else (),
            late_answers=queue.late_answers if queue else 0,
        )

    @property
    def trials(self) -> tuple[Trial, ...]:
        return self.outcome.trials if self.outcome else ()

    @property
    def per_hour(self) -> float | None:
        """Trials of the run's own, an hour of its time, set-up and all."""
        own = len(self.trials) - self.taken_over
        return 3600 * own / self.elapsed_s if self.elapsed_s else None

    @property
    def states(self) -> dict[str, int]:
        """How many trials ended how."""
        return dict(Counter(trial.state for trial in self.trials))

    @property
    def failures(self) -> dict[str, int]:
        """Failed trials by their reason, the most frequent first."""
        return dict(Counter(trial.note for trial in self.trials if trial.state == "failed").most_common())

    @property
    def stands(self) -> str:
        """Whether it goes on, in a sentence."""
        if self.writer:
            return f"Running ({self.writer})."
        sentence = ended_sentence(self.outcome) if self.outcome else ""
        return sentence or f"Nobody leads it; go on with: whisperfit resume {self.folder or 'its folder'}"


def print_status(status: Status, *, as_json: bool) -> None:
    """On stdout, as lines or as one JSON object."""
    print(json.dumps(_values(status)) if as_json else "\n".join(_lines(status)))


def _values(status: Status) -> dict[str, Any]:
    outcome = outcome_values(status.outcome, Path(status.place)) if status.outcome else {"run": status.place}
    return outcome | {
        "writer": status.writer,
        "elapsed_s": status.elapsed_s,
        "left_s": status.left_s,
        "trials": len(status.trials),
        "trials_taken_over": status.taken_over,
        "trials_per_hour": status.per_hour,
        "states": status.states,
        "failures": status.failures,
        "workers": status.workers,
        "late_answers": status.late_answers,
    }


def _lines(status: Status) -> list[str]:
    left = "" if status.left_s is None else f", {clock_time(status.left_s)} left"
    lines = [f"{status.place}: {status.stands}", f"Time: {clock_time(status.elapsed_s)} taken{left}"]
    if status.workers:
        lines.append(f"Workers: {len(status.workers)} ({', '.join(status.workers)})")
    if status.outcome is None:
        return [*lines, "Trials: none yet"]
    states = ", ".join(f"{count} {state}" for state, count in status.states.items())
    before = f", {status.taken_over} of them from another run" if status.taken_over else ""
    rate = "" if status.per_hour is None else f"; {status.per_hour:.0f} an hour"
    lines.append(f"Trials: {len(status.trials)} ({states}){before}{rate}")
    lines += [f"Failed: {count} by {reason or 'an unknown reason'}" for reason, count in status.failures.items()]
    return [*lines, _pick_line(status.outcome), f"Front: {len(status.outcome.front)} recipes"]


def _pick_line(outcome: Outcome) -> str:
    pick = outcome.recommended
    if pick is None or pick.accuracy is None:
        return "Pick: none yet within the budget and the limits"
    return (
        f"Pick: trial {pick.number}, {pick.costs.size_mb:.1f} MB, WER {percent(pick.accuracy.wer)} "
        f"(limit {percent(outcome.wer_limit.wer)}), objective {pick.objective:.3f}; {pick.recipe.summary()}"
    )


def _outcome(store: StudyStore) -> Outcome | None:
    """None before the original was scored. Raises InputError when a record is damaged."""
    trials = store.trials()
    return find_outcome(store, load_facts(store), trials) if trials and trials[0].accuracy else None
