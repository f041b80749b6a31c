"""`whisperfit recover`: a trial of a run made better by training, added to the run as a trial of its own."""

import json
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from rich.console import Console

from common.errors import INTERRUPTED_EXIT, InputError, UnknownNameError
from common.log import tell
from compression.recipe.recovery_spec import RECOVERY_METHODS, RecoveryMethod
from compression.training.run import Limits
from compression.training.settings import TrainingSettings
from evaluators.speech.noisy_speech import noise_files
from evaluators.speech.speech_set import SpeechSet
from search.commands.ending import Ending
from search.commands.report import NO_RECIPE_EXIT, write_all
from search.engines.optuna_engine import OptunaEngine
from search.loading import load_speech
from search.records.folder import RunFolder
from search.records.ledger import Ledger
from search.records.run_records import check_configuration, find_trial
from search.records.study_store import StudyStore, advising
from search.recover_trial import (
    Listener,
    Recovered,
    RecoveryPlan,
    add_trial,
    check_disjoint,
    improve,
    progress_line,
    subject_of,
)
from search.report.baseline_vs_pick import percent
from search.report.result_files import ResultFiles
from search.run.interrupts import Interruption, say_beside
from search.run.progress import Progress
from search.run.time_budget import End, RunClock
from search.scorer import Scorer
from search.session import Session, reopen_session
from search.trial import Trial


@dataclass(frozen=True, kw_only=True)
class RecoverOptions:
    """The command's options; None: the recommended trial, the run's calibration speech, no limit of time, defaults."""

    run: Path
    trial: str | None
    method: str
    hours: float | None
    speech: Path | None
    training: Path | None
    compute: str | None


def run_recover(options: RecoverOptions, *, as_json: bool) -> None:
    """Train, score, confirm, export, and print what came of it; no other process writes into the run meanwhile."""
    settings = _settings(options)
    folder = RunFolder.open_to_write(options.run)
    with folder.locked():
        _recover(_opened(options, settings, folder), options, as_json=as_json)


def _recover(work: "_Work", options: RecoverOptions, *, as_json: bool) -> None:
    recovered = work.improved(None if options.hours is None else 3600 * options.hours)
    if recovered is None:
        anew = "begins anew, since a reconstruction keeps nothing"
        goes_on = anew if work.recovery.method == "reconstruct" else "goes on from here"
        sys.stderr.write(f"Interrupted; the same command {goes_on}\n")
        sys.exit(INTERRUPTED_EXIT)
    if recovered.failure_reason:
        work.forget()
        sys.stderr.write(f"No trial is added: {recovered.failure_reason}\n")
    better = None if recovered.failure_reason else work.add(recovered)
    if as_json:
        print(json.dumps(_values(work.trial, better, recovered, work.recovery.method)))
    elif better:
        print(_line(work.trial, better))
    if better is None:
        sys.exit(NO_RECIPE_EXIT)


