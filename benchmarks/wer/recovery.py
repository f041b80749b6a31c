"""What recovery brings: WER of a compressed model against minutes of training.

    python benchmarks/wer/recovery.py --recipe FILE.json|NAME --method reconstruct|distill|qat --minutes 10 --out FOLDER

Trains on --speech (default: the shared calibration clips) and scores on --data (default: the shared search clips)
before, after every --score-every minutes of training, and at the end. Scoring is not counted as training; of a
reconstruction the CPU's seconds are counted. The same command goes on where it was interrupted. FOLDER then holds
recipe.json and weights.pt, which `whisperfit baseline --recipe`, `whisperfit export --recipe` and --recipe take, and
curve.json. Names of recipes: see RECIPES and techniques.py.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic, process_time

from techniques import BLOCK, Technique, heads, of_units, techniques, without_least

from common.files import write_text_whole
from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.trained_weights import load_recovered, save_recovered
from compression.training.checkpoint import Checkpoint, Point
from compression.training.reconstruction import reconstruct
from compression.training.run import Limits, WhisperTraining, recovered_recipe
from compression.training.settings import TrainingSettings
from compression.training.subject import Subject
from compression.whisper.load import LoadedModel, load_model
from evaluators.accuracy.evaluator import Drafts, Evaluator
from evaluators.learning.calibration import calibrate, calibration_samples
from evaluators.learning.training_speech import TrainingSpeech
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import load_speech_set
from search.commands.baseline import read_recipe
from search.loading import use_threads
from search.recover_trial import RECONSTRUCTION_UTTERANCES, Recovered, RecoveryPlan, course, progress_line

SPLITS = Path(__file__).parents[3] / "shared" / "speech" / "splits"


def without_decoder_layer(original: Recipe, _: Calibration) -> Recipe:
    """tiny.en without its second decoder layer, the one that is missed least."""
    return replace(original, decoder=(original.decoder[0], None, *original.decoder[2:]))


def channels_pruned(original: Recipe, calibration: Calibration) -> Recipe:
    """15 % of the FFN channels, the least important blocks of 32 wherever they are."""
    scores = of_units(calibration.importance(original.importance), "ffn_channels")
    return without_least(original, scores, 0.15, block=BLOCK)


def four_bits(original: Recipe, _: Calibration) -> Recipe:
    """Weights at 4 bits in groups of 32, embedding and convolutions at 8."""
    recipe = original.with_each_layer(attention_bits=4, ffn_bits=4)
    return replace(recipe, embedding_bits=8, convolution_bits=8, group_size=32)


def two_bits(original: Recipe, calibration: Calibration) -> Recipe:
    """FFN at 2 bits in groups of 32, the rest as in `four_bits`."""
    return four_bits(original, calibration).with_each_layer(ffn_bits=2)


RECIPES: dict[str, Technique] = {
    "layer": without_decoder_layer,
    "heads": heads(1 / 6, refit=False),
    "channels": channels_pruned,
    "4bit": four_bits,
    "2bit": two_bits,
}


class Scoring:
    """The evaluation set; WERs of the original and of what comes out."""

    def __init__(self, model: LoadedModel, data: Path, limit: int | None, features: CachedFeatures) -> None:
        speech = load_speech_set(data, language="en")
        speech = replace(speech, utterances=speech.utterances[:limit])
        self._evaluator = Evaluator(speech, dimensions=model.dimensions, features=features)
        self._drafts: Drafts | None = None

    def wer(self, network: Compressed, window_s: float) -> float:
        evaluation = self._evaluator.evaluate(network, window_s=window_s, drafts=self._drafts)
        self._drafts = self._drafts or evaluation.drafts
        return evaluation.accuracy.wer


class TrainingClock:
    """Seconds without those spent on scoring."""

    def __init__(self) -> None:
        self._away = 0.0

    def __call__(self) -> float:
        return monotonic() - self._away

    def without(self, work: Callable[[], float]) -> float:
        began = monotonic()
        value = work()
        self._away += monotonic() - began
        return value


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> None:
    options = parse()
    use_threads(options.threads)
    model = load_model(options.model)
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    original = Recipe.original(model.dimensions, stored_bits=model.stored_bits)
    settings = TrainingSettings.read(options.training)
    recovery = RecoveryPlan(
        method=options.method, settings=settings, speech=load_speech_set(options.speech, language="en")
    )
    calibration = calibrate(model, recovery.speech, limit=32, features=features)
    make = (techniques(model.dimensions, "en") | RECIPES).get(options.recipe)
    named = make(original, calibration) if make else read_recipe(Path(options.recipe))
    recipe = replace(named, window_s=options.window).canonical(model.dimensions)
    trained = None if make else load_recovered(recipe, Path(options.recipe).parent)
    subject = Subject(model=model, recipe=recipe, calibration=calibration, recovered=trained)
    scoring = Scoring(model, options.data, options.clips, features)
    scores = {
        "original": scoring.wer(Compressed.original(model.network), options.window),
        "before": scoring.wer(subject.compressed(), options.window),
    }
    say(f"{recipe.summary()}\noriginal {scores['original']:.4f}, compressed {scores['before']:.4f}")
    began = process_time()
    recovered, curve = improve(subject, recovery, scoring, options)
    seconds = recovered.training.seconds if recovered.training else process_time() - began
    better, weights = recovered_recipe(subject, options.method, recovered.weights)
    save_recovered(options.out, better, weights)
    scores["after"] = scoring.wer(compress(model, better, calibration, weights), options.window)
    result = {"recipe_id": better.id, **scores, "seconds": seconds, "curve": curve}
    result |= course(recipe, recovery, recovered)
    write_text_whole(options.out / "curve.json", json.dumps(result, indent=1) + "\n")
    say(f"recovered {scores['after']:.4f}")
    if options.json:
        print(json.dumps(result))


def improve(
    subject: Subject, recovery: RecoveryPlan, scoring: Scoring, options: argparse.Namespace
) -> tuple[Recovered, list[dict[str, float]]]:
    features = CachedFeatures(n_mels=subject.model.dimensions.n_mels)
    if recovery.method == "reconstruct":
        clips = recovery.speech.utterances[:RECONSTRUCTION_UTTERANCES]
        return Recovered(
            weights=reconstruct(subject, calibration_samples(subject.model, clips, features)), training=None
        ), []
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(file=options.out / "checkpoint", identity=recovery.identity(subject.recipe))
    checkpoint.check()
    training = WhisperTraining(subject, recovery.method, recovery.settings)
    speech = TrainingSpeech(subject.model, recovery.speech, recovery.settings, features)
    curve_file = options.out / "curve.partial.json"
    curve = json.loads(curve_file.read_text()) if curve_file.exists() else []
    clock = TrainingClock()

    def wer_now() -> float:
        recipe, weights = recovered_recipe(subject, recovery.method, training.weights())
        return scoring.wer(compress(subject.model, recipe, subject.calibration, weights), options.window)

    def watch(point: Point) -> None:
        say(progress_line(point))
        # what a killed run scored after its last checkpoint is trained and scored again
        curve[:] = [scored for scored in curve if scored["step"] < point.step]
        if point.seconds - (curve[-1]["minutes"] * 60 if curve else 0.0) >= 60 * options.score_every:
            wer = clock.without(wer_now)
            curve.append({"step": point.step, "minutes": point.seconds / 60, "wer": wer})
            write_text_whole(curve_file, json.dumps(curve))
            say(f"  WER {wer:.4f}")

    limits = Limits(seconds=60 * options.minutes, clock=clock, should_stop=lambda: False)
    done = training.run(speech, limits, checkpoint=checkpoint, watch=watch)
    return Recovered(weights=training.weights(), training=done), curve


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    names = f"a JSON file, the name of a technique, or one of {', '.join(RECIPES)}"
    parser.add_argument("--recipe", default="layer", help=names)
    parser.add_argument("--method", choices=("reconstruct", "distill", "qat"), default="distill")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--score-every", type=float, default=5.0, metavar="MINUTES")
    parser.add_argument("--window", type=float, default=15.0, help="the recipe's, in seconds")
    parser.add_argument("--speech", type=Path, default=SPLITS / "read_calibration.jsonl")
    parser.add_argument("--data", type=Path, default=SPLITS / "read_search.jsonl")
    parser.add_argument("--clips", type=int, help="score only the first so many")
    parser.add_argument("--training", type=Path, help="TOML file with the training's settings")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
