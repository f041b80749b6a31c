"""`whisperfit baseline`: the WER of a model, or of one recipe of it."""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from common.errors import InputError, naming
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.techniques.trained_weights import load_recovered
from compression.techniques.vocabulary import check_words
from compression.whisper.load import LoadedModel
from evaluators.accuracy.evaluator import Evaluator
from evaluators.accuracy.normaliser_names import counted_units, parse_normaliser
from evaluators.accuracy.scripts import script_note
from evaluators.learning.calibration import calibrate
from evaluators.speech.features import CachedFeatures
from evaluators.speech.noisy_speech import Mixing
from search.commands.groups import group_lines, languages_lines
from search.commands.transcripts import check_transcripts_file, write_transcripts
from search.configuration.options import at_most_half
from search.loading import load_speech, open_model, use_threads


@dataclass(frozen=True, kw_only=True)
class BaselineOptions:
    """The command's options; `recipe_file` None means the original model, `calibration` None the data itself.

    `transcripts`: a file to write them to, beside the references.
    """

    model: str
    data: Path
    recipe_file: Path | None
    calibration: Path | None
    calibration_utterances: int
    language: str | None
    skip_broken: bool
    normaliser: str
    transcripts: Path | None
    noise: Path | None
    snr_db: str | None
    threads: int | None
    compute: str


def run_baseline(options: BaselineOptions, *, as_json: bool) -> None:
    """Score the whole speech set and print WER with its interval, errors and normaliser."""
    use_threads(options.threads)
    mixing = Mixing.parse(options.noise, options.snr_db)
    normaliser = parse_normaliser(options.normaliser)
    if options.transcripts:
        check_transcripts_file(options.transcripts)
    console = Console(stderr=True)
    model = open_model(options.model, console.print, options.compute)
    recipe = Recipe.original(model.dimensions, stored_bits=model.stored_bits)
    if options.recipe_file:
        recipe = read_recipe_for(model, options.recipe_file)
    recovered = options.recipe_file and options.recipe_file.parent

    speech = load_speech(options.data, model, language=options.language, skip_broken=options.skip_broken, mixing=mixing)
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    calibration = None
    if recipe.needs_calibration(model.dimensions):
        spoken, limit = options.calibration or options.data, options.calibration_utterances
        calibration_speech = load_speech(spoken, model, language=options.language, skip_broken=options.skip_broken)
        if options.calibration is None:
            limit = at_most_half(limit, len(calibration_speech.utterances))
        calibration = calibrate(model, calibration_speech, limit=limit, features=features)
    console.print(f"Scoring {model.name} on {len(speech.utterances)} utterances of {speech.name}", highlight=False)
    evaluator = Evaluator(speech, dimensions=model.dimensions, features=features, normaliser=normaliser)
    network = compress(model, recipe, calibration, load_recovered(recipe, recovered))
    evaluation = evaluator.evaluate(network, window_s=recipe.window_s)
    accuracy, note = evaluation.accuracy, script_note(evaluator.pairs(evaluation.texts))
    if options.transcripts:
        write_transcripts(options.transcripts, speech, evaluation, normaliser)
    if note:
        console.print(f"Warning: {note}", style="yellow", highlight=False)
    if as_json:
        identity = {"model": model.name, "speech": speech.name, "recipe_id": recipe.id}
        groups = [group.columns for group in evaluation.groups]
        values = {"broken_lines": len(speech.broken), "groups": groups, "warnings": [note] if note else []}
        languages = {"language_accuracy": evaluation.language_accuracy}
        print(json.dumps(identity | accuracy.columns | values | languages))
        return
    rate = accuracy.rate
    print(
        f"{accuracy.text}, "
        f"{rate.insertions} insertions, {rate.deletions} deletions, {rate.substitutions} substitutions "
        f"in {rate.words} {counted_units(accuracy.normaliser)}; normaliser {accuracy.normaliser}"
    )
    for line in (*languages_lines(evaluation.language_accuracy), *group_lines(evaluation.groups)):
        print(line)


def read_recipe_for(model: LoadedModel, file: Path) -> Recipe:
    """The canonical form of the recipe in a JSON file. Raises InputError also when it is no recipe of this model."""
    recipe = read_recipe(file)
    with naming(f"recipe {file}"):
        recipe.check(model.dimensions)
        if recipe.vocabulary:
            check_words(recipe.vocabulary_language)
    return recipe.canonical(model.dimensions)


def read_recipe(file: Path) -> Recipe:
    """The recipe in a JSON file. Raises InputError when it cannot be read or is none."""
    with naming(f"recipe {file}"):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read ({error})") from error
        return Recipe.from_json(text)
