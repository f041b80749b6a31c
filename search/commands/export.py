"""`whisperfit export`: a recipe, of a run or of a file, as a model that a runtime loads."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from common.log import tell
from compression.export.manifest import MANIFEST, Sources, artifact_bytes
from compression.export.targets import check_exportable, export
from compression.export.whole_folder import check_replaceable
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.compute import CPU
from compression.whisper.load import LoadedModel
from evaluators.costs.price import stored_bytes
from search.artifacts import compressed, sources_of
from search.commands.baseline import read_recipe_for
from search.configuration.name_or_path import NAMES, settled
from search.configuration.options import CALIBRATION_UTTERANCES
from search.loading import open_model
from search.records.folder import RunFolder
from search.records.run_records import find_trial, read_outcome
from search.records.study_store import StudyStore
from search.session import Session, reopen_session


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The command's options: either `run`, perhaps with `trial` (number or recipe id), or `recipe_file` and `model`.

    The speech's options go with `recipe_file`.
    """

    run: Path | None
    trial: str | None
    recipe_file: Path | None
    model: str | None
    calibration: Path | None
    calibration_utterances: int | None
    language: str | None
    target: str
    out: Path


@dataclass(frozen=True, kw_only=True)
class Material:
    """What an artifact is made of. `network`: compressed by the recipe, when everything else is known to be right."""

    model: LoadedModel
    recipe: Recipe
    network: Callable[[], Compressed]
    sources: Sources


def run_export(options: ExportOptions, *, as_json: bool) -> None:
    """Write the artifact and print where it is, with its size beside the recipe's."""
    check_replaceable(options.out, MANIFEST, "artifact")
    material = _from_run(options, options.run) if options.run else _from_file(options)
    model, recipe = material.model, material.recipe
    check_exportable(recipe, model.dimensions, options.target)
    tell(f"Exporting {model.name}, recipe {recipe.id}, to {options.target}")
    export(model, recipe, material.network(), options.out, target=options.target, sources=material.sources)
    size, promised = artifact_bytes(options.out), stored_bytes(model.dimensions, recipe)
    if as_json:
        values = {"artifact": str(options.out), "target": options.target, "model": model.name, "recipe_id": recipe.id}
        print(json.dumps({**values, "size_bytes": size, "promised_bytes": promised}))
        return
    print(f"{options.out}: {size / 1e6:.1f} MB (its recipe's tensors: {promised / 1e6:.1f} MB), {recipe.summary()}")


def _from_run(options: ExportOptions, run: Path) -> Material:
    check_only_run(options)
    folder = RunFolder.open(run)
    recipe = find_trial(read_outcome(StudyStore(folder.study, create=False)), options.trial).recipe
    return material_of(reopen_session(folder, tell), recipe)


def material_of(session: Session, recipe: Recipe) -> Material:
    """What a recipe of a run is made of."""
    return Material(
        model=session.model,
        recipe=recipe,
        network=lambda: session.network(recipe).on(CPU),
        sources=sources_of(session, recipe),
    )


def check_only_run(options: ExportOptions) -> None:
    """Raise InputError where more is named than a run, which has recipe, model and speech."""
    of_recipes = {
        "--recipe": options.recipe_file,
        "--model": options.model,
        "--calibration": options.calibration,
        "--calibration-utterances": options.calibration_utterances,
        "--language": options.language,
    }
    given = ", ".join(name for name, value in of_recipes.items() if value is not None)
    if given:
        raise InputError(
            f"export takes recipe, model and speech from run {options.run}: leave out {given}, or give --recipe and "
            "--model instead of the run"
        )


def _from_file(options: ExportOptions) -> Material:
    if options.recipe_file is None or options.model is None or options.trial:
        raise InputError("export takes either a run (perhaps with --trial), or --recipe and --model")
    model = open_model(options.model, tell)
    recipe = read_recipe_for(model, options.recipe_file)
    sources = Sources(
        model=settled(options.model, NAMES["model"]),
        calibration=str(options.calibration) if options.calibration else None,
        calibration_utterances=options.calibration_utterances or CALIBRATION_UTTERANCES,
        language=options.language,
        recovered=str(options.recipe_file.parent.absolute()) if recipe.recovery else None,
    )
    return Material(model=model, recipe=recipe, network=lambda: compressed(model, recipe, sources), sources=sources)
