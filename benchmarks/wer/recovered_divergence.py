"""What training brings to the divergence of a recipe, on speech of several kinds, every so many steps.

    S=../shared/speech
    python benchmarks/wer/recovered_divergence.py --method scales --learning-rate 3e-5 --steps 80 --threads 1 \\
        --calibration $S/splits/read_calibration.jsonl --set $S/splits/read_search.jsonl \\
        --set $S/ljspeech/manifest.jsonl --run results/seventh --trial 268

Trained on the calibration speech as a search trains (`search.run.recovery`), measured on 16 clips of each set of which
every second one is widened. The weights measured are those of the step, not the best.
"""

import argparse
from pathlib import Path
from time import monotonic

from given_recipes import add_recipe_options, given_recipes

from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import RecoveryMethod
from compression.training.checkpoint import Point
from compression.training.run import Limits, WhisperTraining, recovered_recipe
from compression.training.settings import TrainingSettings
from compression.training.subject import Subject
from compression.whisper.load import LoadedModel, load_model
from evaluators.accuracy.divergence_meter import DivergenceMeter
from evaluators.learning.calibration import calibrate
from evaluators.learning.training_speech import TrainingSpeech
from evaluators.speech.divergence_clips import draw_clips
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet
from search.configuration.options import CALIBRATION_UTTERANCES
from search.loading import load_speech, use_threads
from search.run.recovery import settings_for

CLIPS = 16
SEED = 0


def main() -> None:
    """Print a table for each recipe."""
    options = _parser().parse_args()
    use_threads(options.threads)
    model = load_model(options.model)
    sets = [load_speech(path, model, language=None, skip_broken=False) for path in options.set]
    meters = [DivergenceMeter(model, draw_clips(one.utterances, CLIPS, seed=SEED, widen=True)) for one in sets]
    speech = load_speech(options.calibration, model, language=None, skip_broken=False)
    names = " | ".join(one.name for one in sets)
    for name, recipe in given_recipes(options):
        print(f"{name}, {options.method}, learning rate {options.learning_rate:g}; nats a token\n")
        print(f"| step | minutes | loss | held out | {names} |\n|{'---|' * (4 + len(sets))}", flush=True)
        changes = {"learning_rate": options.learning_rate, "steps": options.steps, "evaluate_every": options.every}
        settings = settings_for(recipe, SEED).model_copy(update=changes)
        _train(model, recipe, options.method, settings, speech, meters)
        print()


def _train(  # noqa: PLR0913, PLR0917 - the parts of a training
    model: LoadedModel,
    recipe: Recipe,
    method: RecoveryMethod,
    settings: TrainingSettings,
    speech: SpeechSet,
    meters: list[DivergenceMeter],
) -> None:
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    calibration = calibrate(model, speech, limit=CALIBRATION_UTTERANCES, features=features)
    subject = Subject(model=model, recipe=recipe, calibration=calibration, recovered=None)
    training = WhisperTraining(subject, method, settings)

    def watch(point: Point) -> None:
        better, weights = recovered_recipe(subject, method, training.weights())
        network = compress(model, better, calibration, weights)
        found = [f"{meter.measure(network, window_s=recipe.window_s).mean:.4f}" for meter in meters]
        loss = "" if point.training_loss is None else f"{point.training_loss:.4f}"
        row = [str(point.step), f"{point.seconds / 60:.1f}", loss, f"{point.held_out_loss:.4f}", *found]
        print(f"| {' | '.join(row)} |", flush=True)

    limits = Limits(seconds=None, clock=monotonic, should_stop=lambda: False)
    training.run(TrainingSpeech(model, speech, settings, features), limits, checkpoint=None, watch=watch)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--calibration", type=Path, required=True, help="what is trained on")
    parser.add_argument("--set", type=Path, action="append", required=True, help="what is measured on")
    parser.add_argument("--method", choices=("distill", "qat", "scales"), required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--every", type=int, default=40, help="steps between measurements")
    parser.add_argument("--threads", type=int)
    add_recipe_options(parser)
    return parser


if __name__ == "__main__":
    main()
