"""Batched decoding against openai-whisper's own decoding and against a loop without any cache."""

import copy
import random
from dataclasses import replace

import pytest
import torch
import whisper
from torch import Tensor
from whisper.decoding import DecodingTask
from whisper.model import Linear, Whisper

from common.errors import EvaluationError
from compression.techniques.activations import DynamicLinear
from compression.techniques.compressed import Compressed, Vocabulary
from compression.techniques.vocabulary import keep_embedding_rows
from compression.whisper.load import LoadedModel
from compression.whisper.network import encode
from compression.whisper.tokenizer import tokenizer_of
from evaluators.accuracy import decoding
from evaluators.accuracy.decoding import Clip, Hypothesis
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet
from tests.evaluators.conftest import ENGLISH_VOCABULARY, MULTILINGUAL_VOCABULARY, linears, pruned_network


def decode(network: Whisper, clips: list[Clip], vocabulary: Vocabulary | None = None) -> tuple[Hypothesis, ...]:
    """By default with all tokens."""
    compressed = Compressed.original(network)
    return decoding.decode(replace(compressed, vocabulary=vocabulary or compressed.vocabulary), clips)


def options(language: str) -> whisper.DecodingOptions:
    return whisper.DecodingOptions(language=language, without_timestamps=True, fp16=False)


@torch.inference_mode()
def spelled_out(network: Whisper, features: Tensor, language: str, max_tokens: int) -> tuple[int, ...]:
    """Greedy tokens by a full forward pass of the whole prefix for every token, with whisper's own filters."""
    task = DecodingTask(network, options(language))
    tokens = torch.tensor([task.initial_tokens])
    while tokens.shape[1] - task.sample_begin < min(max_tokens, task.sample_len):
        logits = network.logits(tokens, features[None])[:, -1]
        for rule in task.logit_filters:
            rule.apply(logits, tokens)
        choice = logits.argmax(-1)
        if choice.item() == task.tokenizer.eot:
            break
        tokens = torch.cat([tokens, choice[None]], dim=1)
    return tuple(tokens[0, task.sample_begin :].tolist())


def clips_of(features: list[Tensor], language: str = "en") -> list[Clip]:
    return [Clip(features=one, language=language, max_tokens=15 + 5 * i) for i, one in enumerate(features)]


