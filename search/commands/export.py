"""`whisperfit export`: a recipe, of a run or of a file, as a model that a runtime loads."""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from common.errors import InputError
from compression.calibration import Calibration
from compression.compress import compress
from compression.export.manifest import Sources, artifact_bytes
from compression.export.targets import check_exportable, check_replaceable, export
from compression.models import LoadedModel, load_model
from compression.recipe import Recipe
from evaluators.costs import stored_bytes
from search.artifacts import calibrated, sources_of
from search.commands.baseline import read_recipe
from search.engines.memory import Memory
from search.findings import read_outcome
from search.folder import RunFolder
from search.outcome import Outcome
from search.session import reopen_session
from search.trial import Trial


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The command's options: either `run`, perhaps with `trial` (number or recipe id), or `recipe_file` and `model`."""

    run: Path | None
    trial: str | None
    recipe_file: Path | None
    model: str | None
    calibration: Path | None
    calibration_utterances: int
    language: str | None
    target: str
    out: Path


@dataclass(frozen=True, kw_only=True)
class _Material:
    """`calibration`: None where the recipe needs none."""

    model: LoadedModel
    recipe: Recipe
    calibration: Calibration | None
    sources: Sources


def run_export(options: ExportOptions, *, as_json: bool) -> None:
    """Write the artifact and print where it is, with its size beside the recipe's."""
    check_replaceable(options.out)
    say = Console(stderr=True).print
    material = _from_run(options) if options.run else _from_file(options)
    model, recipe = material.model, material.recipe
    check_exportable(recipe, model.dimensions, options.target)
    say(f"Exporting {model.name}, recipe {recipe.id}, to {options.target}", highlight=False)
    network = compress(model, recipe, material.calibration)
    export(model, recipe, network, options.out, target=options.target, sources=material.sources)
    size, promised = artifact_bytes(options.out), stored_bytes(model.dimensions, recipe)
    if as_json:
        values = {"artifact": str(options.out), "target": options.target, "model": model.name, "recipe_id": recipe.id}
        print(json.dumps({**values, "size_bytes": size, "promised_bytes": promised}))
        return
    print(f"{options.out}: {size / 1e6:.1f} MB (its recipe's tensors: {promised / 1e6:.1f} MB), {recipe.summary()}")


def _from_run(options: ExportOptions) -> _Material:
    if options.run is None or options.recipe_file or options.model:
        raise InputError("export takes either a run, or --recipe and --model")
    folder = RunFolder.open(options.run)
    trial = _trial(read_outcome(Memory(folder.study_file)), options.trial)
    session = reopen_session(folder, Console(stderr=True).print)
    return _Material(
        model=session.model,
        recipe=trial.recipe,
        calibration=session.calibration,
        sources=sources_of(session),
    )


def _trial(outcome: Outcome, wanted: str | None) -> Trial:
    """The trial of that number or recipe id; None: the recommended one."""
    if wanted is None:
        if outcome.recommended is None:
            raise InputError("this run recommends no recipe; choose one from trials.csv: --trial NUMBER")
        return outcome.recommended
    for trial in outcome.trials:
        if wanted in (str(trial.number), trial.recipe.id):
            return trial
    raise InputError(f"--trial {wanted}: no trial has this number or recipe id; it has {len(outcome.trials)} trials")


def _from_file(options: ExportOptions) -> _Material:
    if options.recipe_file is None or options.model is None or options.trial:
        raise InputError("export takes either a run (perhaps with --trial), or --recipe and --model")
    model = load_model(options.model)
    recipe = read_recipe(options.recipe_file)
    recipe.check(model.dimensions)
    sources = Sources(
        model=options.model,
        calibration=str(options.calibration.absolute()) if options.calibration else None,
        calibration_utterances=options.calibration_utterances,
        language=options.language,
    )
    return _Material(model=model, recipe=recipe, calibration=calibrated(model, recipe, sources), sources=sources)
