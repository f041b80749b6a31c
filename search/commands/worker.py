"""`whisperfit worker`: a process that measures for a run, on this machine or another one."""

import json
from collections.abc import Mapping
from typing import Any

from common.errors import InputError
from common.log import tell, write_log
from search.configuration.config import SearchConfig
from search.configuration.study_address import StudyAddress
from search.records.run_records import load_environment, load_whole_configuration
from search.records.study_store import StudyStore
from search.run.interrupts import Interruption
from search.scorer import Scorer
from search.session import Session, changed_digests, open_session
from search.workers.job_queue import JobQueue
from search.workers.work import Worker

OPTIONS = {
    "model_sha256": "--model",
    "speech_sha256": "--data",
    "device_sha256": "--device",
    "calibration_sha256": "--calibration",
    "unlabelled_sha256": "--unlabelled",
}
"""By digest, what names it."""


def run_worker(storage: str, study: str, *, places: Mapping[str, Any], log_format: str, as_json: bool) -> None:
    """Do the run's jobs until it has ended. `places`: where this machine has model and speech; else as the run does."""
    write_log(as_json=log_format == "json", details=True)
    address = StudyAddress.of_storage(storage, study)
    store = StudyStore(address, create=False)
    session = open_session(_configuration(store, places), tell)
    _check_digests(store, session)
    interruption = Interruption(lambda: tell("Interrupted: finishing the job in hand; Ctrl-C again gives it back."))
    worker = Worker(store, JobQueue(store.engine, address.name), Scorer(session), interruption, tell)
    tell(f"Measures for {address}")
    done = worker.work()
    tell(f"{done} jobs done")
    if as_json:
        print(json.dumps({"jobs": done, "interrupted": interruption.asked}))


def _configuration(store: StudyStore, places: Mapping[str, Any]) -> SearchConfig:
    """The run's, with what this machine has elsewhere, and without what only the run itself does."""
    values = load_whole_configuration(store)
    of_run = ("confirm", "recover", "recover_share", "workers", "storage", "study", "on_end")
    apart = (*of_run, "threads", "compute", "log_format")
    kept = {name: value for name, value in values.items() if name not in apart}
    return SearchConfig.build(None, kept | {name: value for name, value in places.items() if value is not None})


def _check_digests(store: StudyStore, session: Session) -> None:
    """Raise InputError, naming it, where this machine has another model, speech or device than the run."""
    changed = changed_digests(load_environment(store), session.digests)
    if changed:
        named = ", ".join(f"{OPTIONS[name]}" if name in OPTIONS else name for name in changed)
        raise InputError(
            f"{store.address}: this machine has other contents than the run for {named}: what it measured would not "
            "compare; give the run's own"
        )
