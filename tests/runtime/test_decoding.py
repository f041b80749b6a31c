"""Greedy, beam search and sampling, against openai-whisper and the evaluator on the same weights."""

from itertools import product

import numpy as np
import pytest
import torch
import whisper
from whisper.decoding import DecodingResult
from whisper.model import Whisper

from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel
from compression.whisper.network import encode
from evaluators.accuracy.decoding import Clip
from evaluators.accuracy.decoding import decode as evaluator_decode
from runtime.artifact import Artifact
from runtime.audio import Floats
from runtime.decoding import (
    BEST_OF,
    Decoded,
    DecodingOptions,
    PromptedWindow,
    compression_ratio,
    decode,
    open_window,
)
from runtime.errors import ArtifactError
from runtime.mel import log_mel
from runtime.model import Model
from runtime.tokens import Vocabulary
from runtime.transcribe import Transcriber
from tests.runtime.conftest import MULTILINGUAL_VOCABULARY, small_network, tensor
from tests.runtime.fakes import END, START, VOCABULARY, FakeText, Rule
from tests.runtime.miniature import tokenizer_of, write_artifact


def opened(transcriber: Transcriber, mel: Floats) -> PromptedWindow:
    window = transcriber.model.encode(mel)
    return open_window(window, transcriber.artifact.vocabulary, language="en", task="transcribe")


def whisper_says(network: Whisper, mel: Floats, **options: object) -> DecodingResult:
    return whisper.decode(network, tensor(mel), without_timestamps=True, fp16=False, **options)


def assert_same(said: Decoded, opening: PromptedWindow, expected: DecodingResult) -> None:
    assert (said.text, said.tokens) == (expected.text, tuple(expected.tokens))
    assert said.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-4)
    assert opening.no_speech_prob == pytest.approx(expected.no_speech_prob, rel=1e-3)
    assert said.compression_ratio == expected.compression_ratio


@pytest.mark.parametrize("frames", [3000, 1500])
@torch.inference_mode()
def test_greedy_is_that_of_the_evaluator(
    tiny: Transcriber, tiny_en: LoadedModel, clips: list[Floats], frames: int
) -> None:
    mels = [log_mel(samples, 80)[:, :frames] for samples in clips]
    heard = [encode(tiny_en.network, tensor(mel)[None])[0] for mel in mels]
    limits = (224, 224, 7, 224, 1)
    wanted = [Clip(features=one, language="en", max_tokens=most) for one, most in zip(heard, limits, strict=True)]
    said = [
        decode(opened(tiny, mel), tiny.artifact.vocabulary, DecodingOptions(max_tokens=most))
        for mel, most in zip(mels, limits, strict=True)
    ]
    expected = evaluator_decode(Compressed.original(tiny_en.network), wanted)
    assert [(s.text, s.tokens, s.ending) for s in said] == [(e.text, e.tokens, e.ending) for e in expected]


def test_greedy_is_whisper_decode(tiny: Transcriber, tiny_en: LoadedModel, clips: list[Floats]) -> None:
    for samples in clips[:3]:
        mel = log_mel(samples, 80)
        opening = opened(tiny, mel)
        said = decode(opening, tiny.artifact.vocabulary, DecodingOptions(max_tokens=224))
        assert_same(said, opening, whisper_says(tiny_en.network, mel, language="en"))


def test_five_beams_are_those_of_whisper_decode(tiny: Transcriber, tiny_en: LoadedModel, clips: list[Floats]) -> None:
    for samples in clips[:3]:
        mel = log_mel(samples, 80)
        opening = opened(tiny, mel)
        said = decode(opening, tiny.artifact.vocabulary, DecodingOptions(max_tokens=224, beams=5))
        assert_same(said, opening, whisper_says(tiny_en.network, mel, language="en", beam_size=5))


def ending_network(vocabulary: int, bias: float) -> Whisper:
    """Random weights, and an end token whose logit is raised."""
    network = small_network(vocabulary)
    end = tokenizer_of(network).eot
    direction = torch.nn.functional.normalize(torch.randn(64, generator=torch.Generator().manual_seed(1)), dim=0)
    with torch.no_grad():
        network.decoder.ln.bias.copy_(direction)
        network.decoder.token_embedding.weight[end] = bias * direction
    return network


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # whisper passes a tensor to np.argsort
@pytest.mark.parametrize(("bias", "ending"), [(0.0, "limit"), (6.0, "complete"), (9.0, "complete")])
def test_searches_of_random_networks_are_those_of_whisper(
    tmp_path_factory: pytest.TempPathFactory, bias: float, ending: str
) -> None:
    network = ending_network(MULTILINGUAL_VOCABULARY, bias)
    artifact = Artifact.open(write_artifact(network, tmp_path_factory.mktemp("random") / "artifact"))
    model, vocabulary = Model(artifact, threads=1), artifact.vocabulary
    for seed, (beams, task) in enumerate(product((1, 2, 5), ("transcribe", "translate"))):
        mel = np.random.default_rng(seed).normal(size=(80, 3000)).astype(np.float32)
        opening = open_window(model.encode(mel), vocabulary, language=None, task=task)
        said = decode(opening, vocabulary, DecodingOptions(max_tokens=32, beams=beams))
        expected = whisper_says(network, mel, task=task, beam_size=beams if beams > 1 else None)
        assert opening.language == expected.language
        # of the text, whisper spells special tokens out, which only random weights say
        assert (said.tokens, said.ending) == (tuple(expected.tokens), ending)
        assert said.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-4)
        assert opening.no_speech_prob == pytest.approx(expected.no_speech_prob, rel=1e-3)


