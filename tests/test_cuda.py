"""tiny.en on a CUDA device against the same on the CPU, on the sample speech: `pytest -m cuda`."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.training.run import Limits, WhisperTraining
from compression.training.settings import TrainingSettings
from compression.training.subject import Subject
from compression.whisper.compute import compute_device
from compression.whisper.load import LoadedModel, load_model
from evaluators.accuracy.divergence_meter import DivergenceMeter
from evaluators.accuracy.evaluator import Evaluator
from evaluators.learning.calibration import calibrate
from evaluators.learning.training_speech import TrainingSpeech
from evaluators.speech.divergence_clips import draw_clips
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet, load_speech_set

pytestmark = pytest.mark.cuda
FEATURES = CachedFeatures(n_mels=80)


@pytest.fixture(scope="module")
def there() -> LoadedModel:
    return load_model("tiny.en").on(compute_device("cuda"))


@pytest.fixture(scope="module")
def speech() -> SpeechSet:
    return load_speech_set(Path("sample-search"))


def four_bits(model: LoadedModel) -> Recipe:
    recipe = Recipe.original(model.dimensions, stored_bits=16)
    recipe = recipe.with_each_layer(attention_bits=4, ffn_bits=4, ffn_channels=1280)
    return replace(recipe, embedding_bits=4, group_size=32, vocabulary=40960, vocabulary_language="en")


def subjects(tiny_en: LoadedModel, there: LoadedModel, speech: SpeechSet) -> list[Subject]:
    """The recipe on the CPU and there, each with its own calibration."""
    calibrations = [calibrate(model, speech, limit=8, features=FEATURES) for model in (tiny_en, there)]
    return [
        Subject(model=model, recipe=four_bits(model).canonical(model.dimensions), calibration=each, recovered=None)
        for model, each in zip((tiny_en, there), calibrations, strict=True)
    ]


def test_transcripts_and_divergence(tiny_en: LoadedModel, there: LoadedModel, speech: SpeechSet) -> None:
    """The same network on both: 99 % of the transcripts are the same."""
    recipe = four_bits(tiny_en)
    here = compress(tiny_en, recipe, calibrate(tiny_en, speech, limit=8, features=FEATURES))
    moved = here.on(compute_device("cuda"))
    evaluator = Evaluator(speech, dimensions=tiny_en.dimensions, features=FEATURES)
    texts = [evaluator.evaluate(network, window_s=15.0).texts for network in (here, moved)]
    same = sum(texts[0][utterance] == texts[1][utterance] for utterance in texts[0])
    assert same >= 0.99 * len(texts[0])
    clips = draw_clips(speech.utterances, 4, seed=0, widen=False)
    found = [
        DivergenceMeter(model, clips).measure(network, window_s=15.0)
        for model, network in ((tiny_en, here), (there, moved))
    ]
    assert found[1].mean == pytest.approx(found[0].mean, rel=1e-3)


def test_compressed_there_it_diverges_as_much(tiny_en: LoadedModel, there: LoadedModel, speech: SpeechSet) -> None:
    clips = draw_clips(speech.utterances, 4, seed=0, widen=False)
    found = [
        DivergenceMeter(subject.model, clips).measure(subject.compressed(), window_s=15.0).mean
        for subject in subjects(tiny_en, there, speech)
    ]
    assert found[1] == pytest.approx(found[0], rel=0.1)


def test_training(tiny_en: LoadedModel, there: LoadedModel, speech: SpeechSet) -> None:
    limits, losses = Limits(seconds=None, clock=lambda: 0.0, should_stop=lambda: False), []
    for subject in subjects(tiny_en, there, speech):
        settings = TrainingSettings(steps=2, batch_size=2, copies=1)
        batches = TrainingSpeech(subject.model, speech, settings, FEATURES)
        training = WhisperTraining(subject, "qat", settings)
        losses.append(training.run(batches, limits, checkpoint=None, watch=lambda _: None).points[-1].held_out_loss)
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_float32_is_float32(there: LoadedModel) -> None:
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
