"""The files of `search --try`: recipes of the user's own."""

from collections.abc import Sequence
from pathlib import Path

from common.errors import InputError
from compression.recipe.recipe import Recipe
from compression.techniques.trained_weights import load_recovered, save_recovered
from compression.whisper.load import LoadedModel
from search.commands.baseline import read_recipe_for
from search.loaded import Loaded
from search.space.space import runtime_violation


def check_own(files: Sequence[Path], loaded: Loaded) -> None:
    """Raise InputError, naming the file, unless each is a recipe of the model that the device's runtime executes."""
    for file in files:
        recipe = read_recipe_for(loaded.model, file)
        unsupported = runtime_violation(recipe, loaded.profile.runtime, original=loaded.original)
        if unsupported:
            raise InputError(f"--try {file}: does not run on {loaded.profile.name}: {unsupported}")
        load_recovered(recipe, file.parent)


def read_own(files: Sequence[Path], model: LoadedModel, recovered: Path) -> list[Recipe]:
    """The recipes; the weights of trained ones, which lie beside the files, are copied into the run's `recovered`."""
    recipes = []
    for file in files:
        recipe = read_recipe_for(model, file)
        weights = load_recovered(recipe, file.parent)
        if weights is not None:
            save_recovered(recovered / recipe.id, recipe, weights)
        recipes.append(recipe)
    return recipes
