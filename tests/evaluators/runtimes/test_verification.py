"""Artifacts of the real tiny.en, and of made-up evaluations."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from common.errors import EvaluationError, InputError
from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.export.manifest import Sources, artifact_bytes, read_origin
from compression.export.targets import export
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel
from compression.whisper.network import encode
from evaluators.accuracy import evaluator as module
from evaluators.accuracy.evaluator import Evaluator
from evaluators.accuracy.sounds import BATTERY
from evaluators.accuracy.word_errors import count_errors
from evaluators.costs.price import stored_bytes
from evaluators.runtimes.own import ArtifactRecogniser, measure_apart
from evaluators.runtimes.verification import (
    original_transcribes,
    parity,
    timed_clips,
    verify,
)
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet, load_speech_set
from runtime.measure import Plan
from tests.conftest import eight_bits

PLAN = Plan(threads=1, repeats=1, reference_s=10.0, reference_tokens=5)


@pytest.fixture(scope="module")
def speech() -> SpeechSet:
    sample = load_speech_set(Path("sample"), language="en")
    return replace(sample, utterances=sample.utterances[:4])


@pytest.fixture(scope="module")
def evaluator(speech: SpeechSet, tiny_en: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    features = CachedFeatures(n_mels=80, folder=tmp_path_factory.mktemp("mel"))
    return Evaluator(speech, dimensions=tiny_en.dimensions, features=features)


def test_an_artifact_is_verified(artifact, evaluator, tiny_en, speech):
    recipe = read_origin(artifact).recipe
    network = compress(tiny_en, recipe)
    expected = evaluator.evaluate(network, window_s=recipe.window_s)
    found = verify(artifact, evaluator, PLAN, compressed=network, window_s=recipe.window_s)
    assert (found.parity.identical, found.parity.differences) == (len(speech.utterances), ())
    assert found.accuracy == expected.accuracy
    assert found.size_bytes == sum(file.stat().st_size for file in artifact.iterdir())
    assert found.size_bytes == pytest.approx(stored_bytes(tiny_en.dimensions, recipe), rel=0.03)
    assert found.on_silence == found.on_noise == ""
    assert found.groups == expected.groups
    assert [group.key.kind for group in found.groups]
    measured = found.measured
    assert (measured.threads, measured.clips, measured.reference_s) == (1, 4, 10.0)
    assert 0 < measured.token_ms < measured.utterance_ms
    assert 0 < measured.encoder_ms < measured.utterance_ms


def test_what_the_original_hears(artifact, tiny_en, speech):
    """Nothing where nobody speaks, like its artifact; words where somebody does; and no random numbers are used up."""
    recogniser = ArtifactRecogniser(artifact, threads=1)
    state = torch.random.get_rng_state()
    for name in ("silence", "faint noise", "noise"):
        sound = BATTERY[name]()
        assert (original_transcribes(tiny_en.network, sound), recogniser.transcribe(sound)) == ("", "")
    spoken = speech.utterances[1]
    heard = count_errors(
        utterance_id="u", speaker="s", reference=spoken.text, language="en",
        hypothesis=original_transcribes(tiny_en.network, spoken.samples()),
    )  # fmt: skip
    assert heard.errors <= 1
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_artifact_of_a_shorter_vocabulary_is_verified(evaluator, tiny_en, tmp_path):
    """Its tokens are the original's ids, although the artifact has its own."""
    recipe = replace(eight_bits(tiny_en), vocabulary=8192, vocabulary_language="en")
    counts = np.zeros(tiny_en.dimensions.n_vocab, np.int64)
    network = compress(
        tiny_en,
        recipe,
        Calibration(inputs={}, importances={}, gradient_squares={}, layer_importance={}, token_counts=counts),
    )
    export(tiny_en, recipe, network, tmp_path / "a", target="onnxruntime", sources=Sources(model="tiny.en"))
    in_torch = evaluator.evaluate(network, window_s=recipe.window_s)
    heard = evaluator.evaluate_transcripts(
        ArtifactRecogniser(tmp_path / "a", threads=1, ids=network.vocabulary.ids.tolist())
    )
    assert [utterance.hypothesis for utterance in heard.utterances] == [
        utterance.hypothesis for utterance in in_torch.utterances
    ]
    again = evaluator.evaluate(network, window_s=recipe.window_s, drafts=heard.drafts)
    assert again.utterances == in_torch.utterances
    assert artifact_bytes(tmp_path / "a") == pytest.approx(stored_bytes(tiny_en.dimensions, recipe), rel=0.03)


