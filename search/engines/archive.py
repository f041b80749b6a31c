"""Recipes that were judged by divergence: what they cost, how far they are from the original, which is the best."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from evaluators.accuracy.divergence import Divergence
from search.space.space import Genes

STEEP = 4.0
"""Of `Archive.rate`, before the front has a shape."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """One of them. `divergence`: of the first clips only, where that was enough to see that another one is better."""

    recipe_id: str
    genes: Genes
    objective: float
    divergence: Divergence


class Archive:
    """All that a run judged, in order. `expected`: ids of the recipes that are being judged."""

    def __init__(self) -> None:
        self.judged: list[Judged] = []
        self._ids: set[str] = set()
        self.expected: set[str] = set()
        self._front: list[Judged] = []

    def __contains__(self, recipe_id: str) -> bool:
        return recipe_id in self._ids or recipe_id in self.expected

    def expect(self, recipe_id: str) -> None:
        """A recipe is being judged: it is in the archive, and in nothing else until then."""
        self.expected.add(recipe_id)

    def add(self, judged: Judged) -> None:
        self.judged.append(judged)
        self.exclude(judged.recipe_id)
        if self.better(judged.objective, judged.divergence) is None:
            kept = [other for other in self._front if not _is_better(judged, other.objective, other.divergence)]
            self._front = sorted([*kept, judged], key=lambda member: member.objective)

    def exclude(self, recipe_id: str) -> None:
        """A recipe that cannot be judged: it is in the archive from now on, and in nothing else."""
        self._ids.add(recipe_id)
        self.expected.discard(recipe_id)

    @property
    def front(self) -> Sequence[Judged]:
        """Those for which nothing cheaper or equal is as near to the original, cheapest first."""
        return self._front

    def better(self, objective: float, divergence: Divergence, *, margin: float = 1.0) -> Judged | None:
        """One that costs no more and diverges no more on the same clips, times `margin`; None if there is none."""
        return next((m for m in self._front if _is_better(m, objective, divergence, margin=margin)), None)

    def least_within(self, objective: float, clips: int) -> tuple[float, ...]:
        """Of the members that cost no more, the least divergence on the first clip, the first two, up to so many.

        Shorter where none was measured on so many; empty where there are none.
        """
        cheaper = [m.divergence for m in self._front if m.objective <= objective]
        clips = min(clips, max((divergence.clips for divergence in cheaper), default=0))
        means = [
            np.cumsum(divergence.nats[:clips]) / np.cumsum(divergence.tokens[:clips])
            for divergence in cheaper
            if divergence.clips >= clips
        ]
        return tuple(map(float, np.min(means, axis=0))) if means else ()

    def rate(self, most: float) -> float:
        """By which power divergence falls as cost rises, along the front up to the divergence `most`."""
        front = [m for m in self._front if 0 < m.divergence.mean <= most]
        if len(front) < 3:
            return STEEP
        cost, divergence = np.log([(m.objective, m.divergence.mean) for m in front]).T
        slope = np.polyfit(cost, divergence, 1)[0] if np.ptp(cost) else -STEEP
        return float(np.clip(-slope, 1.0, 4 * STEEP))

    def members(self) -> Iterator[tuple[Genes, float]]:
        """Genes and divergence of all; what was measured on few clips is scaled to all by what the front shows."""
        scale: dict[int, float] = {}
        for judged in self.judged:
            clips = judged.divergence.clips
            if clips not in scale:
                scale[clips] = self._whole_over_first(clips)
            yield judged.genes, judged.divergence.mean * scale[clips]

    def _whole_over_first(self, clips: int) -> float:
        whole = [member.divergence for member in self._front if member.divergence.clips > clips]
        first = sum(divergence.of_first(clips).mean for divergence in whole)
        return sum(divergence.mean for divergence in whole) / first if first else 1.0


def _is_better(member: Judged, objective: float, divergence: Divergence, *, margin: float = 1.0) -> bool:
    if member.objective > objective:
        return False
    clips = min(member.divergence.clips, divergence.clips)
    return member.divergence.of_first(clips).mean * margin <= divergence.of_first(clips).mean
