"""The graphs through onnxruntime against the same network in torch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from whisper.model import Whisper, disable_sdpa

from compression.whisper.network import encode
from runtime.artifact import Artifact
from runtime.audio import Floats
from runtime.errors import ArtifactError
from runtime.model import Ids, Model, WindowText
from tests.runtime.miniature import write_artifact, write_manifest


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> Model:
    return Model(Artifact.open(request.getfixturevalue("small_artifact")), threads=1)


def mel_of(frames: int) -> Floats:
    return np.random.default_rng(frames).normal(size=(80, frames)).astype(np.float32)


@torch.inference_mode()
def expected_logits(network: Whisper, mel: Floats, tokens: Ids) -> Floats:
    """After the last token of every row, without any cache."""
    audio = encode(network, torch.from_numpy(mel)[None])
    return network.decoder(torch.from_numpy(tokens), audio.expand(len(tokens), -1, -1))[:, -1].numpy()


def random_tokens(*shape: int) -> Ids:
    return np.random.default_rng(0).integers(0, 50_000, shape)


@pytest.mark.parametrize("frames", [100, 600])
@pytest.mark.parametrize("steps", [(6,), (1, 1, 1, 1, 1, 1), (1, 3, 2)])
def test_steps_of_any_length_give_the_logits_of_torch(
    model: Model, small: Whisper, frames: int, steps: tuple[int, ...]
) -> None:
    mel, tokens = mel_of(frames), random_tokens(1, 6)
    text, seen = model.encode(mel), 0
    for new in steps:
        logits, text = text.step(tokens[:, seen : seen + new])
        seen += new
        np.testing.assert_allclose(logits, expected_logits(small, mel, tokens[:, :seen]), atol=2e-4)


def test_attention_to_the_audio_is_that_of_torch(model: Model, small: Whisper) -> None:
    """The last block's, of a whole text, whatever was said before; the mean over the heads."""
    mel, tokens = mel_of(300), random_tokens(1, 7)
    scores: list[torch.Tensor] = []
    hook = small.decoder.blocks[-1].cross_attn.register_forward_hook(lambda _, __, out: scores.append(out[1]))
    with disable_sdpa(), torch.inference_mode():
        small.decoder(torch.from_numpy(tokens), encode(small, torch.from_numpy(mel)[None]))
    hook.remove()
    _, text = model.encode(mel).step(random_tokens(1, 3))
    _, text = text.rows([0, 0]).step(random_tokens(2, 1))
    found = text.attention(tokens[0].tolist())
    np.testing.assert_allclose(found, scores[0][0].softmax(-1).mean(0).numpy(), atol=1e-5)


def test_an_older_artifact_does_not_say_where_it_listens(small: Whisper, tmp_path: Path) -> None:
    folder = write_artifact(small, tmp_path / "old")
    graph = onnx.load(folder / "decoder.onnx")
    outputs = [output for output in graph.graph.output if output.name != "audio_query"]
    del graph.graph.output[:]
    graph.graph.output.extend(outputs)
    onnx.save(graph, folder / "decoder.onnx")
    write_manifest(folder)
    text = Model(Artifact.open(folder), threads=1).encode(mel_of(200))
    assert text.attention([1, 2, 3]) is None


def test_rows_of_a_batch_are_repeated_and_reordered(model: Model, small: Whisper) -> None:
    mel, tokens = mel_of(200), random_tokens(3, 4)
    begun = tokens[:1, :1].repeat(3, axis=0)
    _, text = model.encode(mel).step(begun[:1])
    _, text = text.rows([0, 0, 0]).step(tokens[:, 1:3])
    logits, _ = text.rows([2, 0, 2]).step(tokens[:, 3:])
    whole = np.concatenate([begun, tokens[:, 1:3]], axis=1)[[2, 0, 2]]
    expected = expected_logits(small, mel, np.concatenate([whole, tokens[:, 3:]], axis=1))
    np.testing.assert_allclose(logits, expected, atol=2e-4)


def test_a_text_can_go_on_in_two_ways(model: Model) -> None:
    tokens = random_tokens(1, 3)
    _, text = model.encode(mel_of(200)).step(tokens)
    first, _ = text.step(tokens[:, :1])
    text.step(tokens[:, 1:])
    again, _ = text.step(tokens[:, :1])
    np.testing.assert_array_equal(first, again)


def test_the_same_rows_cost_nothing(model: Model) -> None:
    _, text = model.encode(mel_of(200)).step(random_tokens(1, 2))
    assert isinstance(text, WindowText)
    assert text.rows([0]) is text


@pytest.mark.parametrize("version", ["1.22.1", "1.9.0", "0.5"])
def test_an_onnxruntime_that_computes_nothing_is_refused(
    version: str, small_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.model.ort.__version__", version)
    with pytest.raises(ArtifactError, match=f"onnxruntime {version} is too old: artifacts need 1.23 or later"):
        Model(Artifact.open(small_artifact))
