"""Divergence from the original, against torch's own."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from whisper.audio import log_mel_spectrogram, pad_or_trim

from common.errors import EvaluationError
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.vocabulary import keep_embedding_rows
from compression.whisper.load import LoadedModel
from evaluators.accuracy import divergence_meter
from evaluators.accuracy.divergence import Divergence
from evaluators.accuracy.divergence_meter import DivergenceMeter
from evaluators.accuracy.known_divergences import KnownDivergences
from evaluators.accuracy.known_transcripts import KnownTranscripts
from evaluators.speech.divergence_clips import DivergenceClip, draw_clips
from evaluators.speech.speech_set import SpeechSet
from runtime.audio import SAMPLE_RATE


@pytest.fixture(scope="module")
def clips(sample: SpeechSet) -> tuple[DivergenceClip, ...]:
    return draw_clips(sample.utterances, 3, seed=0, widen=True)


@pytest.fixture(scope="module")
def meter(tiny_en: LoadedModel, clips: tuple[DivergenceClip, ...]) -> DivergenceMeter:
    return DivergenceMeter(tiny_en, clips)


@pytest.fixture(scope="module")
def four_bits(tiny_en: LoadedModel) -> Compressed:
    recipe = replace(Recipe.original(tiny_en.dimensions), group_size=32)
    return compress(tiny_en, recipe.with_each_layer(attention_bits=4, ffn_bits=4))


def log_probs(network: nn.Module, clip: DivergenceClip, tokens: Tensor) -> Tensor:
    """By Whisper's own forward pass: (tokens behind the prompt, n_vocab)."""
    mel = log_mel_spectrogram(pad_or_trim(torch.from_numpy(clip.samples)), 80)
    with torch.no_grad():
        return network(mel[None], tokens[None, :-1])[0, 1:].log_softmax(-1)


def said(meter: DivergenceMeter, clip: int) -> Tensor:
    return meter._references[clip].tokens


@pytest.mark.parametrize("window_s", [30.0, 15.0])
def test_the_original_does_not_diverge_in_any_window(meter: DivergenceMeter, tiny_en: LoadedModel, window_s) -> None:
    found = meter.measure(Compressed.original(tiny_en.network), window_s=window_s)
    assert found.mean == pytest.approx(0.0, abs=1e-7)
    assert found.clips == meter.clips == 3


def test_it_is_torch_s_divergence_of_whisper_s_own_forward_pass(meter, clips, four_bits, tiny_en) -> None:
    found = meter.measure(four_bits, window_s=30.0)
    for index, clip in enumerate(clips):
        tokens = said(meter, index)
        before, after = (log_probs(network, clip, tokens) for network in (tiny_en.network, four_bits.network))
        expected = float(functional.kl_div(after, before, reduction="sum", log_target=True))
        assert found.nats[index] == pytest.approx(expected, rel=1e-3)
        assert found.tokens[index] == len(tokens) - 2  # English-only: two tokens of prompt
        assert found.nats[index] > 0


def test_a_shorter_vocabulary_costs_the_mass_that_it_leaves_out(meter, clips, tiny_en) -> None:
    tokens = said(meter, 0)
    gone = int(tokens[4])
    kept = torch.tensor([i for i in range(tiny_en.dimensions.n_vocab) if i != gone])
    shorter = compress(tiny_en, Recipe.original(tiny_en.dimensions))
    vocabulary = keep_embedding_rows(shorter.network, kept)
    found = meter.measure(replace(shorter, vocabulary=vocabulary), window_s=30.0)
    # nothing else changed: what is left of the original's probabilities is the network's own distribution
    masses = 1 - log_probs(tiny_en.network, clips[0], tokens)[:, gone].exp()
    # float32 tells 1 - 0.998 to a thousandth
    assert found.nats[0] == pytest.approx(float(-masses.log().sum()), rel=5e-3)


def test_measuring_ends_when_it_is_enough_and_begins_with_the_same_clips(meter, four_bits) -> None:
    whole = meter.measure(four_bits, window_s=15.0)
    part = meter.measure(four_bits, window_s=15.0, encoder_key="one", enough=lambda found: found.clips == 2)
    assert part == whole.of_first(2)
    assert meter.measure(four_bits, window_s=15.0, encoder_key="one") == whole
    assert meter.measure(four_bits, window_s=15.0, known=part) == whole
    first = Divergence(nats=(0.5,), tokens=whole.tokens[:1])
    assert meter.measure(four_bits, window_s=15.0, known=first).nats == (0.5, *whole.nats[1:])  # not measured again


def test_logits_that_are_not_finite_are_an_error(meter, tiny_en) -> None:
    broken = compress(tiny_en, Recipe.original(tiny_en.dimensions))
    with torch.no_grad():
        broken.network.decoder.ln.weight.fill_(torch.nan)
    with pytest.raises(EvaluationError, match="not finite"):
        meter.measure(broken, window_s=15.0)


def test_clips_without_words_say_nothing(tiny_en) -> None:
    silence = DivergenceClip(name="a", samples=torch.zeros(SAMPLE_RATE).numpy(), language="en")
    heard = DivergenceMeter(tiny_en, [silence])
    try:
        measured = heard.measure(Compressed.original(tiny_en.network), window_s=15.0)
    except EvaluationError as error:
        assert "says nothing" in str(error)  # noqa: PT017 - tiny.en may as well make a word of silence
    else:
        assert measured.clips == 1


def test_what_was_measured_is_known_to_the_next_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WHISPERFIT_CACHE", str(tmp_path))
    first, second = (Divergence(nats=(0.1, 0.3), tokens=(5, 7)), Divergence(nats=(2.0,), tokens=(3,)))
    known = KnownDivergences("a model and clips")
    assert known.find("r1") is None
    known.keep("r1", first)
    known.keep("r2", second)
    (file,) = (tmp_path / "divergence").iterdir()
    with file.open("a") as handle:
        handle.write(json.dumps(["r3", [1.0], []]) + "\n" + '["r4", [0.1')
    again = KnownDivergences("a model and clips")
    assert [again.find(name) for name in ("r1", "r2", "r3", "r4")] == [first, second, None, None]
    assert KnownDivergences("other clips").find("r1") is None


def test_the_original_transcribes_the_clips_once_for_all_runs(tiny_en, clips, four_bits, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WHISPERFIT_CACHE", str(tmp_path))
    two = clips[:2]
    first = DivergenceMeter(tiny_en, two, KnownTranscripts("a")).measure(four_bits, window_s=15)
    [file] = tmp_path.glob("transcripts/*.json")
    with monkeypatch.context() as patch:
        patch.setattr(divergence_meter, "decode", None)
        again = DivergenceMeter(tiny_en, two, KnownTranscripts("a"))
        assert again.measure(four_bits, window_s=15) == first
        with pytest.raises(TypeError):
            DivergenceMeter(tiny_en, two, KnownTranscripts("b")).measure(four_bits, window_s=15)
    whole = file.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"[]", b"{}"):
        file.write_bytes(damaged)
        assert DivergenceMeter(tiny_en, two, KnownTranscripts("a")).measure(four_bits, window_s=15) == first
        assert file.read_bytes() == whole


def test_means_and_parts() -> None:
    divergence = Divergence.of([(1.0, 4), (0.5, 1), (3.0, 5)])
    assert (divergence.mean, divergence.clips) == (0.45, 3)
    assert divergence.of_first(2) == Divergence(nats=(1.0, 0.5), tokens=(4, 1))