@pytest.mark.parametrize("window_s", [5.0, 15.0, 30.0])
def test_torch_and_artifact_hear_the_same_frames(window_s, artifact, evaluator, tiny_en, monkeypatch):
    """Same spectrogram, silence behind the clip included, and same number of positions, for any window of a recipe."""
    seen: dict[str, list[npt.NDArray[np.float32]]] = {"torch": [], "artifact": []}
    monkeypatch.setattr(
        module, "encode", lambda network, mel: (seen["torch"].append(mel[0].numpy()), encode(network, mel))[1]
    )
    evaluator.evaluate(Compressed.original(tiny_en.network), window_s=window_s)
    recogniser = ArtifactRecogniser(artifact, threads=1)
    recogniser._transcriber.artifact = replace(recogniser._transcriber.artifact, window_s=window_s)
    run = recogniser._transcriber.model.encode
    monkeypatch.setattr(
        recogniser._transcriber.model, "encode", lambda mel: (seen["artifact"].append(mel), run(mel))[1]
    )
    for utterance in evaluator._blocks[0]:
        recogniser(utterance, 5)
    assert len({mel.shape for mel in seen["torch"]}) >= (2 if window_s == 5 else 1)
    by_window = sorted(seen["artifact"], key=lambda mel: mel.shape[1])  # as the evaluator takes them
    for ours, theirs in zip(seen["torch"], by_window, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-4, rtol=0)


def test_ten_seconds_take_less_than_200_mb(artifact, speech):
    """The whole process, Python included, on one 10 s clip."""
    clips = [u for u in speech.utterances if u.duration_s <= 10]
    measured = measure_apart(artifact, (clips[0],), PLAN)
    assert measured.peak_rss_bytes < 200e6


def test_differences_are_listed(artifact, evaluator):
    artifacts = evaluator.evaluate_transcripts(ArtifactRecogniser(artifact, threads=1))
    first, *others = artifacts.utterances
    other = replace(first, hypothesis=replace(first.hypothesis, text="something else"))
    found = parity(artifacts, replace(artifacts, utterances=(other, *others)).texts)
    assert found.identical == len(others)
    assert [(difference.utterance_id, difference.artifact, difference.torch) for difference in found.differences] == [
        (first.counts.utterance_id, first.hypothesis.text, "something else")
    ]


def test_damage_is_told(artifact, evaluator, tiny_en, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in artifact.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = copy / "decoder.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match="decoder.onnx.data is damaged"):
        verify(copy, evaluator, PLAN, compressed=Compressed.original(tiny_en.network), window_s=30.0)
    with pytest.raises(EvaluationError, match="cannot be measured: .*decoder.onnx.data is damaged"):
        measure_apart(copy, timed_clips(evaluator.speech), PLAN)
    (copy / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="manifest.json is damaged"):
        read_origin(copy)
    with pytest.raises(InputError, match="is no artifact"):
        read_origin(tmp_path)


def test_only_what_the_manifest_lists_counts(artifact, tmp_path):
    listed = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert set(listed) | {"manifest.json"} == {file.name for file in artifact.iterdir()}
    assert artifact_bytes(artifact) == sum(file.stat().st_size for file in artifact.iterdir())


def test_timed_clips_are_of_median_length(speech):
    lengths = sorted(utterance.duration_s for utterance in speech.utterances)
    many = replace(speech, utterances=speech.utterances * 3)
    timed = sorted(utterance.duration_s for utterance in timed_clips(many))
    assert len(timed) == 5
    assert timed[2] == pytest.approx(np.median(sorted(lengths * 3)), abs=lengths[2] - lengths[1])
    assert len(timed_clips(speech)) == 4


def test_transcripts_that_are_known_are_not_decoded_again(artifact, evaluator, tiny_en, monkeypatch):
    heard = evaluator.evaluate_transcripts(ArtifactRecogniser(artifact, threads=1)).texts
    first, *others = heard
    monkeypatch.setattr(evaluator, "evaluate", None)
    monkeypatch.setattr("evaluators.runtimes.verification.measure_apart", lambda *_: None)
    known = heard | {first: "as it was recorded"}
    found = verify(
        artifact, evaluator, PLAN, compressed=Compressed.original(tiny_en.network), window_s=30.0, heard=known
    ).parity
    assert [(difference.utterance_id, difference.torch) for difference in found.differences] == [
        (first, "as it was recorded")
    ]
    assert found.identical == len(others)