@pytest.fixture(scope="module")
def features() -> list[Tensor]:
    """Encoder outputs of four windows."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(positions, 64, generator=generator) for positions in (30, 75, 75, 150)]


def quantising(network: Whisper) -> Whisper:
    """The network with every linear layer rounding its input, to 16 bits.

    At 8 bits the last digit of a float32 sum, which depends on the shape of a product, can decide a rounding
    that this chaotic network turns into another token.
    """
    network = copy.deepcopy(network)
    for name, linear in linears(network).items():
        assert isinstance(linear, Linear)
        sees_clip = name.endswith(("cross_attn.key", "cross_attn.value"))
        network.set_submodule(name, DynamicLinear(linear, bits=16, range_over="clip" if sees_clip else "token"))
    return network


@pytest.mark.parametrize(("language", "quantised"), [("en", False), ("de", False), ("en", True)])
def test_a_pruned_network_says_what_a_loop_without_cache_says(
    features: list[Tensor], language: str, quantised: bool
) -> None:
    network = pruned_network(ENGLISH_VOCABULARY if language == "en" else MULTILINGUAL_VOCABULARY)
    network = quantising(network) if quantised else network
    clips = clips_of(features, language)
    expected = [spelled_out(network, clip.features, language, clip.max_tokens) for clip in clips]
    assert [hypothesis.tokens for hypothesis in decode(network, clips)] == expected
    assert len({token for tokens in expected for token in tokens}) > 20


@torch.inference_mode()
def spelled_out_among(kept: Tensor, network: Whisper, clip: Clip) -> tuple[int, ...]:
    """`spelled_out` by a whole network that may not say what is not kept."""
    whole = copy.deepcopy(network)
    step = whole.logits

    def some(tokens: Tensor, features: Tensor) -> Tensor:
        logits = torch.full((*tokens.shape, network.dims.n_vocab), -torch.inf)
        logits[..., kept] = step(tokens, features)[..., kept]
        return logits

    whole.logits = some
    return spelled_out(whole, clip.features, clip.language, clip.max_tokens)


@pytest.mark.parametrize("language", ["en", "de"])
def test_a_shorter_vocabulary_says_what_a_whole_one_says_that_may_not_say_the_rest(
    features: list[Tensor], language: str
) -> None:
    network = pruned_network(ENGLISH_VOCABULARY if language == "en" else MULTILINGUAL_VOCABULARY)
    special = torch.arange(network.dims.n_vocab - 1608, network.dims.n_vocab - 1500)
    kept = torch.cat([torch.arange(0, 20000, 7), torch.tensor([220]), special]).unique()
    clips = clips_of(features, language)
    expected = [spelled_out_among(kept, network, clip) for clip in clips]
    before = [hypothesis.tokens for hypothesis in decode(network, clips)]
    vocabulary = keep_embedding_rows(network, kept)
    found = decode(network, clips, vocabulary)
    assert [hypothesis.tokens for hypothesis in found] == expected != before
    assert {token for tokens in expected for token in tokens} <= set(kept.tolist())
    drafted = [replace(clip, draft=draft) for clip, draft in zip(clips, [*before[1:], expected[0]], strict=True)]
    assert decode(network, drafted, vocabulary) == found


def test_the_language_is_in_the_prompt(features: list[Tensor]) -> None:
    network = pruned_network(MULTILINGUAL_VOCABULARY)
    german, spanish = (Clip(features=features[0], language=code, max_tokens=20) for code in ("de", "es"))
    assert decode(network, [german])[0].tokens != decode(network, [spanish])[0].tokens


@pytest.mark.parametrize("told", ["en", "de"])
def test_the_detected_language_is_whispers_own_whatever_the_prompt_says(told: str) -> None:
    network = pruned_network(MULTILINGUAL_VOCABULARY)
    generator = torch.Generator().manual_seed(2)
    whole = [torch.randn(network.dims.n_audio_ctx, 64, generator=generator) for _ in range(3)]
    expected = [max(whisper.detect_language(network, heard)[1].items(), key=lambda item: item[1])[0] for heard in whole]
    clips = [Clip(features=heard, language=told, max_tokens=5 + number) for number, heard in enumerate(whole)]
    assert [hypothesis.detected for hypothesis in decode(network, clips)] == expected
    assert len(set(expected)) > 1
    special = torch.arange(network.dims.n_vocab - 1608, network.dims.n_vocab - 1500)
    vocabulary = keep_embedding_rows(network, torch.cat([torch.arange(0, 20000, 7), torch.tensor([220]), special]))
    assert [hypothesis.detected for hypothesis in decode(network, clips, vocabulary)] == expected


def test_an_english_network_detects_nothing(pruned: Whisper, features: list[Tensor]) -> None:
    assert {hypothesis.detected for hypothesis in decode(pruned, clips_of(features))} == {None}


def test_a_clip_says_the_same_in_any_batch(
    pruned: Whisper, features: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = clips_of(features)
    together = decode(pruned, clips)
    assert decode(pruned, clips[::-1]) == together[::-1]
    assert tuple(decode(pruned, [clip])[0] for clip in clips) == together
    monkeypatch.setattr(decoding, "CACHE_BYTES", 200_000)  # only one or two clips at a time
    assert decode(pruned, clips) == together


def misheard(tokens: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
    """The tokens with a quarter of them dropped, replaced or preceded by another."""
    draft: list[int] = []
    for token in tokens:
        other = rng.randrange(ENGLISH_VOCABULARY)
        draft += rng.choices([[token], [], [other], [other, token]], [9, 1, 1, 1])[0]
    return tuple(draft)


@pytest.mark.parametrize("seed", range(10))
def test_drafts_never_change_the_text(pruned: Whisper, features: list[Tensor], seed: int) -> None:
    rng = random.Random(seed)
    clips = clips_of(features)
    expected = decode(pruned, clips)
    drafts = [
        misheard(expected[0].tokens, rng),
        misheard(expected[1].tokens, rng),
        tuple(rng.randrange(ENGLISH_VOCABULARY) for _ in range(rng.randrange(300))),
        expected[3].tokens * 2,
    ]
    drafted = [
        Clip(features=clip.features, language="en", max_tokens=clip.max_tokens, draft=draft)
        for clip, draft in zip(clips, drafts, strict=True)
    ]
    assert decode(pruned, drafted) == expected


def test_a_right_draft_saves_steps(pruned: Whisper, features: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    step = decoding._step
    monkeypatch.setattr(decoding, "_step", lambda *arguments: (steps.append(1), step(*arguments)))
    (plain,) = decode(pruned, [Clip(features=features[0], language="en", max_tokens=32)])
    assert len(steps) == 32
    decode(pruned, [Clip(features=features[0], language="en", max_tokens=32, draft=plain.tokens)])
    assert len(steps) == 32 + 2


def test_the_text_of_the_original_is_that_of_whisper_decode(tiny_en: LoadedModel, sample: SpeechSet) -> None:
    mels = CachedFeatures(n_mels=80)
    with torch.inference_mode():
        heard = [encode(tiny_en.network, mels.mel(utterance)[None])[0] for utterance in sample.utterances[:5]]
    expected = [whisper.decode(tiny_en.network, heard_sound, options("en")) for heard_sound in heard]
    hypotheses = decode(
        tiny_en.network, [Clip(features=heard_sound, language="en", max_tokens=224) for heard_sound in heard]
    )
    assert [(h.text, list(h.tokens)) for h in hypotheses] == [(e.text, e.tokens) for e in expected]
    assert {hypothesis.ending for hypothesis in hypotheses} == {"complete"}


def test_logits_that_are_not_finite_are_an_error(pruned: Whisper, features: list[Tensor]) -> None:
    broken = copy.deepcopy(pruned)
    with torch.no_grad():
        broken.decoder.blocks[0].cross_attn.out.bias[0] = torch.nan
    with pytest.raises(EvaluationError, match="not finite"):
        decode(broken, clips_of(features))


def test_at_least_one_token_is_asked_for(features: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="max_tokens >= 1"):
        Clip(features=features[0], language="en", max_tokens=0)


def test_nothing_to_decode(pruned: Whisper) -> None:
    assert decode(pruned, []) == ()


def test_a_network_that_says_one_word_for_ever_is_stopped(features: list[Tensor]) -> None:
    network = pruned_network(ENGLISH_VOCABULARY)
    network.dims.n_text_ctx = 448
    with torch.no_grad():
        for block in network.decoder.blocks:
            for out in (block.attn.out, block.cross_attn.out, block.mlp[2]):
                out.weight.zero_()
                out.bias.zero_()
        network.decoder.positional_embedding = torch.nn.Parameter(torch.zeros(448, 64))
    (hypothesis,) = decode(network, [Clip(features=features[0], language="en", max_tokens=224)])
    assert (hypothesis.ending, len(hypothesis.tokens)) == ("loop", 48)
    assert len(set(hypothesis.tokens)) == 1
    assert hypothesis.text == tokenizer_of(network, "en").decode(list(hypothesis.tokens[:1])).strip()
