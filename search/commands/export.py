"""`whisperfit export`: a recipe, of a run or of a file, as a model that a runtime loads."""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from common.errors import InputError
from compression.calibration import Calibration
from compression.compress import compress
from compression.export.manifest import CalibrationSource, artifact_bytes
from compression.export.targets import check_exportable, check_replaceable, export
from compression.models import LoadedModel, load_model
from compression.recipe import Recipe
from evaluators.costs import stored_bytes
from search.artifacts import calibrated, calibration_source
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
class _Source:
    """`calibration`: None where the recipe needs none."""

    model: LoadedModel
    recipe: Recipe
    calibration: Calibration | None
    calibration_source: CalibrationSource | None


def run_export(options: ExportOptions, *, as_json: bool) -> None:
    """Write the artifact and print where it is, with its size beside the recipe's."""
    check_replaceable(options.out)
    say = Console(stderr=True).print
    source = _from_run(options) if options.run else _from_file(options)
    model, recipe = source.model, source.recipe
    check_exportable(recipe, model.dimensions, options.target)
    say(f"Exporting {model.name}, recipe {recipe.id}, to {options.target}", highlight=False)
    network = compress(model, recipe, source.calibration)
    export(model, recipe, network, options.out, target=options.target, calibration=source.calibration_source)
    size, promised = artifact_bytes(options.out), stored_bytes(model.dimensions, recipe)
    if as_json:
        values = {"artifact": str(options.out), "target": options.target, "model": model.name, "recipe_id": recipe.id}
        print(json.dumps({**values, "size_bytes": size, "promised_bytes": promised}))
        return
    print(f"{options.out}: {size / 1e6:.1f} MB (its recipe's tensors: {promised / 1e6:.1f} MB), {recipe.summary()}")


def _from_run(options: ExportOptions) -> _Source:
    if options.run is None or options.recipe_file or options.model:
        raise InputError("export takes either a run, or --recipe and --model")
    folder = RunFolder.open(options.run)
    trial = _trial(read_outcome(Memory(folder.study_file)), options.trial)
    session = reopen_session(folder, Console(stderr=True).print)
    return _Source(
        model=session.model,
        recipe=trial.recipe,
        calibration=session.calibration,
        calibration_source=calibration_source(session),
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


def _from_file(options: ExportOptions) -> _Source:
    if options.recipe_file is None or options.model is None or options.trial:
        raise InputError("export takes either a run (perhaps with --trial), or --recipe and --model")
    model = load_model(options.model)
    recipe = read_recipe(options.recipe_file)
    recipe.check(model.dimensions)
    if not recipe.needs_calibration(model.dimensions):
        return _Source(model=model, recipe=recipe, calibration=None, calibration_source=None)
    if options.calibration is None:
        raise InputError(
            f"recipe {recipe.id} removes heads or channels, or has static activation ranges: "
            "give the speech that decides which: --calibration MANIFEST"
        )
    source = CalibrationSource(
        speech=str(options.calibration), utterances=options.calibration_utterances, language=options.language
    )
    return _Source(model=model, recipe=recipe, calibration=calibrated(model, source), calibration_source=source)
