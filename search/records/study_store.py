"""A run's store: an Optuna study in a SQLite file or a database, which optuna-dashboard opens.

Each finished trial carries its whole record as JSON; texts about the run as a whole hang on the study.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages._rdb.models import TrialParamModel
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import TrialState
from sqlalchemy import Engine, insert
from sqlalchemy.exc import SQLAlchemyError

from common.errors import FULL, InputError
from common.parsing import parse_json
from search.configuration.study_address import StudyAddress
from search.records.patience import be_patient
from search.trial import Trial

RECORD = "record"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
LOCKED = "database is locked"
"""SQLite's words."""
BUSY_S = 300.0
"""How long to wait for another program that has the study's file locked: optuna-dashboard, a copy, a backup."""


def _study(storage: optuna.storages.RDBStorage, address: StudyAddress, *, create: bool) -> optuna.Study:
    """The storage's study, made if there is none; to look first lets a run be read where nothing can be written."""
    try:
        return optuna.load_study(study_name=address.name, storage=storage)
    except KeyError:
        if not create:
            there = ", ".join(sorted(optuna.get_all_study_names(storage))) or "none"
            raise InputError(f"{address}: there is no such study; there are: {there}") from None
        return optuna.create_study(study_name=address.name, storage=storage, directions=["minimize", "minimize"])


@contextmanager
def advising(address: StudyAddress, again: str) -> Iterator[None]:
    """What the study's database, or a full disk, cannot keep is an InputError that says what to do before `again`."""
    try:
        yield
    except StorageInternalError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(
            f"{address} cannot be written ({reason}); what it holds is safe: {_remedy(reason)}, then {again}"
        ) from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(f"the disk is full ({error}); what was measured is kept: make room, then {again}") from error


def _remedy(reason: str) -> str:
    if LOCKED in reason:
        return f"another program has held it for {BUSY_S / 60:.0f} minutes: end that one"
    return "make room" if "full" in reason else "see that the disk has room and can be written"


class StudyStore:
    """Everything that a run found out, on disk."""

    def __init__(self, where: StudyAddress | Path, *, create: bool = True) -> None:
        """Open the study, or make it; `where` may be a run's own file.

        Raises InputError when the database cannot be reached or written, or holds no such study.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.address = StudyAddress.of_file(where) if isinstance(where, Path) else where
        options = {"connect_args": {"timeout": BUSY_S}} if self.address.file else {"pool_pre_ping": True}
        try:
            self._database = optuna.storages.RDBStorage(self.address.storage, engine_kwargs=options)
            self.study = _study(self._database, self.address, create=create)
        except (SQLAlchemyError, RuntimeError, ValueError, ImportError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise InputError(f"{self.address}: cannot be opened as an Optuna study ({reason})") from error
        if self.address.file is None:
            be_patient(self.engine)

    @property
    def engine(self) -> Engine:
        """Of the database, for tables of our own beside Optuna's."""
        return self._database.engine

    def create_trial(self, indices: Mapping[str, int], distributions: Mapping[str, BaseDistribution]) -> int:
        """A new running trial with these parameters, in two transactions; its id in the storage.

        Study.add_trial asks the database two questions for each parameter, and does not tell the number. The
        distributions are those of all trials of the study. Should the process end between the two transactions, the
        study's sampler draws the parameters when the trial comes again.
        """
        storage = self.study._storage
        trial_id = storage.create_new_trial(self.study._study_id)
        rows = [
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": distributions[name].to_internal_repr(index),
                "distribution_json": distribution_to_json(distributions[name]),
            }
            for name, index in indices.items()
        ]
        if rows:
            with _create_scoped_session(self._database.scoped_session) as session:
                session.execute(insert(TrialParamModel), rows)
        return trial_id

    def trials(self) -> tuple[Trial, ...]:
        """Every recorded trial, in number order."""
        with self._reading():
            frozen = self.study.get_trials(deepcopy=False, states=FINISHED)
        return tuple(
            Trial.from_json(frozen_trial.user_attrs[RECORD])
            for frozen_trial in frozen
            if RECORD in frozen_trial.user_attrs
        )

    def first_trial(self) -> Trial | None:
        """The original's; None before it was scored."""
        with self._reading():
            frozen = next(iter(self.study.get_trials(deepcopy=False)), None)
        if frozen is None or RECORD not in frozen.user_attrs:
            return None
        return Trial.from_json(frozen.user_attrs[RECORD])

    def remember(self, key: str, value: str) -> None:
        """Keep a text with the run."""
        self.study.set_user_attr(key, value)

    def recall(self, key: str) -> str | None:
        """A text that was kept, or None."""
        return self._texts.get(key)

    def recall_json(self, key: str) -> Any:
        """What the JSON text that was kept says, or None. Raises InputError when it is damaged."""
        text = self.recall(key)
        try:
            return None if text is None else parse_json(text)
        except ValueError as error:
            raise InputError(f"{self.address} is damaged ({key}: {error}): put a copy of it back") from error

    def texts(self, prefix: str) -> dict[str, str]:
        """All texts whose key begins so, by the rest of the key."""
        return {key.removeprefix(prefix): value for key, value in self._texts.items() if key.startswith(prefix)}

    @property
    def _texts(self) -> dict[str, str]:
        with self._reading():
            return self.study.user_attrs

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What the file no longer gives is an InputError."""
        try:
            yield
        except (StorageInternalError, SQLAlchemyError, ValueError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise InputError(
                f"{self.address} is damaged ({reason}): put a copy of it back; "
                "the run's trials.csv has what was measured"
            ) from error
