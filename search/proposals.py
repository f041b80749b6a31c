"""Where a search begins and how it goes on from its best trial: proposals that need no sampler."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from compression.recipe.recipe import Recipe
from search.limits.group_budget import GROUP
from search.space.genes import Value
from search.space.space import Genes, Space
from search.trial import Trial

HOPELESS = 0.3
"""A recipe that was this far over a limit, relative to it, rules out everything that is more compressed."""


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


def neighbours(space: Space, best: Trial, trials: Sequence[Trial]) -> Iterator[tuple[Genes, Recipe]]:
    """What differs from the best trial by one gene, one step more compressed, and was not tried; without its recovery.

    Left out is what is at least as compressed as a trial that was hopelessly over a limit.
    """
    genes = space.encode(replace(best.recipe, recovery=None))
    if genes is None:
        return
    known = {trial.recipe.id for trial in trials}
    hopeless = [trial.recipe for trial in trials if _is_hopeless(trial)]
    for name, values in space.choices.items():
        position = values.index(genes[name])
        if position + 1 == len(values):
            continue
        changed = genes | {name: values[position + 1]}
        recipe = space.decode(changed)
        if recipe.id not in known and not any(space.rules_out(hopeless_recipe, recipe) for hopeless_recipe in hopeless):
            yield changed, recipe


def _is_hopeless(trial: Trial) -> bool:
    """A group's limit says little about other recipes: small groups scatter."""
    return any(over > HOPELESS for name, over in trial.violations.items() if name != GROUP)
