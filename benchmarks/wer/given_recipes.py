"""Recipes that a benchmark is told on its command line."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from compression.recipe.recipe import Recipe
from compression.techniques.trained_weights import WEIGHTS_FILE, Weights, load_recovered
from search.records.folder import RunFolder
from search.records.run_records import find_trial, read_outcome
from search.records.study_store import StudyStore


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Those that `given_recipes` reads."""
    parser.add_argument("--run", type=Path, action="append", default=[], help="a run, for its pick or --trial")
    parser.add_argument("--trial", action="append", help="number in every --run; may be given again")
    parser.add_argument("--recipe", type=Path, action="append", default=[], help="a recipe's file; may be given again")


def weights_of(recipe: Recipe, options: argparse.Namespace) -> Weights | None:
    """What training made of a recipe of a --run, or of a --recipe whose file lies beside them."""
    if recipe.recovery is None:
        return None
    folders = [RunFolder(run).recovered / recipe.id for run in options.run] + [file.parent for file in options.recipe]
    return load_recovered(recipe, next((folder for folder in folders if (folder / WEIGHTS_FILE).is_file()), None))


def given_recipes(options: argparse.Namespace) -> Iterator[tuple[str, Recipe]]:
    """The picks of --run, or its --trial, and the recipes of --recipe, by name."""
    for run in options.run:
        outcome = read_outcome(StudyStore(RunFolder(run).study))
        wanted: Sequence[str | None] = options.trial or [None]
        for trial in (find_trial(outcome, number) for number in wanted):
            yield f"{run.name}, trial {trial.number}, {trial.costs.size_mb:.1f} MB", trial.recipe
    for file in options.recipe:
        yield file.stem, Recipe.from_json(file.read_text(encoding="utf-8"))
