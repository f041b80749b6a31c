"""The workers that a configuration asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import InputError
from devices.profiler.board.inspect_machine import memory_mb
from runtime.measure import peak_rss_bytes
from search.loading import Say
from search.records.folder import RunFolder
from search.records.study_store import StudyStore
from search.run.measuring import Executor
from search.session import Session
from search.workers.executor import Workers
from search.workers.job_queue import JobQueue
from search.workers.local import LocalWorkers, check_memory, threads_of_each


def check_unused(store: StudyStore, out: Path) -> None:
    """Raise InputError where another run has its study in the storage that a new run is to begin in."""
    if store.trials() or store.texts(""):
        raise InputError(f"{store.address} holds a run: give another --study or --out than {out.name}")


@contextmanager
def open_workers(folder: RunFolder, session: Session, store: StudyStore, say: Say) -> Iterator[Executor | None]:
    """Who measures; None: this process. Processes of this machine end with the block."""
    config = session.config
    if not config.has_workers:
        yield None
        return
    queue, count = JobQueue(store.engine, store.address.name), config.local_workers
    if not count:
        yield Workers(queue, say)
        return
    check_memory(count, peak_rss_bytes() / 1e6, memory_mb(Path("/"), "MemAvailable"))
    threads = threads_of_each(config.threads, count)
    local = LocalWorkers(store.address, count, threads=threads, folder=folder.path / "workers", say=say)
    with local.running():
        yield Workers(queue, say, look_after=local.look_after)
