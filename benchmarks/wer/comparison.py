"""What the benchmarks of compression share: a model, speech, calibration, and the original to compare with."""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel, load_model
from evaluators.accuracy.evaluator import Evaluation, Evaluator
from evaluators.accuracy.word_errors import paired_difference
from evaluators.learning.calibration import calibrate
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet
from search.loading import load_speech, use_threads


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """With the options that `Comparison.open` reads, and --json."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--data", type=Path, required=True, help="speech to score on")
    parser.add_argument("--limit", type=int, help="score only the first so many utterances")
    parser.add_argument("--calibration", type=Path, required=True, help="other speech, that compression reads")
    parser.add_argument("--calibration-utterances", type=int, default=64)
    parser.add_argument("--language", help="where the speech sets do not state it")
    parser.add_argument("--window", type=float, default=30.0, help="shortest encoder window in seconds")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    return parser


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`original`: the recipe that changes nothing but perhaps the window; `baseline`: what it makes of the speech."""

    model: LoadedModel
    original: Recipe
    calibration_speech: SpeechSet
    calibration: Calibration
    features: CachedFeatures
    evaluator: Evaluator
    baseline: Evaluation

    @classmethod
    def open(cls, options: argparse.Namespace) -> Self:
        """Load and calibrate, say on stderr on what, and score the original."""
        use_threads(options.threads)
        model = load_model(options.model)
        features = CachedFeatures(n_mels=model.dimensions.n_mels)
        speech, spoken = (
            load_speech(path, model, language=options.language, skip_broken=False)
            for path in (options.data, options.calibration)
        )
        speech = replace(speech, utterances=speech.utterances[: options.limit])
        calibration = calibrate(model, spoken, limit=options.calibration_utterances, features=features)
        original = replace(Recipe.original(model.dimensions, stored_bits=model.stored_bits), window_s=options.window)
        evaluator = Evaluator(speech, dimensions=model.dimensions, features=features)
        heard = f"{len(speech.utterances)} utterances of {speech.name}, {evaluator.normaliser}"
        print(f"{model.name}, {heard}, window {options.window:g} s", file=sys.stderr)
        return cls(
            model=model,
            original=original,
            calibration_speech=spoken,
            calibration=calibration,
            features=features,
            evaluator=evaluator,
            baseline=evaluator.evaluate(compress(model, original), window_s=options.window),
        )

    def evaluate(self, network: Compressed, recipe: Recipe, *, encoder_key: str | None = None) -> Evaluation:
        """A network of this recipe on the speech."""
        drafts = self.baseline.drafts
        return self.evaluator.evaluate(network, window_s=recipe.window_s, encoder_key=encoder_key, drafts=drafts)

    def figures(self, evaluation: Evaluation) -> dict[str, float]:
        """WER and how much more than the original's it is, paired; fractions, with 95 % intervals."""
        accuracy = evaluation.accuracy
        difference = paired_difference(self.baseline.counts, evaluation.counts, seed=0)
        values = {
            "wer": accuracy.wer,
            "wer_low": accuracy.rate.low,
            "wer_high": accuracy.rate.high,
            "difference": difference.difference,
            "difference_low": difference.low,
            "difference_high": difference.high,
        }
        return {name: round(value, 4) for name, value in values.items()}
