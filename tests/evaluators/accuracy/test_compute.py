"""Scoring on a device that is no CPU (`tests.pretended_device`), and where its memory is short."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from whisper.model import Whisper

from compression.recipe.dimensions import Dimensions
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel
from evaluators.accuracy import evaluator as module
from evaluators.accuracy.divergence_meter import DivergenceMeter
from evaluators.accuracy.evaluator import Evaluator
from evaluators.accuracy.together import Together
from evaluators.speech.divergence_clips import draw_clips
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet
from tests.evaluators.conftest import ENGLISH_VOCABULARY, pruned_network
from tests.pretended_device import pretended_device
from tests.strategies import small_dimensions

DIMENSIONS = small_dimensions(layers=3, state=64, heads=2, vocabulary=ENGLISH_VOCABULARY)


def evaluator_of(sample: SpeechSet) -> Evaluator:
    return Evaluator(sample, dimensions=DIMENSIONS, features=CachedFeatures(n_mels=80))


def loaded(network: Whisper) -> LoadedModel:
    dimensions = Dimensions(**vars(network.dims))
    return LoadedModel(name="random", digest="0" * 64, dimensions=dimensions, stored_bits=32, network=network)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Clips and frames of every run of the encoder."""
    seen: list[tuple[int, int]] = []
    encode = module.encode

    def counting(network: Whisper, mel: Tensor) -> Tensor:
        seen.append((len(mel), mel.shape[-1]))
        return encode(network, mel)

    monkeypatch.setattr(module, "encode", counting)
    return seen


def test_transcripts_are_those_of_the_cpu(pruned: Whisper, sample: SpeechSet, windows: list[tuple[int, int]]) -> None:
    evaluator = evaluator_of(sample)
    here = evaluator.evaluate(Compressed.original(pruned), window_s=15)
    assert all(clips == 1 for clips, _ in windows)
    windows.clear()
    with pretended_device() as device:
        there = evaluator.evaluate(Compressed.original(copy.deepcopy(pruned).to(device)), window_s=15)
    assert [u.hypothesis for u in there.utterances] == [u.hypothesis for u in here.utterances]
    assert max(clips for clips, _ in windows) > 1


def test_divergence_is_that_of_the_cpu(pruned: Whisper, sample: SpeechSet) -> None:
    clips = draw_clips(sample.utterances, 3, seed=0, widen=False)
    other = pruned_network(ENGLISH_VOCABULARY, seed=1)
    here = DivergenceMeter(loaded(pruned), clips).measure(Compressed.original(other), window_s=15)
    with pretended_device() as device:
        moved = loaded(copy.deepcopy(pruned)).on(device)
        there = DivergenceMeter(moved, clips).measure(Compressed.original(copy.deepcopy(other).to(device)), window_s=15)
    assert there.tokens == here.tokens
    assert there.nats == pytest.approx(here.nats, rel=1e-3)


def test_half_as_many_go_together_where_memory_is_short() -> None:
    parts: list[int] = []

    def doubled(numbers: Sequence[int]) -> list[int]:
        parts.append(len(numbers))
        if len(numbers) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [2 * number for number in numbers]

    together = Together()
    assert together.map(doubled, range(10), most=10) == [2 * number for number in range(10)]
    assert parts == [10, 5, 2, 2, 2, 2, 2]
    parts.clear()
    together.map(doubled, range(4), most=4)
    assert parts == [2, 2]


def test_one_that_does_not_fit_is_said() -> None:
    def failing(_: Sequence[int]) -> list[int]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Together().map(failing, [1, 2], most=2)


def test_an_evaluation_goes_on_where_memory_is_short(
    pruned: Whisper, sample: SpeechSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = module.encode

    def cramped(network: Whisper, mel: Tensor) -> Tensor:
        if len(mel) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(network, mel)

    expected = evaluator_of(sample).evaluate(Compressed.original(pruned), window_s=15)
    monkeypatch.setattr(module, "encode", cramped)
    with pretended_device() as device:
        found = evaluator_of(sample).evaluate(Compressed.original(copy.deepcopy(pruned).to(device)), window_s=15)
    assert [u.hypothesis.text for u in found.utterances] == [u.hypothesis.text for u in expected.utterances]
