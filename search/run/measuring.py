"""What is to be measured of a recipe, what came of it, and who measures: this process, or workers."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from time import perf_counter
from typing import Protocol

from common.errors import CompressionError, EvaluationError
from common.log import note
from common.stages import collecting
from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from runtime.memory import resident_bytes
from search.scorer import Baseline
from search.trial import Heard, RecipeText, Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class Enough:
    """When a recipe's divergence is known well enough: after `clips`, or where another recipe is clearly better.

    `better`: the least divergence, on the first 1, 2, ... clips, of the recipes that cost no more; empty where there
    are none. Clearly is by `margin` after the `first` clips, by less the more clips there are: what two recipes differ
    by is an average over them.
    """

    clips: int
    first: int
    margin: float
    better: tuple[float, ...] = ()

    def __call__(self, found: Divergence) -> bool:
        if found.clips >= self.clips:
            return True
        if not self.first <= found.clips <= len(self.better):
            return False
        margin = 1 + (self.margin - 1) * sqrt(self.first / found.clips)
        return self.better[found.clips - 1] * margin <= found.mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One measurement: of the divergence where there is an `enough`, else of the WER and all.

    `number`: the trial's, as far as it is known before it ends. `divergence`: as far as it is known. `block`: of the
    speech set, where only that is to be scored.
    """

    number: int
    recipe: RecipeText
    enough: Enough | None = None
    divergence: Divergence | None = None
    block: int | None = None

    @property
    def kind(self) -> str:
        """What is measured, in a word or two; no recipe has two jobs of one kind."""
        if self.enough:
            return f"clips {self.enough.clips}"
        return "all" if self.block is None else f"block {self.block}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came of a job: its trial, its divergence, what was heard in its block, or the problem that there is none."""

    seconds: float
    trial: Trial | None = None
    heard: Heard | None = None
    divergence: Divergence | None = None
    problem: str = ""

    @property
    def shown(self) -> dict[str, object]:
        """Its figures, as a log has them."""
        values: dict[str, object] = {"problem": self.problem} if self.problem else {}
        if self.trial:
            wer = self.trial.accuracy.wer if self.trial.accuracy else None
            values |= {"state": self.trial.state, "wer": wer}
        if self.divergence:
            values |= {"divergence": self.divergence.mean, "clips": self.divergence.clips}
        if self.heard:
            values |= {"errors": sum(utterance.errors for utterance in self.heard.utterances)}
        return values


class Judges(Protocol):
    """What of a scorer (`search.scorer.Scorer`) measures divergence."""

    def divergence(
        self, recipe: Recipe, enough: Callable[[Divergence], bool], known: Divergence | None = None
    ) -> Divergence: ...


class Measures(Judges, Protocol):
    """What of it turns whole jobs into answers."""

    def score(
        self, number: int, recipe: Recipe, baseline: Baseline | None, divergence: Divergence | None = None
    ) -> Trial: ...


def measure(scorer: Measures, job: Job, baseline: Baseline | None) -> Answer:
    """Do one job; without a baseline it is the original's own."""
    started = perf_counter()
    if job.enough is None:
        trial = scorer.score(job.number, job.recipe, baseline, job.divergence)
        return Answer(trial=trial, seconds=trial.seconds)
    try:
        divergence = scorer.divergence(job.recipe, job.enough, job.divergence)
    except (CompressionError, EvaluationError) as error:
        return Answer(problem=str(error), seconds=perf_counter() - started)
    return Answer(divergence=divergence, seconds=perf_counter() - started)


def noted(job: Job, measuring: Callable[[], Answer]) -> Answer:
    """The answer, once measured; the log has when the job began, its figures and its seconds by stage."""
    what = {"trial": job.number, "recipe": job.recipe.id, "job": job.kind}
    note("begins", **what, summary=job.recipe.summary())
    with collecting() as spent:
        answer = measuring()
    stages = {f"{stage}_s": round(seconds, 3) for stage, seconds in spent.items()}
    memory_mb = round(resident_bytes() / 1e6)
    note("ends", **what, **answer.shown, seconds=round(answer.seconds, 3), **stages, memory_mb=memory_mb)
    return answer


class Executor(Protocol):
    """Does jobs, several at a time where there are workers, and hands out answers in the order in which they come.

    `is_here`: whether a job that ends the process which does it ends the run.
    """

    is_here: bool

    @property
    def room(self) -> int:
        """How many more jobs it would take now."""

    def submit(self, job: Job) -> None: ...

    def wait(self) -> tuple[Job, Answer] | None:
        """The next answer to a job that was submitted; None where the user interrupts and nobody does one."""

    def withdraw(self) -> list[Job]:
        """Jobs that nobody has begun, which are then not done."""


class Here:
    """An executor of one job at a time, in this process, when it is waited for."""

    is_here = True

    def __init__(self, scorer: Measures, baseline: Callable[[], Baseline | None]) -> None:
        self._scorer = scorer
        self._baseline = baseline
        self._job: Job | None = None

    @property
    def room(self) -> int:
        return 0 if self._job else 1

    def submit(self, job: Job) -> None:
        self._job = job

    def wait(self) -> tuple[Job, Answer]:
        job = self._job
        if job is None:
            raise ValueError("there is no job to wait for")
        answer = noted(job, lambda: measure(self._scorer, job, self._baseline()))
        self._job = None
        return job, answer

    def withdraw(self) -> list[Job]:
        withdrawn, self._job = [self._job] if self._job else [], None
        return withdrawn
