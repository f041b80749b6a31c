"""Recipes that need not be judged: more compression never brings accuracy back.

A recipe that is compressed at least as much in every field as one that is over the budget is over it too. Recipes that
choose or round differently, or have another window, are not compared (`search.engines.enumeration.rank`). The rule is
an assumption. What was judged tests it: of two judged recipes that it relates, the more compressed one must not diverge
less by more than MARGIN. A recipe has to be over the budget by the same MARGIN before it excludes others, so that noise
below it cannot mislead.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from search.engines.enumeration import Enumeration, Mask, rank
from search.limits.group_budget import GROUP
from search.space.space import Space
from search.trial import Trial

MARGIN = 1.05
"""Ratio of two divergences: of 35,994 comparisons in results/third none contradicts the rule by more, and 17 by
more than 1.02."""


class Exclusion:
    """What judged recipes say of all recipes of a space."""

    def __init__(self, enumeration: Enumeration) -> None:
        self._enumeration = enumeration
        self._floor = np.zeros(len(enumeration))
        self._is_over: Mask = np.zeros(len(enumeration), bool)

    def judged(self, covered: Mask, divergence: float) -> None:
        """Know a divergence, and which recipes are at least as compressed as the one that has it."""
        self._floor[covered] = np.maximum(self._floor[covered], divergence)

    def add(self, trial: Trial) -> None:
        """Know a trial."""
        if trial.recipe.recovery is not None or not (trial.divergence or is_surely_over(trial)):
            return
        covered = self._enumeration.at_least_as_compressed(trial.recipe)
        if trial.divergence:
            self.judged(covered, trial.divergence.mean)
        if is_surely_over(trial):
            self._is_over |= covered

    def excluded(self, target: float | None) -> Mask:
        """Which recipes are. `target`: the largest divergence that is within the budget; None: nobody knows it."""
        return self._is_over if target is None else self._is_over | (self._floor > MARGIN * target)


def is_surely_over(trial: Trial) -> bool:
    """Whether transcripts ended early since the WER, and not a group's, was surely over the budget."""
    over = trial.violations
    return trial.state == "stopped" and trial.accuracy is not None and over.get("wer", 0) > 0 >= over.get(GROUP, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparisons:
    """Pairs of judged recipes that the rule relates, and how many of them contradict it."""

    made: int
    contradictions: int


def compare(judged: Sequence[tuple[Recipe, Divergence]], space: Space) -> Comparisons:
    """All such pairs, each on the clips that both were heard on."""
    placed = [rank(recipe, space) for recipe, _ in judged]
    by_kind: dict[tuple[object, ...], list[int]] = {}
    for index, (kind, _) in enumerate(placed):
        by_kind.setdefault(kind, []).append(index)
    made = contradictions = 0
    for members in by_kind.values():
        amounts = np.array([placed[index][1] for index in members], np.float32)
        amounts = amounts[:, (amounts != amounts[0]).any(0)]
        clips, means = _means([judged[index][1] for index in members])
        for one in range(len(members)):
            related = np.flatnonzero((amounts <= amounts[one]).all(1) & (amounts != amounts[one]).any(1))
            common = np.minimum(clips[one], clips[related])
            made += len(related)
            contradictions += int((means[related, common] * MARGIN < means[one, common]).sum())
    return Comparisons(made=made, contradictions=contradictions)


def _means(divergences: Sequence[Divergence]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """How many clips each was heard on, and its mean on the first so many, (recipes, clips + 1)."""
    clips = np.array([divergence.clips for divergence in divergences], np.intp)
    means = np.zeros((len(divergences), int(clips.max()) + 1))
    for row, divergence in zip(means, divergences, strict=True):
        row[1 : divergence.clips + 1] = np.cumsum(divergence.nats) / np.cumsum(divergence.tokens)
    return clips, means
