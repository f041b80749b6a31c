"""A run's store: an Optuna study in one SQLite file, which optuna-dashboard opens.

Each finished trial carries its whole record as JSON; texts about the run as a whole hang on the study.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from common.errors import FULL, InputError
from search.trial import Trial

STUDY_NAME = "whisperfit"
RECORD = "record"


def _study(storage: optuna.storages.RDBStorage) -> optuna.Study:
    """The storage's study, made if there is none; to look first lets a run be read where nothing can be written."""
    try:
        return optuna.load_study(study_name=STUDY_NAME, storage=storage)
    except KeyError:
        return optuna.create_study(study_name=STUDY_NAME, storage=storage, directions=["minimize", "minimize"])


@contextmanager
def advising(file: Path, advice: str) -> Iterator[None]:
    """What the study's file, or a full disk, cannot keep is an InputError with this advice."""
    try:
        yield
    except StorageInternalError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(f"{file} cannot be written ({reason}); what it holds is safe: {advice}") from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(f"the disk is full ({error}); what was measured is kept: {advice}") from error


class StudyStore:
    """Everything that a run found out, on disk."""

    def __init__(self, file: Path) -> None:
        """Open or create the study. Raises InputError when the file cannot be written or is no study."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            url = URL.create("sqlite", database=str(file)).render_as_string()  # a path may hold ?, #, %, { and spaces
            storage = optuna.storages.RDBStorage(url)
            self.study = _study(storage)
        except (SQLAlchemyError, RuntimeError, ValueError) as error:
            raise InputError(f"{file}: cannot be opened as an Optuna study ({str(error).splitlines()[0]})") from error

    def trials(self) -> tuple[Trial, ...]:
        """Every recorded trial, in number order."""
        frozen = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])
        return tuple(
            Trial.from_json(frozen_trial.user_attrs[RECORD])
            for frozen_trial in frozen
            if RECORD in frozen_trial.user_attrs
        )

    def add(self, trial: Trial) -> Trial:
        """Record a trial that no sampler asked for, under the next free number, and return it with that number."""
        trial = replace(trial, number=len(self.study.get_trials(deepcopy=False)))
        is_complete = trial.state == "complete" and trial.accuracy is not None
        record = optuna.trial.create_trial(
            state=TrialState.COMPLETE if is_complete else TrialState.PRUNED,
            values=[trial.objective, trial.accuracy.wer] if is_complete and trial.accuracy else None,
            user_attrs={RECORD: trial.to_json(), "summary": trial.recipe.summary()},
            constraints=dict(trial.violations),
        )
        self.study.add_trial(record)
        return trial

    def remember(self, key: str, value: str) -> None:
        """Keep a text with the run."""
        self.study.set_user_attr(key, value)

    def recall(self, key: str) -> str | None:
        """A text that was kept, or None."""
        return self.study.user_attrs.get(key)

    def texts(self, prefix: str) -> dict[str, str]:
        """All texts whose key begins so, by the rest of the key."""
        kept = self.study.user_attrs.items()
        return {key.removeprefix(prefix): value for key, value in kept if key.startswith(prefix)}
