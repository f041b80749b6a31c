"""The original and the front as files, each of them measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from common.errors import EvaluationError
from search.outcome import ArtifactRecord
from search.records.ledger import Ledger
from search.run.interrupts import Interruption
from search.trial import Trial

MakeArtifact = Callable[[Trial, Path], ArtifactRecord]
"""Writes the artifact of a trial's recipe into a folder and measures it: see `search.artifacts.make_artifact`."""


class Watcher(Protocol):
    """Is told what happens."""

    def exporting(self, trial: Trial) -> None: ...

    def say(self, text: str) -> None: ...


def export_front(
    ledger: Ledger, make: MakeArtifact, models: Path, watcher: Watcher, interruption: Interruption
) -> bool:
    """Export the baseline and the front into `models`, one folder by recipe id; False when interrupted.

    What was exported and measured before is left alone, unless its folder is gone. What could not be measured leaves
    no record, so that nothing is held against the recipe and the next session tries again.
    """
    with interruption.caught():
        for trial in ledger.baseline_and_front:
            folder, record = models / trial.recipe.id, ledger.artifact(trial)
            if record and record.figures and folder.is_dir():
                continue
            if interruption.asked:
                break
            watcher.exporting(trial)
            try:
                ledger.keep_artifact(trial, make(trial, folder))
            except EvaluationError as error:
                watcher.say(f"the artifact of trial {trial.number} is not measured (resume tries again): {error}")
    return not interruption.asked
