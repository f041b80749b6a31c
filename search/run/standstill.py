"""When a search has come to a standstill: what it proposes changes neither the front nor the pick any more."""

from collections.abc import Callable, Sequence
from math import inf, log

from search.engines.archive import Archive, Judged
from search.run.screening import HARMLESS, HOPELESS

STILL = 0.005
"""What cost may change by, as a share of it, without counting as a move."""


def mean_log_cost(front: Sequence[Judged], *, target: float, most: float) -> float:
    """The mean, over the logarithm of divergence near the target, of the log cost of the cheapest member within it.

    Near is from HARMLESS to HOPELESS times the target. `most`: the cost where no member is within. It is a hypervolume:
    the area behind the front in log divergence and log cost, up to a constant, over its width.
    """
    low, high = log(HARMLESS * target), log(HOPELESS * target)
    area, left, cost = 0.0, low, log(most)
    for member in sorted(front, key=lambda judged: judged.divergence.mean):
        place = log(member.divergence.mean) if member.divergence.mean > 0 else -inf
        if place >= high:
            break
        right = max(place, left)
        area += (right - left) * cost
        left, cost = right, min(cost, log(member.objective))
    return (area + (high - left) * cost) / (high - low)


class Standstill:
    """Looks at the front after each recipe; counts from the beginning of this session.

    `target`, `cheapest_within`: as the screening knows them. `most`: the original's objective.
    """

    def __init__(
        self,
        archive: Archive,
        target: Callable[[], float],
        cheapest_within: Callable[[], float],
        *,
        patience: int,
        most: float,
    ) -> None:
        self._archive = archive
        self._target = target
        self._cheapest_within = cheapest_within
        self.patience = patience
        self._most = most
        self._seen = len(archive.judged)
        self._remember()

    def _remember(self) -> None:
        self._front, self._bound, self._since = tuple(self._archive.front), self._cheapest_within(), self._seen

    def is_reached(self) -> bool:
        """Whether nothing has moved for so many judged recipes."""
        if len(self._archive.judged) > self._seen:
            self._seen = len(self._archive.judged)
            if self._has_moved():
                self._remember()
        return self._seen - self._since >= self.patience

    def _has_moved(self) -> bool:
        target, bound = self._target(), self._cheapest_within()
        if target <= 0 or inf in {bound, self._bound}:
            return True
        before, now = (
            mean_log_cost(front, target=target, most=self._most) for front in (self._front, self._archive.front)
        )
        return before - now > STILL or abs(log(bound / self._bound)) > STILL
