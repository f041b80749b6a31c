"""Scoring a network on sample speech: pooling, blocks, early stop, reuse, drafts."""

import random
from dataclasses import replace
from pathlib import Path

import jiwer
import pytest
from torch import Tensor
from whisper.model import Whisper
from whisper.normalizers import EnglishTextNormalizer
from whisper.tokenizer import get_tokenizer

from common.errors import InputError
from compression.recipe.dimensions import VOCABULARIES
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel
from evaluators.accuracy import evaluator as module
from evaluators.accuracy import hearing
from evaluators.accuracy.blocks import dealt
from evaluators.accuracy.evaluator import Evaluation, Evaluator, max_tokens
from evaluators.accuracy.normalisers import plain
from evaluators.speech.features import CachedFeatures
from evaluators.speech.language import known_languages
from evaluators.speech.speech_set import SpeechSet
from runtime.pieces import energies
from runtime.unheard import Unheard
from runtime.window import encoder_frames
from tests.evaluators.conftest import ENGLISH_VOCABULARY
from tests.networks import random_network
from tests.strategies import small_dimensions

# openai-whisper leaves english.json open
DIMENSIONS = small_dimensions(layers=3, state=64, vocabulary=ENGLISH_VOCABULARY)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> CachedFeatures:
    return CachedFeatures(n_mels=80, folder=tmp_path_factory.mktemp("mel"))


@pytest.fixture
def pruned(pruned: Whisper) -> Compressed:
    return Compressed.original(pruned)


@pytest.fixture
def evaluator(sample: SpeechSet, features: CachedFeatures) -> Evaluator:
    return Evaluator(sample, dimensions=DIMENSIONS, features=features, block_size=2)


@pytest.fixture
def heard_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text leaves anything unheard; where a random network's texts end is chance."""
    monkeypatch.setattr(hearing, "unheard", lambda *_: None)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames of every run of the encoder."""
    frames: list[int] = []
    encode = module.encode

    def counting(network: Whisper, mel: Tensor) -> Tensor:
        frames.append(mel.shape[-1])
        return encode(network, mel)

    monkeypatch.setattr(module, "encode", counting)
    return frames


def results(evaluation: Evaluation) -> tuple[object, ...]:
    return evaluation.accuracy, evaluation.utterances


def test_the_wer_is_that_of_jiwer_on_all_texts(evaluator: Evaluator, pruned: Compressed, sample: SpeechSet) -> None:
    evaluation = evaluator.evaluate(pruned, window_s=5)
    normalise = EnglishTextNormalizer()
    expected = jiwer.process_words(
        [normalise(plain(utterance.text)) for utterance in sample.utterances],
        [normalise(plain(utterance.hypothesis.text)) for utterance in evaluation.utterances],
    )
    accuracy = evaluation.accuracy
    assert accuracy.wer == pytest.approx(expected.wer)
    rate = accuracy.rate
    assert (rate.insertions, rate.deletions) == (expected.insertions, expected.deletions)
    assert rate.substitutions == expected.substitutions
    assert [utterance_counts.utterance_id for utterance_counts in evaluation.counts] == [
        utterance.id for utterance in sample.utterances
    ]
    assert accuracy.normaliser == "whisper-english-20250625.1"


@pytest.mark.usefixtures("heard_once")
def test_every_clip_is_encoded_alone_at_its_window(
    evaluator: Evaluator, pruned: Compressed, sample: SpeechSet, encoded: list[int]
) -> None:
    evaluator.evaluate(pruned, window_s=9)
    assert sorted(encoded) == sorted(encoder_frames(9, utterance.duration_s) for utterance in sample.utterances)


@pytest.mark.usefixtures("heard_once")
def test_blocks_are_scored_alone_as_with_the_set(
    evaluator: Evaluator, pruned: Compressed, sample: SpeechSet, encoded: list[int]
) -> None:
    whole = evaluator.evaluate(pruned, window_s=5)
    encoded.clear()
    blocks = [evaluator.score_block(pruned, number, window_s=5).scored for number in range(evaluator.blocks)]
    assert (len(encoded), [len(block) for block in blocks]) == (5, [2, 2, 1])
    dealt_ids = [[utterance.id for utterance in block] for block in dealt(sample.utterances, 2, random.Random(0))]
    assert [[scored.counts.utterance_id for scored in block] for block in blocks] == dealt_ids
    assert {scored.counts.utterance_id: scored for block in blocks for scored in block} == {
        scored.counts.utterance_id: scored for scored in whole.utterances
    }


@pytest.mark.usefixtures("heard_once")
def test_encoder_outputs_of_a_known_key_are_used_again(
    evaluator: Evaluator, pruned: Compressed, encoded: list[int]
) -> None:
    first = evaluator.evaluate(pruned, window_s=5, encoder_key="a")
    assert len(encoded) == 5
    assert results(evaluator.evaluate(pruned, window_s=5, encoder_key="a")) == results(first)
    assert len(encoded) == 5
    evaluator.evaluate(pruned, window_s=20, encoder_key="a")
    assert len(encoded) == 10
    evaluator.evaluate(pruned, window_s=5, encoder_key="b")
    assert len(encoded) == 15
    assert results(evaluator.evaluate(pruned, window_s=5)) == results(first)
    assert len(encoded) == 20


def test_what_is_heard_again_is_encoded_and_kept_by_where_it_begins(
    evaluator: Evaluator, pruned: Compressed, sample: SpeechSet, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every clip once more what lies behind its first half second."""
    clips = {len(energies(utterance.samples())) for utterance in sample.utterances}
    rest = Unheard(start_s=0.5, tokens=0, text="")
    monkeypatch.setattr(hearing, "unheard", lambda energy, _: rest if len(energy) in clips else None)
    first = evaluator.evaluate(pruned, window_s=5, encoder_key="a")
    lengths_s = [utterance.duration_s for utterance in sample.utterances]
    assert sorted(encoded) == sorted(encoder_frames(5, s - from_s) for s in lengths_s for from_s in (0, 0.5))
    assert results(evaluator.evaluate(pruned, window_s=5, encoder_key="a")) == results(first)
    assert len(encoded) == 2 * len(lengths_s)


