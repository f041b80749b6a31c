"""Every recipe of a small space, priced once: what a proof of the optimum is made over."""

from collections.abc import Iterator
from itertools import product
from typing import Self

import numpy as np
import numpy.typing as npt

from compression.recipe.order import position
from compression.recipe.recipe import Recipe
from search.engines.base import Pricer
from search.space.space import Genes, Space

MOST_COUNTED = 100_000
"""Combinations of genes that are priced; that takes a minute or two."""

Mask = npt.NDArray[np.bool_]


def rank(recipe: Recipe, space: Space) -> tuple[tuple[object, ...], tuple[float, ...]]:
    """As `position`, among recipes of one window: each is compared with the original in its own window, so that their
    divergences say nothing about those in another one.
    """
    choices, amounts = position(space.in_order(recipe))
    return (*choices, recipe.window_s), amounts


class Enumeration:
    """Recipes by their place in arrays, each once although several combinations of genes may make it.

    `objective`, and `is_allowed`: whether no limit on costs speaks against it. `indices`: of each gene's value in its
    list, (recipes, genes): of the genes that have several, in the order of `Space.choices`.
    """

    def __init__(self, space: Space, pricer: Pricer) -> None:
        self._space = space
        self._choices = [(name, values) for name, values in space.choices.items() if len(values) > 1]
        self._places: dict[str, int] = {}
        self._kinds: dict[tuple[object, ...], int] = {}
        objectives, allowed, indices, kinds, amounts = [], [], [], [], []
        for index, recipe in self._combinations():
            self._places[recipe.id] = len(self._places)
            kind, amount = rank(recipe, space)
            objectives.append(pricer.objective(recipe))
            allowed.append(pricer.rejection(recipe) is None)
            indices.append(index)
            kinds.append(self._kinds.setdefault(kind, len(self._kinds)))
            amounts.append(np.array(amount, np.float32))
        self.objective = np.array(objectives)
        self.is_allowed: Mask = np.array(allowed)
        self.indices = np.array(indices, np.uint8)
        self._kind, table = np.array(kinds), np.array(amounts)
        self._varying = np.flatnonzero((table != table[0]).any(0))
        self._fixed, self._amounts = table[0], np.ascontiguousarray(table[:, self._varying].T)

    @classmethod
    def of(cls, space: Space, pricer: Pricer) -> Self | None:
        """None where the space has more than MOST_COUNTED combinations."""
        return cls(space, pricer) if space.combinations <= MOST_COUNTED else None

    def __len__(self) -> int:
        return len(self._places)

    def _combinations(self) -> Iterator[tuple[tuple[int, ...], Recipe]]:
        for index in product(*(range(len(values)) for _, values in self._choices)):
            recipe = self._space.decode(self._decoded(index))
            if recipe.id not in self._places:
                yield index, recipe

    def _decoded(self, index: tuple[int, ...]) -> Genes:
        chosen = {name: values[i] for i, (name, values) in zip(index, self._choices, strict=True)}
        return self._space.default_genes | chosen

    def genes(self, place: int) -> Genes:
        """What makes the recipe at this place."""
        return self._decoded(tuple(int(i) for i in self.indices[place]))

    def place(self, recipe_id: str) -> int | None:
        """Where a recipe is; None where the space does not have it."""
        return self._places.get(recipe_id)

    def at_least_as_compressed(self, recipe: Recipe) -> Mask:
        """Which recipes are so, compared with this one, in the space or not; see `rank`."""
        kind, amounts = rank(recipe, self._space)
        found = self._kind == self._kinds.get(kind, -1)
        if not found.any():
            return found
        limits = np.array(amounts, np.float32)
        if (np.delete(self._fixed, self._varying) > np.delete(limits, self._varying)).any():
            return np.zeros_like(found)
        for column, limit in zip(self._amounts, limits[self._varying], strict=True):
            found &= column <= limit
        return found

    def covered(self, by: npt.NDArray[np.intp], among: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Of the recipes at the places `among`, how many are at least as compressed as each at the places `by`."""
        found = self._kind[by][:, None] == self._kind[among]
        for column in self._amounts:
            found &= column[among] <= column[by][:, None]
        return np.count_nonzero(found, axis=1)
