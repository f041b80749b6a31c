"""Recipes of the user's own: kept with the run, tried before anything that the engine proposes."""

import json
from collections.abc import Container, Sequence

from compression.recipe.recipe import Recipe
from search.records.ledger import Ledger
from search.records.study_store import StudyStore

_RECIPES, _BEGUN = "own_recipes", "own_recipe_begun/"


class OwnRecipes:
    """In the order in which they were given; a later session goes on with those that have no trial yet."""

    def __init__(self, store: StudyStore) -> None:
        self._store = store
        self._recipes = [Recipe.from_json(text) for text in store.recall_json(_RECIPES) or []]

    def give(self, recipes: Sequence[Recipe]) -> None:
        """Keep those of a new run."""
        self._recipes = list(recipes)
        self._store.remember(_RECIPES, json.dumps([recipe.to_json() for recipe in recipes]))

    def next(self, ledger: Ledger, pending: Container[str]) -> Recipe | None:
        """The first that has no trial and is not `pending`, by its id; None when there is none, or while the original
        has no trial to be compared with.
        """
        if not ledger.trials:
            return None
        left = (recipe for recipe in self._recipes if ledger.find(recipe) is None and recipe.id not in pending)
        return next(left, None)

    def deaths(self, recipe_id: str) -> int:
        """How often the process ended while the recipe was being scored."""
        return int(self._store.recall(_BEGUN + recipe_id) or 0)

    def begin(self, recipe_id: str) -> None:
        """The recipe is about to be scored."""
        self._store.remember(_BEGUN + recipe_id, str(self.deaths(recipe_id) + 1))

    def put_back(self, recipe_id: str) -> None:
        """The user dropped the recipe that was begun: that is no death."""
        self._store.remember(_BEGUN + recipe_id, str(self.deaths(recipe_id) - 1))
