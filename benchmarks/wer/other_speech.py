"""Do recipes hold on speech of other kinds than they were chosen on?

    S=../shared/speech
    python benchmarks/wer/other_speech.py --calibration $S/splits/read_calibration.jsonl \\
        --set $S/ljspeech/manifest.jsonl --set $S/splits/commands_confirm.jsonl \\
        --noisy-set $S/splits/read_confirm.jsonl --noise $S/noise/manifest.jsonl --snr-db 10 \\
        --run results/third --recipe FILE.json > benchmarks/results/other_speech.md

Each recipe and the original on the same clips: pooled WER, and errors as a multiple of the original's with its 95 %
interval by resampling speakers (utterances where a set has one speaker), paired.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from given_recipes import add_recipe_options, given_recipes, weights_of

from compression.compress import compress
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel, load_model
from evaluators.accuracy.evaluator import Evaluation, Evaluator
from evaluators.accuracy.word_errors import ErrorCounts, paired_ratio
from evaluators.learning.calibration import calibrate
from evaluators.speech.features import CachedFeatures
from evaluators.speech.noisy_speech import Mixing
from search.configuration.options import CALIBRATION_UTTERANCES
from search.loading import load_speech, use_threads

WINDOW_S = 30.0


def main() -> None:
    """Print the table."""
    options = _parser().parse_args()
    use_threads(options.threads)
    model = load_model(options.model)
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    spoken = load_speech(options.calibration, model, language=options.language, skip_broken=False)
    calibration = calibrate(model, spoken, limit=options.calibration_utterances, features=features)
    networks = {
        name: (recipe, compress(model, recipe, calibration, weights_of(recipe, options)))
        for name, recipe in given_recipes(options)
    }
    print(f"{model.name}; calibrated on {options.calibration_utterances} clips of {spoken.name}; intervals 95 %\n")
    print("| speech | recipe | WER % | errors, times the original's |\n|---|---|---|---|")
    before: list[ErrorCounts] = []
    after: dict[str, list[ErrorCounts]] = {name: [] for name in networks}
    for speech, evaluator in _sets(options, model, features):
        original = evaluator.evaluate(Compressed.original(model.network), window_s=WINDOW_S)
        before += original.counts
        print(f"| {speech} | original | {_wer(original)} | |", flush=True)
        for name, (recipe, network) in networks.items():
            found = evaluator.evaluate(network, window_s=recipe.window_s, drafts=original.drafts)
            after[name] += found.counts
            print(f"| | {name} | {_wer(found)} | {_ratio(original.counts, found.counts)} |", flush=True)
    for name, counts in after.items():
        print(f"| all together | {name} | | {_ratio(before, counts)} |")


def _sets(options: argparse.Namespace, model: LoadedModel, features: CachedFeatures) -> Iterator[tuple[str, Evaluator]]:
    mixing = Mixing.parse(options.noise, options.snr_db)
    for path, noise in (*((path, None) for path in options.set), *((path, mixing) for path in options.noisy_set)):
        speech = load_speech(path, model, language=options.language, skip_broken=False, mixing=noise)
        words = Evaluator(speech, dimensions=model.dimensions, features=features)
        yield f"{path.parent.name}/{speech.name}, {sum(words.words.values())} words", words


def _ratio(before: Sequence[ErrorCounts], after: Sequence[ErrorCounts]) -> str:
    ratio, low, high = paired_ratio(before, after, seed=0)
    return f"{ratio:.2f} ({low:.2f} to {high:.2f})"


def _wer(evaluation: Evaluation) -> str:
    rate = evaluation.accuracy.rate
    return f"{100 * rate.wer:.2f} ({100 * rate.low:.2f} to {100 * rate.high:.2f})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--calibration-utterances", type=int, default=CALIBRATION_UTTERANCES)
    parser.add_argument("--language", help="where the speech sets do not state it")
    parser.add_argument("--set", type=Path, action="append", default=[], help="speech; may be given again")
    parser.add_argument("--noisy-set", type=Path, action="append", default=[], help="speech that gets the noise")
    parser.add_argument("--noise", type=Path)
    parser.add_argument("--snr-db")
    add_recipe_options(parser)
    parser.add_argument("--threads", type=int)
    return parser


if __name__ == "__main__":
    main()
