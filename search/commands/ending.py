"""What comes after a search or a recovery: confirming and exporting, and how much time they take."""

from dataclasses import dataclass
from pathlib import Path

from evaluators.speech.speech_set import SpeechSet
from search.artifacts import make_artifact
from search.outcome import ArtifactRecord
from search.records.ledger import Ledger
from search.run.confirmation import confirm
from search.run.exporting import export_front
from search.run.interrupts import Interruption
from search.run.progress import Progress
from search.run.time_budget import RunClock
from search.scorer import Scorer
from search.session import Session
from search.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What comes after a search, or after a recovery: the front confirmed, exported, measured."""

    session: Session
    scorer: Scorer
    ledger: Ledger
    clock: RunClock
    progress: Progress
    interruption: Interruption

    def reach(self, models: Path) -> bool:
        """Confirm what is on the front, and export it into `models`; False when interrupted."""
        confirmed = self.session.confirm is None or confirm(
            self.ledger, self.scorer.confirm, self.progress, self.interruption
        )
        self.clock.save()
        exported = confirmed and export_front(self.ledger, self._make, models, self.progress, self.interruption)
        self.clock.save()
        return exported

    def _make(self, trial: Trial, folder: Path) -> ArtifactRecord:
        return make_artifact(self.session, trial.recipe, folder, trial.heard)


def confirm_share(session: Session) -> float:
    """Seconds of confirm speech for each second of the search's; 0 without a confirm set."""
    if session.confirm is None:
        return 0.0
    return _seconds_of(session.confirm.speech) / _seconds_of(session.evaluator.speech)


def _seconds_of(speech: SpeechSet) -> float:
    return sum(utterance.duration_s for utterance in speech.utterances)
