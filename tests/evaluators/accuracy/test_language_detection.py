"""Languages that networks and their artifacts detect, against openai-whisper's own detection."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import whisper

from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.export.manifest import Sources
from compression.export.targets import export
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel, load_model
from evaluators.accuracy.evaluator import Evaluation, Evaluator
from evaluators.runtimes.own import ArtifactRecogniser
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet
from tests.evaluators.conftest import MULTILINGUAL_VOCABULARY, talkative
from tests.networks import random_network, save_checkpoint
from tests.strategies import small_dimensions

LANGUAGES = ("es", "cs")
"""All that this network detects in the sample."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    file = tmp_path_factory.mktemp("model") / "model.pt"
    dimensions = small_dimensions(layers=1, state=64, heads=1, vocabulary=MULTILINGUAL_VOCABULARY)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        save_checkpoint(talkative(random_network(dimensions), seed=2), file)
    return load_model(str(file))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> CachedFeatures:
    return CachedFeatures(n_mels=80, folder=tmp_path_factory.mktemp("mel"))


@pytest.fixture(scope="module")
def speech(model: LoadedModel, sample: SpeechSet, features: CachedFeatures) -> SpeechSet:
    """Each utterance states the language that openai-whisper detects in it with the original network."""
    found = []
    for utterance in sample.utterances:
        mel = torch.as_tensor(features.mel(utterance))
        _, chances = whisper.detect_language(model.network, mel)
        found.append(replace(utterance, language=max(chances, key=chances.__getitem__)))
    assert {utterance.language for utterance in found} == set(LANGUAGES)
    return replace(sample, utterances=tuple(found))


@pytest.fixture(scope="module")
def evaluator(speech: SpeechSet, model: LoadedModel, features: CachedFeatures) -> Evaluator:
    return Evaluator(speech, dimensions=model.dimensions, features=features, block_size=2)


def told(evaluation: Evaluation) -> list[bool | None]:
    return [scored.right_language for scored in evaluation.utterances]


def test_the_original_detects_what_whisper_detects(evaluator: Evaluator, model: LoadedModel) -> None:
    original = evaluator.evaluate(Compressed.original(model.network), window_s=30.0)
    assert told(original) == [True] * 5
    assert original.language_accuracy == 1.0
    again = evaluator.evaluate(Compressed.original(model.network), window_s=30.0, drafts=original.drafts)
    assert told(again) == told(original), "drafts are read in the first step too"


def test_a_stated_language_that_is_not_detected_counts_as_wrong(
    speech: SpeechSet, model: LoadedModel, features: CachedFeatures
) -> None:
    first, *others = speech.utterances
    [other] = set(LANGUAGES) - {first.language}
    wrong = replace(speech, utterances=(replace(first, language=other), *others))
    evaluator = Evaluator(wrong, dimensions=model.dimensions, features=features)
    found = evaluator.evaluate(Compressed.original(model.network), window_s=30.0)
    assert told(found) == [False, *[True] * 4]
    assert found.language_accuracy == 0.8


@pytest.mark.parametrize("vocabulary", [0, 1024])
def test_an_artifact_detects_what_its_network_detects(
    vocabulary: int, evaluator: Evaluator, model: LoadedModel, tmp_path: Path
) -> None:
    """With all tokens and with few: those of languages stay, under other ids."""
    recipe = Recipe.original(model.dimensions, stored_bits=16).with_each_layer(attention_bits=4, ffn_bits=4)
    recipe = replace(recipe, vocabulary=vocabulary, vocabulary_language="es" if vocabulary else "")
    recipe = recipe.canonical(model.dimensions)
    counts = np.zeros(model.dimensions.n_vocab, np.int64)
    calibration = Calibration(inputs={}, importances={}, gradient_squares={}, layer_importance={}, token_counts=counts)
    network = compress(model, recipe, calibration if vocabulary else None)
    assert (len(network.vocabulary.ids) < model.dimensions.n_vocab) == bool(vocabulary)
    export(model, recipe, network, tmp_path / "a", target="onnxruntime", sources=Sources(model="model.pt"))
    in_torch = evaluator.evaluate(network, window_s=recipe.window_s)
    recogniser = ArtifactRecogniser(tmp_path / "a", threads=1, ids=network.vocabulary.ids.tolist())
    in_artifact = evaluator.evaluate_transcripts(recogniser)
    detected = [[scored.hypothesis.detected for scored in found.utterances] for found in (in_torch, in_artifact)]
    assert detected[0] == detected[1]
    assert None not in detected[0]
    assert in_artifact.language_accuracy == in_torch.language_accuracy
