"""Students that lack some of the original's tokens: against tiktoken, sums token by token, and a loss over rows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import tiktoken
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from whisper.tokenizer import get_tokenizer

from compression.calibration.calibration import Calibration, CalibrationSample, measure
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed, Vocabulary
from compression.techniques.vocabulary import keep_embedding_rows
from compression.training.batches import batch_of
from compression.training.distillation import Distillation, Matching, Teacher
from compression.training.losses import SoftTargets, soft_loss
from compression.training.reconstruction import reconstruct
from compression.training.run import Limits, WhisperTraining, recovered_recipe
from compression.training.settings import TrainingSettings
from compression.training.spelling import SpelledBatches, Spelling
from compression.training.subject import Subject
from compression.training.whisper_student import WhisperStudent, changed_part
from compression.whisper.load import LoadedModel
from compression.whisper.network import decoder_states, encode
from compression.whisper.tokenizer import text_tokens
from tests.compression.training.data import RandomBatches, subject
from tests.networks import random_network
from tests.strategies import small_dimensions

DIMENSIONS = small_dimensions(layers=1, state=64, vocabulary=51864)
TOKENIZER = get_tokenizer(False)
TEXTS = text_tokens(TOKENIZER)
LIMITS = Limits(seconds=None, clock=lambda: 0.0, should_stop=lambda: False)
CALIBRATION = Calibration(
    inputs={}, importances={}, gradient_squares={}, layer_importance={}, token_counts=np.zeros(51864, np.int64)
)
BATCHES = RandomBatches(vocabulary=len(TEXTS))
"""Of the clips' random tokens nearly all are gone."""


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    torch.manual_seed(0)
    network = random_network(DIMENSIONS)
    return LoadedModel(name="random", digest="0", dimensions=DIMENSIONS, stored_bits=16, network=network)


@pytest.fixture(scope="module")
def short(model: LoadedModel) -> Subject:
    return replace(subject(model, vocabulary=2048, vocabulary_language="en"), calibration=CALIBRATION)


@pytest.fixture(scope="module")
def spelling(short: Subject) -> Spelling:
    compressed = short.compressed()
    return Spelling(compressed.network, compressed.vocabulary)


@pytest.fixture(scope="module")
def kept(short: Subject) -> frozenset[int]:
    return frozenset(short.compressed().vocabulary.ids.tolist())


def said(tokens: Sequence[int]) -> bytes:
    return b"".join(TEXTS[token] for token in tokens)


def test_what_is_gone_and_no_text_is_left_out(spelling: Spelling, kept: frozenset[int]) -> None:
    timestamps = [token for token in range(TOKENIZER.timestamp_begin, DIMENSIONS.n_vocab) if token not in kept]
    assert timestamps
    tokens = torch.tensor([TOKENIZER.sot, *timestamps[:3], TOKENIZER.eot])
    assert spelling.of(tokens).tolist() == [TOKENIZER.sot, TOKENIZER.eot]


@given(tokens=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=8))
@settings(deadline=None)
def test_the_text_stays_in_tokens_that_stayed(spelling: Spelling, kept: frozenset[int], tokens: list[int]) -> None:
    found = spelling.of(torch.tensor(tokens)).tolist()
    assert set(found) <= kept
    assert said(found) == said(tokens)[: len(said(found))]
    assert len(found) == DIMENSIONS.n_text_ctx or said(found) == said(tokens)


def test_tokens_are_spelled_as_tiktoken_does_with_those_that_stayed(spelling: Spelling, kept: frozenset[int]) -> None:
    ranks = {TEXTS[token]: token for token in kept if token < len(TEXTS)}
    second = tiktoken.Encoding("kept", pat_str=TOKENIZER.encoding._pat_str, mergeable_ranks=ranks, special_tokens={})
    for token in range(0, len(TEXTS), 7):
        assert spelling.of(torch.tensor([token])).tolist() == second._encode_single_piece(TEXTS[token])


def test_prompts_and_ends_stay_and_long_texts_are_cut(spelling: Spelling) -> None:
    special = torch.tensor([*TOKENIZER.sot_sequence_including_notimestamps, TOKENIZER.eot])
    assert torch.equal(spelling.of(special), special)
    assert len(spelling.of(torch.arange(40000, 40100))) == DIMENSIONS.n_text_ctx


def test_a_lost_token_gives_its_probability_to_the_first_of_its_spelling(
    spelling: Spelling, kept: frozenset[int]
) -> None:
    logits = 3 * torch.randn(2, 51864, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, 51864, dtype=torch.float64)
    for token, probability in enumerate(logits.double().exp().T):
        if token in kept:
            expected[:, token] += probability
        elif token < len(TEXTS):
            expected[:, int(spelling.of(torch.tensor([token]))[0])] += probability
    torch.testing.assert_close(spelling.folded(logits).exp().double(), expected, rtol=1e-4, atol=0)


def test_a_multilingual_whisper_has_a_token_without_a_text_that_nothing_is_spelled_for() -> None:
    texts = text_tokens(get_tokenizer(True))
    (empty,) = (token for token, text in enumerate(texts) if not text)
    network = random_network(replace(DIMENSIONS, n_vocab=51865))
    bytes_and_specials = [*range(256), *range(len(texts), 51865)]
    spelling = Spelling(network, keep_embedding_rows(network, torch.tensor(bytes_and_specials)))
    assert spelling.of(torch.tensor([empty])).tolist() == []
    assert (
        b"".join(texts[t] for t in spelling.of(torch.tensor([40000, empty, 300])).tolist()) == texts[40000] + texts[300]
    )
    probabilities = torch.randn(1, 51865).softmax(-1)
    folded = spelling.folded(probabilities.log()).exp()
    torch.testing.assert_close(folded.sum(), 1 - probabilities[0, empty], rtol=1e-4, atol=0)


