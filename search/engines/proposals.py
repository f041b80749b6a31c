"""Where a search begins and how it goes on from its best trial: proposals that need no sampler."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from compression.recipe.order import position
from compression.recipe.recipe import Recipe
from search.limits.group_budget import GROUP
from search.space.genes import Value
from search.space.space import Genes, Space
from search.trial import Trial

HOPELESS = 0.3
"""A recipe that was this far over a limit, relative to it, rules out everything that is more compressed."""
DOWN, UP = (1,), (-1,)
"""One step to the more, and to the less compressed value of a gene."""


def starting_genes(space: Space) -> tuple[Genes, ...]:
    """Genes worth trying before a sampler knows anything, the original first.

    For each bit-width, or mean of bits: all weights at it, then, where it has genes of its own, one part of the model
    (encoder, decoder, embedding) one step lower than the rest; the finest groups, with scales of 8 bits, and the
    shortest window. Nothing is removed. Each makes another recipe: two means of bits may come to one.
    """
    default = space.default_genes
    cheap = {name: space.choices[name][-1] for name in ("scale_bits", "window_s") if name in space.choices}
    starts: list[dict[str, Value]] = [default]
    levels = max((len(space.choices[name]) for name in _weight_genes(space)), default=1)
    for level in range(1, levels):
        even = default | cheap | _weights_at(space, level)
        starts.append(even)
        lower = _weights_at(space, level + 1)
        if level + 1 < levels:
            parts = [{n: v for n, v in lower.items() if n.startswith(p)} for p in ("encoder", "decoder", "embedding")]
            starts += [even | part for part in parts if part]
    by_recipe: dict[Recipe, Genes] = {}
    for genes in starts:
        by_recipe.setdefault(space.decode(genes), genes)
    return tuple(by_recipe.values())


def _weight_genes(space: Space) -> list[str]:
    return [name for name in space.choices if name.endswith("_bits") and name not in {"activation_bits", "scale_bits"}]


def _weights_at(space: Space, level: int) -> dict[str, Value]:
    """Every weight gene at its value of this level, or at its last one."""
    return {name: space.choices[name][min(level, len(space.choices[name]) - 1)] for name in _weight_genes(space)}


def neighbours(space: Space, trial: Trial, steps: Sequence[int] = DOWN) -> Iterator[tuple[Genes, Recipe]]:
    """What differs from a trial by one gene, so many values further; without its recovery."""
    genes = space.encode(replace(trial.recipe, recovery=None))
    for changed in () if genes is None else single_steps(space, genes, steps):
        yield changed, space.decode(changed)


def single_steps(space: Space, genes: Genes, steps: Sequence[int] = DOWN + UP) -> Iterator[Genes]:
    """Genes of which one is so many values further, gene by gene."""
    for name, values in space.choices.items():
        for index in (values.index(genes[name]) + step for step in steps):
            if 0 <= index < len(values):
                yield {**genes, name: values[index]}


class Hopeless:
    """Recipes that were hopelessly over a limit, and so rule out all that is at least as compressed.

    A run has thousands, each compared with every neighbour of the best trial: numpy finds the few that may count.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._recipes: dict[tuple[object, ...], list[Recipe]] = {}
        self._amounts: dict[tuple[object, ...], list[tuple[float, ...]]] = {}

    def add(self, trial: Trial) -> None:
        """Know a trial, which counts if it is hopeless."""
        if is_hopeless(trial):
            choices, amounts = position(self._space.in_order(trial.recipe))
            self._recipes.setdefault(choices, []).append(trial.recipe)
            self._amounts.setdefault(choices, []).append(amounts)

    def rules_out(self, recipe: Recipe) -> bool:
        """Whether the recipe is at least as compressed as one of them."""
        choices, amounts = position(self._space.in_order(recipe))
        if choices not in self._amounts:
            return False
        may_count = (np.asarray(amounts) <= np.asarray(self._amounts[choices])).all(axis=1)
        return any(self._space.rules_out(self._recipes[choices][index], recipe) for index in np.flatnonzero(may_count))


def is_hopeless(trial: Trial) -> bool:
    """A group's limit says little about other recipes: small groups scatter."""
    return any(over > HOPELESS for name, over in trial.violations.items() if name != GROUP)
