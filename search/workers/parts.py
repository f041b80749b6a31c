"""A recipe's WER from several workers: each scores blocks of the speech set, the run adds them up."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Protocol

from common.errors import CompressionError, EvaluationError
from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from search.memory_errors import MemoryShortageError
from search.run.measuring import Answer, Enough, Job, Judges
from search.scorer import Baseline, clips_of
from search.trial import Heard, Trial

BaselineNow = Callable[[], Baseline | None]
"""The run's baseline; None while the original itself is scored."""


class ScoresBlocks(Judges, Protocol):
    """What of a scorer (`search.scorer.Scorer`) a worker needs."""

    def hear(self, recipe: Recipe, block: int) -> Heard: ...


class AddsUp(Protocol):
    """What of a scorer makes a trial of what others heard."""

    @property
    def blocks(self) -> int: ...

    @property
    def most_clips(self) -> int: ...

    def over(self, heard: Sequence[Heard], baseline: Baseline) -> str | None: ...

    def assembled(  # noqa: PLR0913 - as `search.scorer.Scorer`
        self,
        number: int,
        recipe: Recipe,
        heard: Sequence[Heard],
        *,
        baseline: Baseline | None,
        divergence: Divergence | None,
        stopped: str | None = None,
    ) -> Trial: ...


def do_part(scorer: ScoresBlocks, job: Job) -> Answer:
    """Judge a recipe, or score a block with it. Raises MemoryShortageError, which says nothing of the recipe."""
    started = perf_counter()
    try:
        if job.enough:
            divergence = scorer.divergence(job.recipe, job.enough, job.divergence)
            return Answer(divergence=divergence, seconds=perf_counter() - started)
        if job.block is None:
            raise ValueError("a worker scores blocks")
        heard = scorer.hear(job.recipe, job.block)
    except MemoryShortageError:
        raise
    except (CompressionError, EvaluationError) as error:
        return Answer(problem=str(error), seconds=perf_counter() - started)
    return Answer(heard=heard, seconds=perf_counter() - started)


class Assembly:
    """One recipe that is scored in parts: a job for each block, and one for the clips that its divergence lacks.

    `left`: parts that nobody was asked for yet.
    """

    def __init__(self, job: Job, scorer: AddsUp, baseline: Baseline | None) -> None:
        self.job = job
        self._scorer = scorer
        self._baseline = baseline
        self._heard: dict[int, Heard] = {}
        self._divergence = job.divergence
        self._is_judged = clips_of(job.divergence) >= scorer.most_clips
        self._seconds = 0.0
        self.left = deque(self._parts())

    def _parts(self) -> Iterator[Job]:
        clips = self._scorer.most_clips
        if not self._is_judged:
            yield replace(self.job, enough=Enough(clips=clips, first=clips, margin=1.0))
        for block in range(self._scorer.blocks):
            yield replace(self.job, block=block)

    def take(self, part: Job, answer: Answer) -> Answer | None:
        """The answer to the whole job, if this one to a part of it is the last that it takes."""
        self._seconds += answer.seconds
        if answer.problem:
            return Answer(problem=answer.problem, seconds=self._seconds)
        if answer.divergence:
            self._divergence, self._is_judged = answer.divergence, True
        if answer.heard and part.block is not None:
            self._heard[part.block] = answer.heard
        stopped = self._over()
        is_scored = stopped or len(self._heard) == self._scorer.blocks
        return self._whole(stopped) if is_scored and self._is_judged else None

    @property
    def _first(self) -> list[Heard]:
        """Of the first blocks without a gap: which one comes soonest may depend on its errors, their order does not."""
        found: list[Heard] = []
        while len(found) in self._heard:
            found.append(self._heard[len(found)])
        return found

    def _over(self) -> str | None:
        first = self._first
        is_part = 0 < len(first) < self._scorer.blocks
        return self._scorer.over(first, self._baseline) if self._baseline and is_part else None

    def _whole(self, stopped: str | None) -> Answer:
        trial = self._scorer.assembled(
            self.job.number,
            self.job.recipe,
            self._first,
            baseline=self._baseline,
            divergence=self._divergence,
            stopped=stopped,
        )
        return Answer(trial=replace(trial, seconds=self._seconds), seconds=self._seconds)
