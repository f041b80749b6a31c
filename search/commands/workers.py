"""The workers that a configuration asks for."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import InputError
from common.log import tell
from compression.techniques import bank, pruning
from compression.whisper.compute import compute_of_worker
from evaluators.accuracy import divergence_meter, evaluator
from runtime.memory import peak_rss_bytes
from search.loading import Say
from search.needs.memory import available_mb
from search.records.folder import RunFolder
from search.records.ledger import Ledger
from search.records.study_store import StudyStore
from search.run.interrupts import Interruption
from search.run.measuring import Executor
from search.scorer import Baseline, Scorer
from search.session import Session
from search.workers.executor import Workers
from search.workers.job_queue import JobQueue
from search.workers.local import LocalWorkers, check_memory, threads_of_each
from search.workers.presence import beating
from search.workers.work import worker_name

CACHED_BYTES = (
    evaluator.ENCODER_CACHE_BYTES
    + divergence_meter.ENCODER_CACHE_BYTES
    + divergence_meter.ANSWERS_CACHE_BYTES
    + 3 * bank.REMEMBERED_BYTES
    + pruning.REMEMBERED_BYTES
)
"""What a worker may come to hold in hours, beside what this process holds when it starts them."""


def check_unused(store: StudyStore, out: Path) -> None:
    """Raise InputError where another run has its study in the storage that a new run is to begin in."""
    if store.trials() or store.texts(""):
        raise InputError(f"{store.address} holds a run: give another --study or --out than {out.name}")


@contextmanager
def leading(store: StudyStore) -> Iterator[None]:
    """Be the one process that leads a run whose study others reach, while the block lasts.

    Raises InputError that names the other process. A study in the run's folder is guarded by the folder's lock.
    """
    if store.address.file:
        yield
        return
    queue, me = JobQueue(store.engine, store.address.name), worker_name()
    if not queue.lead(me):
        raise InputError(f"{store.address} is led by {queue.leader}: wait for it, or end it")
    try:
        with beating(lambda: _keep_leading(queue, me)):
            yield
    finally:
        queue.follow(me)


def _keep_leading(queue: JobQueue, me: str) -> None:
    """Where another process has taken the lead, because this one was not heard of for long, this one ends."""
    if not queue.lead(me):
        tell(f"Another process leads this run now ({queue.leader}): this one ends")
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def open_workers(  # noqa: PLR0913 - the parts of a run
    *,
    folder: RunFolder,
    session: Session,
    store: StudyStore,
    scorer: Scorer,
    ledger: Ledger,
    interruption: Interruption,
    say: Say,
) -> Iterator[Executor | None]:
    """Who measures; None: this process. Processes of this machine end with the block."""
    config = session.config
    if not config.has_workers:
        yield None
        return

    def baseline() -> Baseline | None:
        return scorer.baseline(ledger.trials[0]) if ledger.trials else None

    queue, count = JobQueue(store.engine, store.address.name), config.local_workers
    if not count:
        yield Workers(queue, scorer, baseline, say, lambda: interruption.asked)
        return
    check_memory(count, peak_rss_bytes() / 1e6, CACHED_BYTES / 1e6, available_mb(), say)
    threads = threads_of_each(config.threads, count)
    logs, form = folder.path / "workers", config.log_format
    computes = [compute_of_worker(config.compute, index) for index in range(count)]
    local = LocalWorkers(store.address, computes, threads=threads, log_format=form, folder=logs, say=say)
    with local.running():
        yield Workers(queue, scorer, baseline, say, lambda: interruption.asked, look_after=local.look_after)
