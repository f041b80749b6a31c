"""Runtimes in processes of their own: what they answer, and what is said when they fail."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import EvaluationError, InputError
from compression.compress import compress
from compression.export.manifest import Sources
from compression.export.targets import export
from compression.whisper.load import LoadedModel
from evaluators.accuracy.decoding import Hypothesis
from evaluators.accuracy.evaluator import Evaluator
from evaluators.runtimes import process as module
from evaluators.runtimes.process import RuntimeProcess
from evaluators.runtimes.verification import verify
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
def for_sherpa_onnx(tiny_en: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "sherpa-onnx"
    recipe = eight_bits(tiny_en)
    export(tiny_en, recipe, compress(tiny_en, recipe), folder, target="sherpa-onnx", sources=Sources(model="tiny.en"))
    return folder


def test_an_artifact_for_another_runtime_is_verified_there(
    for_sherpa_onnx: Path, tiny_en: LoadedModel, speech: SpeechSet
) -> None:
    evaluator = Evaluator(speech, dimensions=tiny_en.dimensions, features=CachedFeatures(n_mels=80))
    recipe = eight_bits(tiny_en)
    found = verify(for_sherpa_onnx, evaluator, PLAN, compressed=compress(tiny_en, recipe), window_s=recipe.window_s)
    with RuntimeProcess("sherpa-onnx", for_sherpa_onnx, threads=1) as runtime:
        texts = {clip.id: runtime.timed(clip.samples(), "en")[0] for clip in speech.utterances}
    expected = evaluator.evaluate_transcripts(
        lambda clip, _: Hypothesis(text=texts[clip.id], tokens=(), ending="complete")
    )
    assert found.accuracy == expected.accuracy
    assert found.parity.utterances == len(speech.utterances)
    assert found.size_bytes == sum(file.stat().st_size for file in for_sherpa_onnx.iterdir())
    assert (found.on_silence, found.on_noise, found.on_quiet) == ("", "", "")
    assert set(found.on_sounds.values()) == {""}
    assert found.measured.encoder_ms is found.measured.reference_ms is None
    assert found.measured.utterance_ms > 0
    assert 50e6 < found.measured.peak_rss_bytes < 2e9


def test_a_runtime_that_dies_is_told(for_sherpa_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes(b"no model")
    with pytest.raises(EvaluationError, match=f"^{tmp_path} in sherpa-onnx failed: .*encoder.onnx"):
        RuntimeProcess("sherpa-onnx", tmp_path, threads=1)


def test_a_runtime_that_dies_in_a_transcript_is_told(for_sherpa_onnx: Path) -> None:
    with RuntimeProcess("sherpa-onnx", for_sherpa_onnx, threads=1) as runtime:
        runtime.timed(np.zeros(16_000, np.float32), "en")
        runtime._process.kill()
        with pytest.raises(EvaluationError, match="failed: exit code -9"):
            runtime.timed(np.zeros(16_000, np.float32), "en")


def test_a_runtime_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install sherpa-onnx"):
        RuntimeProcess("sherpa-onnx", tmp_path, threads=1)
    with pytest.raises(InputError, match="artifacts for ggml are not run here"):
        RuntimeProcess("ggml", tmp_path, threads=1)