def _opened(options: RecoverOptions, settings: TrainingSettings, folder: RunFolder) -> "_Work":
    """Raises InputError for whatever is wrong with the options, before anything that takes long."""
    store = StudyStore(folder.study, create=False)
    ledger = Ledger(store)
    trial = find_trial(ledger.outcome(), options.trial)
    check_configuration(store, folder.config())
    session = reopen_session(folder, tell, options.compute)
    method: RecoveryMethod = options.method  # type: ignore[assignment] # checked by _settings
    recovery = RecoveryPlan(method=method, settings=settings, speech=_speech(options, session))
    check_disjoint(recovery.speech, session)
    return _Work(folder=folder, store=store, ledger=ledger, session=session, trial=trial, recovery=recovery)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """One recovery of a run's trial."""

    folder: RunFolder
    store: StudyStore
    ledger: Ledger
    session: Session
    trial: Trial
    recovery: RecoveryPlan
    console: Console = field(default_factory=lambda: Console(stderr=True))

    @property
    def _checkpoint(self) -> Path:
        return self.folder.recovered / f"{self.trial.recipe.id}-{self.recovery.method}.checkpoint"

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def _advising_again(self) -> AbstractContextManager[None]:
        """For what the same command makes anew or goes on with."""
        again = f"whisperfit recover {self.folder.path} --trial {self.trial.number} --method {self.recovery.method}"
        return advising(self.store.address, f"{again} again, with the other options as they were")

    def improved(self, seconds: float | None) -> Recovered | None:
        """Better weights for the trial's recipe; None when interrupted."""
        told = "Interrupted: finishing the step in flight; Ctrl-C again drops it."
        interruption = Interruption(lambda: say_beside(self._say, told))
        limits = Limits(seconds=seconds, clock=monotonic, should_stop=lambda: interruption.asked)
        recipe = self.trial.recipe
        self._say(f"Recovering trial {self.trial.number} by {self.recovery.method}: {recipe.summary()}")
        with self._advising_again(), interruption.caught():
            listener = Listener(say=self._say, watch=lambda point: self._say(progress_line(point)))
            return improve(subject_of(self.session, recipe), self.recovery, limits, self._checkpoint, listener)

    def add(self, recovered: Recovered) -> Trial:
        """Score, record and ship what came out."""
        with self._advising_again():
            config = self.session.config
            engine = OptunaEngine(self.store, self.session.space, sampler=config.sampler, seed=config.seed)
            better = add_trial(self.session, engine, self.ledger, self.trial, self.recovery, recovered, self._say)
            self.forget()
        with advising(self.store.address, f"whisperfit resume {self.folder.path}"):
            self._finish()
        return better

    def forget(self) -> None:
        """Remove the checkpoint: there is nothing to go on with."""
        self._checkpoint.unlink(missing_ok=True)

    def _finish(self) -> None:
        """Confirm and export what is on the front now, and write the run's files again."""
        with Progress(self.console, End(seconds=None, trials=None)) as shown:
            finished = Ending(
                session=self.session,
                scorer=Scorer(self.session),
                ledger=self.ledger,
                clock=RunClock(self.store, monotonic, started=monotonic()),
                progress=shown,
                interruption=Interruption(shown.interrupted),
            ).reach(self.folder.models)
        results = ResultFiles(self.folder.path, self.session.model.dimensions)
        write_all(self.folder, self.ledger.outcome(), results, as_json=False)
        if not finished:
            sys.stderr.write(f"Interrupted; go on with: whisperfit resume {self.folder.path}\n")
            sys.exit(INTERRUPTED_EXIT)


def _settings(options: RecoverOptions) -> TrainingSettings:
    if options.method not in RECOVERY_METHODS:
        raise UnknownNameError("method", options.method, RECOVERY_METHODS)
    if options.method == "reconstruct" and options.training:
        raise InputError("a reconstruction has no settings: leave out --training")
    settings = TrainingSettings.read(options.training)
    if settings.noise:
        noise_files(settings.noise, option="training: noise")
    if options.method != "reconstruct" and options.hours is None and settings.steps is None:
        raise InputError("a training needs an end: give --hours, or steps in --training FILE.toml")
    return settings


def _speech(options: RecoverOptions, session: Session) -> SpeechSet:
    config = session.config
    path = options.speech or config.calibration
    if path is None:
        raise InputError("this run has no calibration speech of its own to train on: give --speech MANIFEST")
    return load_speech(path, session.model, language=config.language, skip_broken=config.skip_broken)


def _wer(trial: Trial) -> str:
    if trial.accuracy is None:
        return f"no WER ({trial.state}: {trial.note})"
    suffix = "" if trial.state == "complete" else f" ({trial.note})"
    return f"WER {percent(trial.accuracy.wer)}{suffix}"


def _line(before: Trial, after: Trial) -> str:
    return f"trial {before.number}: {_wer(before)} -> trial {after.number}: {_wer(after)}, recipe {after.recipe.id}"


def _values(before: Trial, after: Trial | None, recovered: Recovered, method: str) -> dict[str, object]:
    """For scripts; null where no trial was added."""
    training = recovered.training
    return {
        "from_trial": before.number,
        "from_wer": before.accuracy and before.accuracy.wer,
        "trial": after and after.number,
        "recipe_id": after and after.recipe.id,
        "method": method,
        "state": after and after.state,
        "feasible": after and after.feasible,
        "wer": after and after.accuracy and after.accuracy.wer,
        "note": after.note if after else recovered.failure_reason,
        "steps": training and training.steps,
        "seconds": training and training.seconds,
        "ended": training and training.ended,
    }
