"""The files for sherpa-onnx against the torch network that they were made from, called as sherpa-onnx calls them."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch

from common.errors import InputError
from compression.compress import compress
from compression.export.manifest import Sources
from compression.export.sherpa_onnx import artifact as sherpa_onnx
from compression.export.targets import export
from compression.export.vocabulary import KeptTokens
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel
from compression.whisper.network import encode
from compression.whisper.tokenizer import tokenizer_of
from runtime.window import encoder_frames
from tests.compression.export.models import COMPACT, changed, compact_model, without, written
from tests.networks import random_network

Array = npt.NDArray[np.float32]

ORIGINAL = Recipe.original(COMPACT, stored_bits=32)
RECIPES = {
    "original": ORIGINAL,
    "15 s, 8 bits": changed(ORIGINAL, bits=8, window_s=15.0),
    "uneven heads": changed(
        replace(ORIGINAL, decoder=(replace(ORIGINAL.decoder[0], heads=1, cross_heads=3), *ORIGINAL.decoder[1:])),
        encoder={"heads": 3, "ffn_channels": 96},
    ),
    "one decoder layer": without(without(ORIGINAL, "decoder", 1), "decoder", 0),
    "frequent tokens, 4 bits": changed(ORIGINAL, bits=4, group_size=16, frequent_tokens=300, scale_bits=8),
    "shorter vocabulary": replace(ORIGINAL, vocabulary=8192, vocabulary_language="en"),
}


class AsSherpaOnnx:
    """The two files, inputs by position, as csrc/offline-whisper-greedy-search-decoder.cc passes them."""

    def __init__(self, folder: Path) -> None:
        self.encoder, self.decoder = (
            ort.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
            for name in (sherpa_onnx.ENCODER, sherpa_onnx.DECODER)
        )
        self.metadata: Mapping[str, str] = self.encoder.get_modelmeta().custom_metadata_map

    def logits(self, mel: Array, steps: Sequence[Sequence[int]]) -> list[Array]:
        """(vocabulary,) after each of the steps' tokens; `mel` (n_mels, T) with its padding."""
        cross = self.encoder.run(None, {self.encoder.get_inputs()[0].name: mel[None]})
        layers, positions, width = (int(self.metadata[name]) for name in ("n_text_layer", "n_text_ctx", "n_text_state"))
        caches = [np.full((layers, 1, positions, width), np.nan, np.float32) for _ in range(2)]
        names, seen, found = [value.name for value in self.decoder.get_inputs()], 0, []
        for tokens in steps:
            values = [np.array([tokens]), *caches, *cross, np.array([seen])]
            logits, *caches = self.decoder.run(None, dict(zip(names, values, strict=True)))
            seen += len(tokens)
            assert logits.shape[:2] == (1, 1)
            found.append(logits[0, 0])
        return found


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return compact_model()


def heard(frames: int, *, padding: int) -> Array:
    """Random features as sherpa-onnx hands them over: zeros behind them."""
    mel = np.random.default_rng(frames).uniform(-0.9, 1.1, (80, frames)).astype(np.float32)
    return np.pad(mel, [(0, 0), (0, padding)])


def expected(network: Compressed, mel: Array, window_s: float, tokens: Sequence[int]) -> Array:
    """Logits of every token, by torch, in the window that the search's evaluation gives so much audio."""
    frames = encoder_frames(window_s, mel.shape[1] / 100)
    window = np.pad(mel, [(0, 0), (0, frames - mel.shape[1])], constant_values=max(mel.max() - 2, -1.5))
    with torch.inference_mode():
        features = encode(network.network, torch.from_numpy(window)[None])
        logits: Array = network.network.decoder(torch.tensor([tokens]), features)[0].numpy()
    return logits


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
@pytest.mark.parametrize(("frames", "padding"), [(433, 1000), (151, 50), (2950, 50)], ids=["10 s", "short", "longest"])
def test_logits_are_those_of_torch(recipe, frames, padding, model, tmp_path):
    network = written(model, recipe, tmp_path / "artifact", "sherpa-onnx")
    kept = KeptTokens.of(network)
    steps = [[kept.row(50257), kept.row(50362)], [314], [1101]]
    mel = heard(frames, padding=padding)
    found = AsSherpaOnnx(tmp_path / "artifact").logits(mel, steps)
    logits = expected(network, mel[:, :frames], recipe.window_s, [token for step in steps for token in step])
    for step, (values, row) in enumerate(zip(found, (1, 2, 3), strict=True)):
        never = [*kept.suppressed, *(kept.begin_suppressed if step == 0 else [])]
        others = np.setdiff1d(np.arange(len(values)), never)
        assert np.isneginf(values[never]).all()
        assert np.abs(values[others] - logits[row, others]).max() < 1e-3 * np.abs(logits).max()


