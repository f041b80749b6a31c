"""The executor whose jobs workers do (see `search.run.measuring.Executor`)."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep

from search.run.measuring import Answer, Job
from search.workers.job_queue import JobQueue
from search.workers.parts import AddsUp, Assembly, BaselineNow

POLL_S = 0.1
ALONE_S = 60.0
"""After so long without any worker the user is told."""
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """A job in the queue. `whole`: what it is a part of; None where it is all that was submitted."""

    job: Job
    whole: Assembly | None = None

    @property
    def submitted(self) -> Job:
        return self.whole.job if self.whole else self.job


class Workers:
    """Jobs go into a queue, answers come out of it; those to jobs of an earlier session too.

    A recipe that is to have a WER goes into the queue in parts: one after the other, since it may turn out to be over
    the budget, several at a time where workers would wait. `baseline`: the run's, now. `is_interrupted`: whether the
    user wants it to end. `look_after`: called while it waits, to keep processes of this machine alive.
    """

    is_here = False

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        queue: JobQueue,
        scorer: AddsUp,
        baseline: BaselineNow,
        say: Say,
        is_interrupted: Callable[[], bool],
        *,
        look_after: Callable[[], None] = lambda: None,
        poll_s: float = POLL_S,
    ) -> None:
        self._queue = queue
        self._scorer = scorer
        self._baseline = baseline
        self._say = say
        self._is_interrupted = is_interrupted
        self._look_after = look_after
        self._poll_s = poll_s
        self._waiting: dict[int, _Waiting] = {}
        self._wholes: list[Assembly] = []
        self._answers: list[tuple[int, Answer]] = []
        self._withdrawn: list[Job] = []
        self._alive = 0
        self._alone_since: float | None = None

    @property
    def room(self) -> int:
        """Two for each worker, so that it finds one whose encoder it knows; one, where there is none."""
        return max(0, max(1, 2 * self._alive) - len(self._waiting))

    def submit(self, job: Job) -> None:
        baseline = self._baseline()  # of each job, as where nobody else measures: it raises where there can be none
        if job.enough:
            self._waiting[self._queue.put(job)] = _Waiting(job=job)
            return
        self._wholes.append(Assembly(job, self._scorer, baseline))
        self._put_parts()

    def _put_parts(self) -> None:
        """One of each recipe that is scored in parts, since it may end early; more, where workers would wait."""
        has_one = {id(waiting.whole) for waiting in self._waiting.values()}
        for whole in self._wholes:
            while whole.left and (id(whole) not in has_one or len(self._waiting) < self._alive):
                part = whole.left.popleft()
                self._waiting[self._queue.put(part)] = _Waiting(job=part, whole=whole)
                has_one.add(id(whole))

    def wait(self) -> tuple[Job, Answer] | None:
        while True:
            self._look_after()
            if self._is_interrupted():
                self._withdraw()
            if not self._waiting and not self._wholes:
                return None
            if not self._answers:
                self._count_workers()
                self._put_parts()
                self._answers = self._queue.answers(self._waiting)
            if not self._answers:
                sleep(self._poll_s)
            elif found := self._take(*self._answers.pop(0)):
                return found

    def _take(self, number: int, answer: Answer) -> tuple[Job, Answer] | None:
        """A submitted job with its answer, if this answer is the last that it needed."""
        waiting = self._waiting.pop(number, None)
        if waiting is None or waiting.whole is None:
            return (waiting.job, answer) if waiting else None
        found = waiting.whole.take(waiting.job, answer)
        if found:
            self._queue.withdraw(self._forget(waiting.submitted))
        return (waiting.whole.job, found) if found else None

    def _forget(self, submitted: Job) -> list[int]:
        """No answer to it, or to a part of it, is waited for any longer; their ids."""
        numbers = [number for number, waiting in self._waiting.items() if waiting.submitted is submitted]
        for number in numbers:
            del self._waiting[number]
        self._wholes = [whole for whole in self._wholes if whole.job is not submitted]
        return numbers

    def withdraw(self) -> list[Job]:
        self._withdraw()
        withdrawn, self._withdrawn = self._withdrawn, []
        return withdrawn

    def _withdraw(self) -> None:
        """A job of which a part is not begun is not done now; the answers to its other parts stay for later."""
        back = [self._waiting[number].submitted for number in self._queue.withdraw(self._waiting)]
        back += [whole.job for whole in self._wholes if whole.left]
        for job in back:
            self._forget(job)
        self._withdrawn += {id(job): job for job in back}.values()

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
