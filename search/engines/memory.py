"""A run's memory: an Optuna study in one SQLite file, which optuna-dashboard opens.

Each finished trial carries its whole record as JSON; texts about the run as a whole hang on the study.
"""

from pathlib import Path

import optuna
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from common.errors import InputError
from search.trial import Trial

STUDY_NAME = "whisperfit"
RECORD = "record"


class Memory:
    """Everything that a run found out, on disk."""

    def __init__(self, file: Path) -> None:
        """Open or create the study. Raises InputError when the file cannot be written or is no study."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
            self.study = optuna.create_study(
                study_name=STUDY_NAME, storage=storage, directions=["minimize", "minimize"], load_if_exists=True
            )
        except (SQLAlchemyError, RuntimeError, ValueError) as error:
            raise InputError(f"{file}: cannot be opened as an Optuna study ({str(error).splitlines()[0]})") from error

    def trials(self) -> tuple[Trial, ...]:
        """Every recorded trial, in number order."""
        frozen = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])
        return tuple(Trial.from_json(one.user_attrs[RECORD]) for one in frozen if RECORD in one.user_attrs)

    def remember(self, key: str, value: str) -> None:
        """Keep a text with the run."""
        self.study.set_user_attr(key, value)

    def recall(self, key: str) -> str | None:
        """A text that was kept, or None."""
        return self.study.user_attrs.get(key)