def test_an_odd_number_of_frames_and_any_padding_make_no_difference(model, tmp_path):
    written(model, ORIGINAL, tmp_path / "artifact", "sherpa-onnx")
    files = AsSherpaOnnx(tmp_path / "artifact")
    mel = heard(321, padding=0)
    padded = [np.pad(mel, [(0, 0), (0, padding)]) for padding in (0, 1, 100, 1000, 2679)]
    first, *others = [files.logits(features, [[50257, 50362]])[0] for features in padded]
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_a_text_ends_at_once_where_no_speech_is_foreseen(model, tmp_path):
    network = written(model, ORIGINAL, tmp_path / "artifact", "sherpa-onnx")
    no_speech = tokenizer_of(network.network).no_speech
    decoder = network.network.decoder
    with torch.no_grad():
        decoder.ln.bias.copy_(30 * decoder.token_embedding.weight[no_speech])
    out = tmp_path / "silent"
    export(model, ORIGINAL.canonical(model.dimensions), network, out, target="sherpa-onnx", sources=Sources(model="c"))
    first, second = AsSherpaOnnx(out).logits(heard(400, padding=1000), [[50257, 50362], [314]])
    assert first.argmax() == 50256
    assert second.argmax() != 50256


def test_each_graph_is_one_file_with_what_the_loader_reads(model, tmp_path):
    recipe = RECIPES["uneven heads"]
    written(model, without(recipe, "decoder", 1), tmp_path / "artifact", "sherpa-onnx")
    names = {path.name for path in (tmp_path / "artifact").iterdir()}
    assert names == {"encoder.onnx", "decoder.onnx", "tokens.txt", "recipe.json", "manifest.json"}
    encoder = onnx.load(tmp_path / "artifact" / "encoder.onnx", load_external_data=False)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in encoder.graph.initializer)
    metadata = {entry.key: entry.value for entry in encoder.metadata_props}
    assert metadata == {
        "model_type": "whisper-compact",
        "n_mels": "80",
        "n_text_layer": "2",
        "n_text_ctx": "448",
        "n_text_state": "64",
        "n_vocab": "51864",
        "sot": "50257",
        "eot": "50256",
        "blank_id": "220",
        "translate": "50357",
        "transcribe": "50358",
        "is_multilingual": "0",
        "no_timestamps": "50362",
        "no_speech": "50361",
        "sot_sequence": "50257",
    }


def test_tokens_are_rows_of_the_shorter_vocabulary(model, tmp_path):
    network = written(model, RECIPES["shorter vocabulary"], tmp_path / "artifact", "sherpa-onnx")
    lines = (tmp_path / "artifact" / "tokens.txt").read_text(encoding="ascii").splitlines()
    tokens = {int(row): base64.b64decode(text) for text, row in map(str.split, lines)}
    encoding = tokenizer_of(network.network).encoding
    ids = network.vocabulary.ids.tolist()
    assert tokens == {row: encoding.decode_single_token_bytes(ids[row]) for row in range(8192)}


def test_a_multilingual_model_names_its_languages_and_prompt(tmp_path):
    dimensions = replace(COMPACT, n_vocab=51865)
    network = random_network(dimensions)
    model = LoadedModel(name="many", digest="0", dimensions=dimensions, stored_bits=32, network=network, language="de")
    recipe = Recipe.original(dimensions, stored_bits=32)
    export(model, recipe, compress(model, recipe), tmp_path / "a", target="sherpa-onnx", sources=Sources(model="many"))
    metadata = AsSherpaOnnx(tmp_path / "a").metadata
    assert (metadata["is_multilingual"], metadata["sot_sequence"]) == ("1", "50258,50261,50359")
    codes, tokens = (metadata[f"all_language_{what}"].split(",") for what in ("codes", "tokens"))
    assert dict(zip(codes, tokens, strict=True))["de"] == "50261"


def test_a_graph_that_is_too_large_for_one_file_is_refused(model, monkeypatch, tmp_path):
    monkeypatch.setattr(sherpa_onnx, "LARGEST_FILE", 1000)
    with pytest.raises(InputError, match=r"encoder\.onnx would have over 2 GB"):
        written(model, ORIGINAL, tmp_path / "artifact", "sherpa-onnx")
