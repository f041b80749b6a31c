"""The executor whose jobs workers do (see `search.run.measuring.Executor`)."""

from collections.abc import Callable
from time import monotonic, sleep

from search.run.measuring import Answer, Job
from search.workers.job_queue import JobQueue

POLL_S = 0.1
ALONE_S = 60.0
"""After so long without any worker the user is told."""
Say = Callable[[str], None]


class Workers:
    """Jobs go into a queue, answers come out of it; those to jobs of an earlier session too.

    `is_interrupted`: whether the user wants it to end. `look_after`: called while it waits, to keep processes of this
    machine alive.
    """

    is_here = False

    def __init__(
        self,
        queue: JobQueue,
        say: Say,
        is_interrupted: Callable[[], bool],
        *,
        look_after: Callable[[], None] = lambda: None,
        poll_s: float = POLL_S,
    ) -> None:
        self._queue = queue
        self._say = say
        self._is_interrupted = is_interrupted
        self._look_after = look_after
        self._poll_s = poll_s
        self._jobs: dict[int, Job] = {}
        self._answers: list[tuple[int, Answer]] = []
        self._withdrawn: list[Job] = []
        self._alive = 0
        self._alone_since: float | None = None

    @property
    def room(self) -> int:
        """Two for each worker, so that it finds one whose encoder it knows; one, where there is none."""
        return max(1, 2 * self._alive) - len(self._jobs)

    def submit(self, job: Job) -> None:
        self._jobs[self._queue.put(job)] = job

    def wait(self) -> tuple[Job, Answer] | None:
        while not self._answers:
            self._look_after()
            if self._is_interrupted():
                self._withdraw()
            if not self._jobs:
                return None
            self._count_workers()
            self._answers = self._queue.answers(self._jobs)
            if not self._answers:
                sleep(self._poll_s)
        number, answer = self._answers.pop(0)
        return self._jobs.pop(number), answer

    def withdraw(self) -> list[Job]:
        self._withdraw()
        withdrawn, self._withdrawn = self._withdrawn, []
        return withdrawn

    def _withdraw(self) -> None:
        self._withdrawn += [self._jobs.pop(number) for number in self._queue.withdraw(self._jobs)]

    def _count_workers(self) -> None:
        """The user is told where there is none for long."""
        self._alive, now = len(self._queue.workers()), monotonic()
        if self._alive:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        elif now - self._alone_since > ALONE_S:
            self._say("No worker is there: the run waits for one (whisperfit worker)")
            self._alone_since = float("inf")
