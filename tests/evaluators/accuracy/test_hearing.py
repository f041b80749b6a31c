"""A clip is heard part by part: the same parts in torch and on an artifact."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from whisper.model import Whisper, disable_sdpa

from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel
from compression.whisper.tokenizer import tokenizer_of
from evaluators.accuracy.decoding import Clip, Ending, Hypothesis, decode, joined
from evaluators.accuracy.evaluator import Evaluator
from evaluators.accuracy.hearing import Hearing
from evaluators.runtimes.verification import ArtifactRecogniser
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet, load_speech_set
from runtime.audio import SAMPLE_RATE
from runtime.pieces import energies
from runtime.unheard import POSITION_S, Listening
from tests.runtime.miniature import write_artifact


def hypothesis(*places_s: float, ending: Ending = "complete") -> Hypothesis:
    """Says " w0 w1 ...", and listened to the places meanwhile."""
    attention = np.eye(400, dtype=np.float32)[[round(place_s / POSITION_S) for place_s in places_s]]
    spellings = tuple(f" w{index}".encode() for index in range(len(places_s)))
    listening = Listening(spellings=spellings, attention=attention)
    text = b"".join(spellings).decode().strip()
    return Hypothesis(text=text, tokens=tuple(range(len(places_s))), ending=ending, listening=listening)


def bursts() -> np.ndarray:
    """Sound from 0 to 2 s, from 5 to 6 s, and from 7 to 8 s."""
    samples = np.random.default_rng(0).normal(0, 0.1, 8 * SAMPLE_RATE).astype(np.float32)
    samples[2 * SAMPLE_RATE : 5 * SAMPLE_RATE] = samples[6 * SAMPLE_RATE : 7 * SAMPLE_RATE] = 0
    return energies(samples)


def test_the_second_part_begins_before_the_sound_and_has_the_tokens_that_are_left(sample: SpeechSet) -> None:
    hearing = Hearing(replace(sample.utterances[0], duration_s=8.0), 10, draft=tuple(range(8)))
    hearing.take(hypothesis(0.5, 1.0, 1.5), bursts())
    assert not hearing.is_whole
    assert hearing.start / SAMPLE_RATE == pytest.approx(4.5, abs=0.05)
    clip = hearing.clip(torch.zeros(1, 1))
    assert (clip.max_tokens, clip.draft) == (7, (3, 4, 5, 6, 7))
    assert clip.audio_s == pytest.approx(3.5, abs=0.05)
    hearing.take(hypothesis(1.0, 3.0), bursts())
    assert hearing.is_whole
    whole = joined(hearing.parts)
    assert (whole.text, whole.tokens, whole.ending) == ("w0 w1 w2 w0 w1", (0, 1, 2, 0, 1), "complete")


def test_what_is_said_behind_a_sound_that_was_passed_over_is_said_again(sample: SpeechSet) -> None:
    """Its tokens count once."""
    hearing = Hearing(replace(sample.utterances[0], duration_s=8.0), 10)
    hearing.take(hypothesis(0.5, 1.0, 7.2, 7.5), bursts())
    assert (hearing.parts[0].text, hearing.parts[0].tokens, hearing.tokens_left) == ("w0 w1", (0, 1), 8)
    assert hearing.start / SAMPLE_RATE == pytest.approx(4.5, abs=0.05)


@pytest.mark.parametrize(
    "said",
    [
        hypothesis(0.5, 5.5, 7.5),
        replace(hypothesis(0.5), listening=None),
        hypothesis(*[1.5] * 10, ending="limit"),
        hypothesis(*[0.5] * 8, 7.2, 7.5, ending="limit"),
        hypothesis(1.5, ending="loop"),
    ],
)
def test_a_hearing_ends(said: Hypothesis, sample: SpeechSet) -> None:
    """Where the text covers the clip, nobody looked, no token is left, or it is a loop; with the whole text."""
    hearing = Hearing(sample.utterances[0], 10)
    hearing.take(said, bursts())
    assert hearing.is_whole
    assert joined(hearing.parts) == said


def test_where_a_text_listened_is_told_by_the_last_blocks_attention(pruned: Whisper) -> None:
    """Against the module's own weights, all tokens at once; with and without drafts."""
    features = torch.randn(200, pruned.dims.n_audio_state, generator=torch.Generator().manual_seed(1))
    clip = Clip(features=features, language="en", max_tokens=30, audio_s=3.0)
    (said,) = decode(Compressed.original(pruned), [clip])
    (drafted,) = decode(Compressed.original(pruned), [replace(clip, draft=said.tokens)])
    tokenizer, scores = tokenizer_of(pruned, "en"), list[torch.Tensor]()
    prompt = tokenizer.sot_sequence_including_notimestamps
    cross = pruned.decoder.blocks[-1].cross_attn
    hook = cross.register_forward_hook(lambda _, __, out: scores.append(out[1]))
    with disable_sdpa(), torch.inference_mode():
        pruned.decoder(torch.tensor([[*prompt, *said.tokens]]), features[None])
    hook.remove()
    attention = scores[0][0].softmax(-1).mean(0)[len(prompt) - 1 : -1].numpy()
    assert said.listening is not None
    assert drafted.listening is not None
    np.testing.assert_allclose(said.listening.attention, attention[:, :150], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(drafted.listening.attention, attention[:, :150], rtol=1e-3, atol=1e-4)
    assert b"".join(said.listening.spellings).decode("utf-8", "replace").strip() == said.text


@pytest.mark.shared
def test_the_speech_behind_a_pause_is_heard_in_torch_and_by_the_artifact(
    tiny_en: LoadedModel, shared_speech: Path, tmp_path: Path
) -> None:
    """LibriSpeech 1363-135842-0000, of which tiny.en alone says "Chapter 34."."""
    lines = (shared_speech / "splits" / "read_calibration.jsonl").read_text(encoding="utf-8").splitlines()
    entry = next(e for e in map(json.loads, lines) if e["id"] == "1363-135842-0000")
    entry["audio"] = str((shared_speech / "splits" / entry["audio"]).resolve())
    (tmp_path / "set.jsonl").write_text(json.dumps(entry) + "\n", encoding="utf-8")
    speech = load_speech_set(tmp_path / "set.jsonl")
    evaluator = Evaluator(speech, dimensions=tiny_en.dimensions, features=CachedFeatures(n_mels=80, folder=tmp_path))
    folder = write_artifact(tiny_en.network, tmp_path / "artifact")
    (artifact,) = evaluator.evaluate_transcripts(ArtifactRecogniser(folder, threads=1)).utterances
    (in_torch,) = evaluator.evaluate(Compressed.original(tiny_en.network), window_s=30.0).utterances
    assert artifact.hypothesis == in_torch.hypothesis
    assert in_torch.counts.deletions <= 1
    assert "Billy" in in_torch.hypothesis.text
