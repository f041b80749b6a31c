"""What a worker does: take a job, measure, answer, until the run has ended."""

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from threading import Lock
from time import monotonic

from search.memory_errors import MemoryShortageError
from search.records.run_records import load_ended
from search.records.study_store import StudyStore
from search.run.interrupts import Interruption
from search.run.measuring import noted
from search.trial import Trial
from search.workers.job_queue import JobQueue, Lease
from search.workers.parts import ScoresBlocks, do_part
from search.workers.presence import beating, end_with_parent

POLL_S = 0.1
LOOK_S = 5.0
"""Between two looks at whether the run has ended, while there is no job."""
ENCODERS = 16
"""As many as a worker is likely to have the outputs of at hand (`evaluators.accuracy.divergence_meter`)."""
LEAST_DEADLINE_S, TIMES_THE_ORIGINAL = 900.0, 30.0
"""A job that takes longer than this, and than so many times the original's own, hangs."""
HUNG_EXIT = 70
"""Of a process whose job hangs; as sysexits.h has it for an internal error."""
Say = Callable[[str], None]


def worker_name() -> str:
    """Of this process, over all machines."""
    return f"{socket.gethostname()}-{os.getpid()}"


class Worker:
    """One process that measures for a run."""

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        store: StudyStore,
        queue: JobQueue,
        scorer: ScoresBlocks,
        interruption: Interruption,
        say: Say,
        *,
        name: str | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        self._store = store
        self._queue = queue
        self._scorer = scorer
        self._interruption = interruption
        self._say = say
        self._name = name or worker_name()
        self._poll_s = poll_s
        self._original: Trial | None = None
        self._encoders: deque[str] = deque(maxlen=ENCODERS)

    def work(self) -> int:
        """Do jobs until the run has ended, or the user interrupts; how many were done."""
        done, looked, pulse = 0, monotonic(), _Pulse(self._queue, self._name)
        with self._interruption.caught(), beating(pulse.beat) as ending:
            try:
                while not self._interruption.asked:
                    lease = self._queue.take(self._name, self._encoders)
                    if lease:
                        self._do(lease, pulse)
                        done, looked = done + 1, monotonic()
                    elif monotonic() - looked < LOOK_S:
                        ending.wait(self._poll_s)
                    elif self._has_ended():
                        break
                    else:
                        looked = monotonic()
            finally:
                self._queue.leave(self._name)
        return done

    def _do(self, lease: Lease, pulse: "_Pulse") -> None:
        job = lease.job
        try:
            with pulse.working_on(lease, self._deadline_s):
                answer = noted(job, lambda: do_part(self._scorer, job))
        except KeyboardInterrupt:
            self._queue.give_back(lease, self._name)
            raise
        except MemoryShortageError:
            self._queue.drop(lease, self._name)
            raise
        self._encoders.append(job.recipe.encoder_key)
        if not self._queue.answer(lease, self._name, answer):
            self._say(f"trial {job.number} was answered by another worker meanwhile")

    @property
    def _deadline_s(self) -> float:
        """None is set before the original was scored."""
        self._original = self._original or self._store.first_trial()
        return max(LEAST_DEADLINE_S, TIMES_THE_ORIGINAL * self._original.seconds) if self._original else inf

    def _has_ended(self) -> bool:
        ended = load_ended(self._store)
        return ended is not None and ended.reason != "interrupted"


class _Pulse:
    """Says that a worker is alive, and renews the lease of the job that it does.

    A job that takes longer than its deadline hangs, and nothing in Python can end it but the end of the process.
    """

    def __init__(self, queue: JobQueue, worker: str) -> None:
        self._queue = queue
        self._worker = worker
        self._lock = Lock()
        self._lease: Lease | None = None
        self._until = 0.0

    def beat(self) -> None:
        """Once; see `search.workers.presence`."""
        end_with_parent()
        self._queue.greet(self._worker)
        with self._lock:
            lease, is_late = self._lease, monotonic() > self._until
        if lease and is_late:
            os._exit(HUNG_EXIT)
        if lease:
            self._queue.renew(lease, self._worker)

    @contextmanager
    def working_on(self, lease: Lease, deadline_s: float) -> Iterator[None]:
        """Renew the lease while the block lasts."""
        with self._lock:
            self._lease, self._until = lease, monotonic() + deadline_s
        try:
            yield
        finally:
            with self._lock:
                self._lease = None
