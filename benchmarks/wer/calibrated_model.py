"""The model, the speech and the calibration that a benchmark is told on its command line."""

import argparse

from compression.calibration.calibration import Calibration
from compression.whisper.load import LoadedModel, load_model
from evaluators.learning.calibration import calibrate
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet
from search.loading import load_speech, use_threads


def calibrated_model(options: argparse.Namespace) -> tuple[LoadedModel, SpeechSet, Calibration]:
    """Of --model, --data, --calibration, --calibration-utterances, --language and --threads."""
    use_threads(options.threads)
    model = load_model(options.model)
    speech, spoken = (
        load_speech(path, model, language=options.language, skip_broken=False)
        for path in (options.data, options.calibration)
    )
    features = CachedFeatures(n_mels=model.dimensions.n_mels)
    return model, speech, calibrate(model, spoken, limit=options.calibration_utterances, features=features)
