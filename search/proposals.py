"""Where a search begins and how it goes on from its best trial: proposals that need no sampler."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from compression.recipe.recipe import Recipe
from search.limits.group_budget import GROUP
from search.space.genes import Value
from search.space.space import Genes, Space
from search.trial import Trial

HOPELESS = 0.3
"""A recipe that was this far over a limit, relative to it, rules out everything that is more compressed."""
DOWN, UP = (1,), (-1,)
"""One step to the more, and to the less compressed value of a gene."""


class Tried(Protocol):
    """What is known of recipes: see `search.ledger.Ledger`."""

    @property
    def hopeless(self) -> Sequence[Recipe]:
        """Those that were hopelessly over a limit."""

    def find(self, recipe: Recipe) -> Trial | None:
        """The recipe's trial."""


def starting_genes(space: Space) -> tuple[Genes, ...]:
    """Genes worth trying before a sampler knows anything, the original first.

    For each bit-width, or mean of bits: all weights at it, then, where it has genes of its own, one part of the model
    (encoder, decoder, embedding) one step lower than the rest; the finest groups and the shortest window. Nothing is
    removed. Each makes another recipe: two means of bits may come to one.
    """
    default = space.default_genes
    window = {"window_s": space.choices["window_s"][-1]} if "window_s" in space.choices else {}
    starts: list[dict[str, Value]] = [default]
    levels = max((len(space.choices[name]) for name in _weight_genes(space)), default=1)
    for level in range(1, levels):
        even = default | window | _weights_at(space, level)
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
    return [name for name in space.choices if name.endswith("_bits") and name != "activation_bits"]


def _weights_at(space: Space, level: int) -> dict[str, Value]:
    """Every weight gene at its value of this level, or at its last one."""
    return {name: space.choices[name][min(level, len(space.choices[name]) - 1)] for name in _weight_genes(space)}


def neighbours(space: Space, trial: Trial, tried: Tried, steps: Sequence[int] = DOWN) -> Iterator[tuple[Genes, Recipe]]:
    """What differs from a trial by one gene, so many values further, and was not tried; without its recovery.

    Left out is what is at least as compressed as a trial that was hopelessly over a limit.
    """
    genes = space.encode(replace(trial.recipe, recovery=None))
    if genes is None:
        return
    for name, values in space.choices.items():
        for position in (values.index(genes[name]) + step for step in steps):
            if not 0 <= position < len(values):
                continue
            changed = genes | {name: values[position]}
            recipe = space.decode(changed)
            if tried.find(recipe) or any(space.rules_out(hopeless, recipe) for hopeless in tried.hopeless):
                continue
            yield changed, recipe


def is_hopeless(trial: Trial) -> bool:
    """A group's limit says little about other recipes: small groups scatter."""
    return any(over > HOPELESS for name, over in trial.violations.items() if name != GROUP)
