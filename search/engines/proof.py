"""What is to be judged next so that no cheaper recipe of a small space is left open.

Cheaper than the pick, within the limits on costs, neither judged nor excluded (`search.engines.exclusion`): such a
recipe is open. Judging one closes itself. If it is over the budget it also closes all that are at least as compressed;
if it is within, all that cost as much or more. So that recipe is judged next which is expected to close most.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from search.engines.additive_model import MIN_FITTED, AdditiveModel
from search.engines.archive import Archive
from search.engines.enumeration import MOST_COUNTED, Enumeration, Mask
from search.engines.exclusion import MARGIN, Exclusion
from search.records.ledger import Ledger
from search.space.space import Genes, Space

MOST_COMPARED = 1024
"""Recipes that are compared with as many open ones to find the best; of more, so many are drawn."""

Priced = Callable[[], Enumeration | None]
"""All recipes of a space, None where they are too many; worked out when it is called first."""
Places = npt.NDArray[np.intp]


class Proof:
    """Of one run. `priced`: asked for when the proof is due; `target`: the largest divergence
    that is within the budget; `bound`: the objective of the cheapest recipe that is likely within it.
    """

    def __init__(  # noqa: PLR0913 - what it knows and what it asks
        self,
        space: Space,
        priced: Priced,
        archive: Archive,
        ledger: Ledger | None,
        *,
        target: Callable[[], float],
        bound: Callable[[], float],
        seed: int,
    ) -> None:
        self._space = space
        self._price = priced
        self._archive = archive
        self._ledger = ledger
        self._target = target
        self._bound = bound
        self._rng = np.random.default_rng([seed, 1])
        self._priced: Enumeration | None = None
        self._judged = self._told = 0

    @property
    def is_due(self) -> bool:
        """Whether the space is small enough, and enough of it judged to know where to look."""
        return self._space.combinations <= MOST_COUNTED and len(self._archive.judged) >= MIN_FITTED

    @property
    def _everything(self) -> Enumeration:
        if self._priced is None:
            self._priced = self._price()
            if self._priced is None:
                raise ValueError(f"{self._space.combinations:.2g} combinations are too many")
            self._exclusion = Exclusion(self._priced)
            self._known = np.zeros(len(self._priced), dtype=np.bool_)
        return self._priced

    @property
    def holds(self) -> bool:
        """Whether it is due and nothing is open."""
        return self.is_due and not self._open().any()

    def next(self, model: AdditiveModel) -> Genes | None:
        """What is expected to close most, by this model of divergence; None where nothing is open."""
        is_open = self._open()
        if not is_open.any():
            return None
        everything, target = self._everything, self._target()
        useful = everything.is_allowed & ~self._known & ~self._exclusion.excluded(target)
        left = self._drawn(np.flatnonzero(is_open))
        tried = np.union1d(left, self._drawn(np.flatnonzero(useful)))
        over, within = _probabilities(model, everything.indices[tried], target)
        cheaper = (everything.objective[tried] < self._bound())[:, None]
        later = (cheaper & (everything.objective[left] >= everything.objective[tried][:, None])).sum(1)
        closed = over * everything.covered(tried, left) + within * later + (1 - over - within) * is_open[tried]
        return everything.genes(int(tried[np.argmax(closed)]))

    def _open(self) -> Mask:
        everything = self._everything
        self._catch_up()
        is_cheaper = everything.objective < self._bound()
        return is_cheaper & everything.is_allowed & ~self._known & ~self._exclusion.excluded(self._target())

    def _catch_up(self) -> None:
        """Take up what was judged since."""
        everything, new = self._everything, self._archive.judged[self._judged :]
        for judged in new:
            covered = everything.at_least_as_compressed(self._space.decode(judged.genes))
            self._exclusion.judged(covered, judged.divergence.mean)
        self._judged += len(new)
        trials = self._ledger.trials[self._told :] if self._ledger else ()
        for trial in trials:
            self._exclusion.add(trial)
        self._told += len(trials)
        for recipe_id in (*(judged.recipe_id for judged in new), *(trial.recipe.id for trial in trials)):
            place = everything.place(recipe_id)
            if place is not None:
                self._known[place] = True

    def _drawn(self, places: Places) -> Places:
        """At most so many as are compared."""
        if len(places) <= MOST_COMPARED:
            return places
        return np.sort(self._rng.choice(places, MOST_COMPARED, replace=False))


def _probabilities(
    model: AdditiveModel, indices: npt.NDArray[np.uint8], target: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """That a recipe is over the budget by MARGIN, and that it is within; half and half where nothing is known."""
    if not model.is_fitted or target <= 0:
        return np.full(len(indices), 0.5), np.full(len(indices), 0.5)
    away = np.log(model.expected_each(indices) / target)
    return norm.sf(np.log(MARGIN) - away, scale=model.spread), norm.cdf(-away, scale=model.spread)
