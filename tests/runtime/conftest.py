"""An artifact of tiny.en in float32, made without the exporter, and what torch makes of the same clips."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from whisper.model import Whisper

from compression.whisper.load import LoadedModel
from evaluators.speech.audio import read_audio
from evaluators.speech.speech_set import SpeechSet, load_speech_set
from runtime.audio import Floats
from runtime.transcribe import Transcriber
from tests.networks import random_network
from tests.runtime.miniature import write_artifact
from tests.strategies import small_dimensions

ENGLISH_VOCABULARY, MULTILINGUAL_VOCABULARY = 51864, 51865


def small_network(vocabulary: int, *, seed: int = 0) -> Whisper:
    """Random weights; the embedding is so small that no token is nearly certain."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = random_network(small_dimensions(layers=2, state=64, heads=2, vocabulary=vocabulary))
        torch.nn.init.normal_(network.decoder.token_embedding.weight, std=0.3)
    return network


@pytest.fixture(scope="session")
def small() -> Whisper:
    return small_network(ENGLISH_VOCABULARY)


@pytest.fixture(scope="session")
def multilingual() -> Whisper:
    return small_network(MULTILINGUAL_VOCABULARY)


@pytest.fixture(scope="session")
def small_artifact(small: Whisper, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(small, tmp_path_factory.mktemp("artifacts") / "small")


@pytest.fixture(scope="session")
def multilingual_artifact(multilingual: Whisper, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(multilingual, tmp_path_factory.mktemp("artifacts") / "multilingual")


@pytest.fixture(scope="session")
def tiny_artifact(tiny_en: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With windows of 30 s, as `whisper.decode` has them."""
    return write_artifact(tiny_en.network, tmp_path_factory.mktemp("artifacts") / "tiny.en")


@pytest.fixture(scope="session")
def tiny(tiny_artifact: Path) -> Transcriber:
    return Transcriber.open(tiny_artifact, threads=1)


@pytest.fixture(scope="session")
def sample() -> SpeechSet:
    return load_speech_set(Path("sample-search"))


@pytest.fixture(scope="session")
def clips(sample: SpeechSet) -> list[Floats]:
    """Five clips of clean and of noisy speech."""
    return [read_audio(utterance.audio) for utterance in sample.utterances[:5]]


def tensor(samples: Floats) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(samples))