def fake_opening(rule: Rule) -> PromptedWindow:
    return open_window(FakeText(rule=rule), VOCABULARY, language=None, task="transcribe")


def says(*script: int) -> Rule:
    """A rule that says the script, nearly certainly, and then ends."""
    prompt = 2

    def rule(seen: tuple[int, ...]) -> list[float]:
        place = max(0, len(seen) - prompt)
        wanted = script[place] if place < len(script) else END
        return [9.0 if token == wanted else 0.0 for token in range(VOCABULARY.size)]

    return rule


@pytest.mark.parametrize("options", [DecodingOptions(max_tokens=9), DecodingOptions(max_tokens=9, beams=3)])
def test_the_end_of_a_transcript(options: DecodingOptions) -> None:
    said = decode(fake_opening(says(0, 1, 2)), VOCABULARY, options)
    assert (said.text, said.tokens, said.ending) == ("a b c", (0, 1, 2), "complete")
    long = decode(fake_opening(says(*[0, 1, 2] * 4)), VOCABULARY, options)
    assert (long.tokens, long.ending) == ((0, 1, 2) * 3, "limit")


@pytest.mark.parametrize("options", [DecodingOptions(max_tokens=224), DecodingOptions(max_tokens=224, beams=3)])
def test_a_loop_ends_early(options: DecodingOptions) -> None:
    said = decode(fake_opening(says(4, *[0, 1, 2] * 100)), VOCABULARY, options)
    assert (said.tokens, said.ending) == ((4, *(0, 1, 2) * 16), "loop")
    assert said.text == VOCABULARY.text((4, 0, 1, 2)).strip()
    assert said.compression_ratio == compression_ratio(VOCABULARY.text(said.tokens).strip())


def test_nothing_but_what_may_be_said_is_said() -> None:
    said = decode(fake_opening(says(END, START, 3)), VOCABULARY, DecodingOptions(max_tokens=9))
    assert END not in said.tokens[:1]
    assert START not in said.tokens


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("beams", [1, 3])
def test_logits_that_are_not_finite_are_an_error(value: float, beams: int) -> None:
    opening = fake_opening(lambda seen: [value] * VOCABULARY.size if len(seen) > 2 else says(0)(seen))
    with pytest.raises(ArtifactError, match="not finite"), np.errstate(invalid="ignore"):
        decode(opening, VOCABULARY, DecodingOptions(max_tokens=9, beams=beams))


LOGITS = np.array([1.0, 0.5, -0.3, 0.0, 0.2, -1.0])


def drawing(seen: tuple[int, ...]) -> list[float]:
    """Any word as the first token, then the end."""
    if len(seen) > 2:
        return [-50.0] * END + [50.0, -50.0, -50.0]
    return [*LOGITS, 0, 0, 0, 0]


@pytest.mark.parametrize("temperature", [0.4, 1.0])
def test_the_likeliest_of_five_draws_by_brute_force(temperature: float) -> None:
    options = DecodingOptions(max_tokens=9, temperature=temperature, rng=np.random.default_rng(0))
    said = [decode(fake_opening(drawing), VOCABULARY, options).tokens[0] for _ in range(4000)]
    drawn = np.exp(LOGITS / temperature) / np.exp(LOGITS / temperature).sum()
    ranked = np.argsort(-LOGITS)
    # the likeliest of five is at most the k-th when all five are
    at_least = np.cumsum(drawn[ranked][::-1])[::-1] ** BEST_OF
    expected = at_least - np.append(at_least[1:], 0)
    counts = np.bincount(said, minlength=len(LOGITS))[ranked] / len(said)
    np.testing.assert_allclose(counts, expected, atol=0.03)


def test_a_draw_tells_its_probability_at_temperature_1() -> None:
    said = decode(fake_opening(drawing), VOCABULARY, DecodingOptions(max_tokens=9, temperature=0.2))
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum()
    assert said.avg_logprob == pytest.approx(np.log(probabilities[said.tokens[0]]) / 2, abs=1e-6)


def test_the_same_seed_draws_the_same() -> None:
    def drawn(seed: int) -> list[tuple[int, ...]]:
        options = DecodingOptions(max_tokens=20, temperature=1.0, rng=np.random.default_rng(seed))
        rule: Rule = lambda seen: [*LOGITS, 0, -3, 0, 0]  # noqa: E731
        return [decode(fake_opening(rule), VOCABULARY, options).tokens for _ in range(3)]

    assert drawn(0) == drawn(0) != drawn(1)


def test_a_model_without_a_no_speech_token_tells_no_probability(small_artifact) -> None:
    artifact = Artifact.open(small_artifact)
    special = artifact.vocabulary.special
    lacking = Vocabulary(special.__class__(**{**vars(special), "no_speech": None}), [b""] * artifact.vocabulary.size)
    window = Model(artifact, threads=1).encode(np.zeros((80, 100), np.float32))
    assert open_window(window, lacking, language=None, task="transcribe").no_speech_prob is None