@pytest.mark.usefixtures("heard_once")
def test_outputs_that_were_forgotten_are_encoded_again(
    evaluator: Evaluator, pruned: Compressed, encoded: list[int]
) -> None:
    evaluator.evaluate(pruned, window_s=5, encoder_key="a")
    evaluator.forget()
    evaluator.evaluate(pruned, window_s=5, encoder_key="a")
    assert len(encoded) == 10


def test_drafts_change_nothing(evaluator: Evaluator, pruned: Compressed) -> None:
    plain = evaluator.evaluate(pruned, window_s=5)
    other = evaluator.evaluate(pruned, window_s=12)
    for drafts in (plain, other):
        assert results(evaluator.evaluate(pruned, window_s=5, drafts=drafts.drafts)) == results(plain)


def test_block_size_and_seed_change_no_transcript(
    evaluator: Evaluator, pruned: Compressed, sample: SpeechSet, features: CachedFeatures
) -> None:
    other = Evaluator(sample, dimensions=DIMENSIONS, features=features, block_size=20, seed=1)
    assert other.evaluate(pruned, window_s=5).utterances == evaluator.evaluate(pruned, window_s=5).utterances


def test_tiny_en_hears_the_sample(tiny_en: LoadedModel, sample: SpeechSet) -> None:
    """Synthetic clean and noisy speech: most of it is understood."""
    dimensions = replace(DIMENSIONS, n_text_ctx=448)
    speech = replace(sample, utterances=sample.utterances[:4])
    evaluation = Evaluator(speech, dimensions=dimensions, features=CachedFeatures(n_mels=80)).evaluate(
        Compressed.original(tiny_en.network), window_s=15
    )
    assert evaluation.accuracy.wer < 0.2


def test_texts_without_words_are_refused(sample: SpeechSet, features: CachedFeatures) -> None:
    silent = replace(sample, utterances=(replace(sample.utterances[0], text="(laughs)"),))
    with pytest.raises(InputError, match="no text has any words"):
        Evaluator(silent, dimensions=DIMENSIONS, features=features)


def test_every_model_knows_the_languages_of_whispers_tokenizer_for_it() -> None:
    for vocabulary in VOCABULARIES:
        network = random_network(small_dimensions(layers=1, state=64, vocabulary=vocabulary))
        codes = get_tokenizer(network.is_multilingual, num_languages=network.num_languages).all_language_codes
        expected = set(codes) if network.is_multilingual else {"en"}
        assert known_languages(small_dimensions(vocabulary=vocabulary)) == expected


def test_an_english_model_refuses_german(sample: SpeechSet, features: CachedFeatures) -> None:
    german = replace(sample, utterances=(replace(sample.utterances[0], language="de"),))
    with pytest.raises(InputError, match="English-only model does not know the language 'de'"):
        Evaluator(german, dimensions=DIMENSIONS, features=features)


@pytest.mark.parametrize(("duration_s", "reference_tokens", "expected"), [(10, 40, 136), (10, 100, 216), (0.1, 1, 18)])
def test_a_reference_fits_twice_into_the_limit(
    sample: SpeechSet, duration_s: float, reference_tokens: int, expected: int
) -> None:
    assert max_tokens(replace(sample.utterances[0], duration_s=duration_s), reference_tokens) == expected


@pytest.mark.usefixtures("heard_once")
@pytest.mark.parametrize(("networks", "encodings"), [(1, [5, 5, 10, 15]), (2, [5, 5, 10, 10])])
def test_the_least_recently_used_outputs_go_first(  # noqa: PLR0917 - fixtures
    networks: int,
    encodings: list[int],
    encoded: list[int],
    pruned: Compressed,
    sample: SpeechSet,
    features: CachedFeatures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there is room for so many networks' outputs, of which one is float32 (frames / 2, 64)."""
    frames = [encoder_frames(5, utterance.duration_s) for utterance in sample.utterances]
    monkeypatch.setattr(module, "ENCODER_CACHE_BYTES", networks * 4 * 64 * sum(frames) // 2)
    evaluator, seen = Evaluator(sample, dimensions=DIMENSIONS, features=features), []
    for key in ("a", "a", "b", "a"):
        evaluator.evaluate(pruned, window_s=5, encoder_key=key)
        seen.append(len(encoded))
    assert seen == encodings


def test_a_manifest_without_features_folder_uses_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: SpeechSet
) -> None:
    monkeypatch.setenv("WHISPERFIT_CACHE", str(tmp_path))
    CachedFeatures(n_mels=80).mel(sample.utterances[0])
    assert len(list((tmp_path / "mel").iterdir())) == 1