def test_a_whole_vocabulary_is_spelled_as_it_is(model: LoadedModel) -> None:
    whole = Spelling(model.network, Vocabulary.whole(51864))
    logits, tokens = torch.randn(2, 51864), torch.randint(0, 51864, (20,))
    assert torch.equal(whole.folded(logits), logits)
    assert torch.equal(whole.of(tokens), tokens)


def test_the_loss_is_that_over_the_rows_that_stayed(model: LoadedModel, short: Subject, spelling: Spelling) -> None:
    """Computed in rows of the shorter embedding, where the implementation works with the original's ids."""
    values = TrainingSettings(steps=1, soft=0.7, hard=0.3)
    student, nothing = WhisperStudent(short, "decoder", "distill", values), Matching()
    teacher = Teacher(model.network, "decoder", nothing, values, spelling=spelling)
    batch = SpelledBatches(batches=BATCHES, spelling=spelling).load(0, (1, 2))
    network, rows = student.network, student.vocabulary.rows
    with torch.no_grad():
        loss = Distillation(student, teacher, values, matching=nothing)(batch)
        encoded = encode(model.network, batch.mel)
        ours = network.decoder(rows[batch.inputs], encoded)[batch.rows]
        theirs = spelling.folded(model.network.decoder(batch.inputs, encoded)[batch.rows])[:, student.vocabulary.ids]
        soft = soft_loss(ours, SoftTargets.of(theirs, temperature=2.0, k=64), temperature=2.0)
        expected = 0.7 * soft + 0.3 * functional.cross_entropy(ours, rows[batch.targets])
    assert ours.shape[1] == DIMENSIONS.embedding_rows(2048)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train_embedding", [False, True])
def test_a_network_learns_to_spell_and_its_weights_fit(short: Subject, train_embedding: bool) -> None:
    values = TrainingSettings(
        steps=30, evaluate_every=10, learning_rate=3e-3, soft=0.0, train_embedding=train_embedding
    )
    training = WhisperTraining(short, "distill", values)
    done = training.run(BATCHES, LIMITS, checkpoint=None, watch=lambda _: None)
    losses = [point.training_loss for point in done.points if point.training_loss is not None]
    assert losses[-1] < 0.9 * losses[0]
    better, weights = recovered_recipe(short, "distill", training.weights())
    again = compress(short.model, better, CALIBRATION, weights)
    assert torch.equal(again.vocabulary.ids, short.compressed().vocabulary.ids)
    trained = training.student.network.decoder
    for name, parameter in (
        ("ln.weight", trained.ln.weight),
        ("token_embedding.weight", trained.token_embedding.weight),
    ):
        torch.testing.assert_close(again.network.decoder.get_parameter(name), parameter.half().float(), rtol=0, atol=0)


def test_a_refitted_network_with_few_tokens_comes_nearer_to_its_original(
    model: LoadedModel, spelling: Spelling
) -> None:
    samples = [
        CalibrationSample(mel=clip.mel, tokens=clip.tokens, prompt_length=clip.prompt_length) for clip in BATCHES.clips
    ]
    original = Recipe.original(DIMENSIONS)
    layer = original.decoder[0]
    assert layer
    changes = {"decoder": (replace(layer, ffn_channels=100),), "vocabulary": 2048, "vocabulary_language": "en"}
    measured = replace(measure(model, samples), token_counts=CALIBRATION.token_counts)
    before = replace(subject(model, **changes), calibration=measured)
    recipe, weights = recovered_recipe(before, "reconstruct", reconstruct(before, samples))
    after = replace(before, recipe=recipe, recovered=weights)

    whole = Compressed.original(model.network)

    def error(subject: Subject) -> float:
        ours, total = subject.compressed(), 0.0
        with torch.no_grad():
            for sample in samples:
                tokens = spelling.of(sample.tokens).unsqueeze(0)
                total += float((_last(ours, tokens, sample.mel) - _last(whole, tokens, sample.mel)).square().sum())
        return total

    assert error(after) < 0.8 * error(before)


def _last(compressed: Compressed, tokens: Tensor, mel: Tensor) -> Tensor:
    """The decoder's last states."""
    network = compressed.network
    return decoder_states(network, compressed.vocabulary.rows[tokens], encode(network, mel.unsqueeze(0)))[-1]


def test_a_shorter_vocabulary_changes_the_decoder(short: Subject) -> None:
    assert changed_part(short.recipe, Recipe.original(DIMENSIONS), "auto") == "decoder"


def test_batches_keep_clips_mels_and_rows(spelling: Spelling) -> None:
    spelled = SpelledBatches(batches=BATCHES, spelling=spelling)
    assert spelled.plan(3) == BATCHES.plan(3)
    (before,), (after,) = BATCHES.held_out(), spelled.held_out()
    assert torch.equal(after.mel, before.mel)
    for clip, own in zip(before.clips, after.clips, strict=True):
        assert own == replace(clip, tokens=own.tokens)
        assert torch.equal(own.tokens, spelling.of(clip.tokens))
    assert torch.equal(after.rows, batch_of(after.clips).rows)
