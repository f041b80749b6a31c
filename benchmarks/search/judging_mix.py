"""What a search asked of a recipe on average: what `whisperfit estimate` assumes (`search/needs/estimate.py`).

    python benchmarks/search/judging_mix.py --run results/tenth --model tiny.en \\
        --data ../shared/speech/splits/read_search.jsonl --calibration ../shared/speech/splits/read_calibration.jsonl

Clips by which a recipe was judged, the share of recipes that were transcribed, and the decoder's time for the run's
pick with the original's transcripts as drafts, as a share of its time without.
"""

import argparse
from pathlib import Path
from statistics import mean

from compression.compress import compress
from compression.techniques.compressed import Compressed
from compression.whisper.load import load_model
from evaluators.accuracy.evaluator import Evaluator
from evaluators.learning.calibration import calibrate
from evaluators.speech.features import CachedFeatures
from search.configuration.options import CALIBRATION_UTTERANCES
from search.loading import load_speech, use_threads
from search.records.folder import RunFolder
from search.records.run_records import find_trial, read_outcome
from search.records.study_store import StudyStore

WINDOW_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    use_threads(options.threads)
    outcome = read_outcome(StudyStore(RunFolder(options.run).study))
    clips = [trial.divergence.clips for trial in outcome.trials if trial.divergence]
    transcribed = mean(trial.accuracy is not None for trial in outcome.trials)
    print(f"{len(outcome.trials)} recipes, {mean(clips):.1f} clips each, {transcribed:.3f} of them transcribed")
    model = load_model(options.model)
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    spoken = load_speech(options.calibration, model, language=None, skip_broken=False)
    calibration = calibrate(model, spoken, limit=CALIBRATION_UTTERANCES, features=features)
    speech = load_speech(options.data, model, language=None, skip_broken=False)
    evaluator = Evaluator(speech, dimensions=model.dimensions, features=features)
    recipe = find_trial(outcome, None).recipe
    network = compress(model, recipe, calibration)
    original = evaluator.evaluate(Compressed.original(model.network), window_s=WINDOW_S)
    alone = evaluator.evaluate(network, window_s=recipe.window_s)
    drafted = evaluator.evaluate(network, window_s=recipe.window_s, drafts=original.drafts)
    print(f"with drafts {drafted.decoder_s / alone.decoder_s:.2f} of the decoder's time without")


if __name__ == "__main__":
    main()
