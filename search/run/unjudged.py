"""How many recipes of a space are cheaper than the pick and were not judged: what a run leaves open."""

from collections.abc import Iterator
from itertools import product

from compression.recipe.recipe import Recipe
from search.engines.base import Pricer
from search.outcome import Outcome
from search.space.space import Genes, Space
from search.trial import Trial

MOST_COUNTED = 100_000
"""Combinations of genes that are priced; that takes a minute or two."""


def count_open(outcome: Outcome, space: Space, pricer: Pricer) -> int | None:
    """Recipes within every limit on costs that are cheaper than the pick, all of them without one, and not judged.

    None where the space has more than MOST_COUNTED combinations, so that nobody counts them.
    """
    if space.combinations > MOST_COUNTED:
        return None
    trials = {trial.recipe.id: trial for trial in outcome.trials}
    bound = outcome.recommended.objective if outcome.recommended else float("inf")
    return sum(
        not is_judged(trials.get(recipe.id), outcome)
        and pricer.objective(recipe) < bound
        and pricer.rejection(recipe) is None
        for recipe in _recipes(space)
    )


def is_judged(trial: Trial | None, outcome: Outcome) -> bool:
    """Whether a recipe's trial says enough of it.

    Not where only its divergence is known, and by that it may well be within the WER budget.
    """
    if trial is None:
        return False
    if trial.state != "stopped" or trial.accuracy:
        return True
    estimate = outcome.estimate(trial)
    return estimate is not None and estimate.probability < outcome.confidence


def _recipes(space: Space) -> Iterator[Recipe]:
    """Each once, although several combinations of genes may make it."""
    seen: set[str] = set()
    for values in product(*space.choices.values()):
        genes: Genes = dict(zip(space.choices, values, strict=True))
        recipe = space.decode(genes)
        if recipe.id not in seen:
            seen.add(recipe.id)
            yield recipe
