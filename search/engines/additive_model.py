"""What divergence genes will make, by what others made."""

from collections.abc import Mapping, Sequence
from math import exp

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from search.space.genes import Value
from search.space.space import Genes

MIN_FITTED = 12
"""Fewer say nothing about so many genes: then any child will do."""

LEAST_SPREAD = 0.05

Floats = npt.NDArray[np.float64]


class AdditiveModel:
    """Divergence as a sum of non-negative steps, one for each value of a gene beyond its first."""

    def __init__(self, choices: Mapping[str, tuple[Value, ...]]) -> None:
        self._choices = choices
        self._steps = np.zeros(sum(len(values) - 1 for values in choices.values()))
        self._spread = 1.0
        self._least = 1e-4
        self.is_fitted = False

    def fit(self, pairs: Sequence[tuple[Genes, float]], most: float) -> None:
        """To genes and their divergence (> 0), each weighted by its inverse: relative errors count.

        What diverges by more than `most` would hide small steps in its own residual. It only tells about steps that
        occur nowhere else: such a step costs at least the least that was seen with it.
        """
        rows, found = np.array([self._row(genes) for genes, _ in pairs]), np.array([d for _, d in pairs])
        near = found <= most
        if near.sum() < MIN_FITTED:
            return
        self._steps, _ = nnls(rows[near] / found[near, None], np.ones(near.sum()), maxiter=20 * rows.shape[1])
        self._least, self.is_fitted = float(found.min()), True
        ratios = np.log(np.maximum(rows[near] @ self._steps, self._least / 2) / found[near])
        self._spread = float(np.std(ratios))
        beyond, excess = rows[~near].astype(bool), np.maximum(found[~near] - rows[~near] @ self._steps, 0.0)
        for step in np.flatnonzero(beyond.any(0) & ~rows[near].any(0)):
            self._steps[step] = excess[beyond[:, step]].min()

    def expected(self, genes: Genes) -> float:
        """Nats a token, at least half of the least that was seen."""
        return max(float(self._row(genes) @ self._steps), self._least / 2)

    @property
    def spread(self) -> float:
        """Of the log of what was seen over what the model says; small samples make it look too small."""
        return max(self._spread, LEAST_SPREAD)

    def expected_each(self, indices: npt.NDArray[np.uint8]) -> Floats:
        """As `expected`, of many: the index of each gene's value in its list, (recipes, genes)."""
        found, first = np.zeros(len(indices)), 0
        for column, values in zip(indices.T, self._choices.values(), strict=True):
            last = first + len(values) - 1
            found += np.concatenate([[0.0], np.cumsum(self._steps[first:last])])[column]
            first = last
        return np.maximum(found, self._least / 2)

    def drawn(self, genes: Genes, rng: np.random.Generator) -> float:
        """The same, off by as much as the model was elsewhere: so that children are tried of which it knows little."""
        return self.expected(genes) * exp(float(rng.normal(0.0, self._spread / 2)))

    def _row(self, genes: Genes) -> Floats:
        """1 for every step up to the gene's value, (steps,)."""
        steps = [np.arange(1, len(values)) <= values.index(genes[name]) for name, values in self._choices.items()]
        return np.concatenate(steps).astype(float)
