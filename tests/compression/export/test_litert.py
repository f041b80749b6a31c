"""The files for LiteRT, run by its own interpreter, against the torch network that they were made from."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from common.errors import CompressionError, InputError
from compression.export.litert.stored import Codes, stored
from compression.export.manifest import artifact_bytes
from compression.export.targets import check_exportable
from compression.export.vocabulary import KeptTokens
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.grids import Grid, QuantisedMatrix, quantise
from compression.whisper.load import LoadedModel
from compression.whisper.network import encode
from tests.compression.export.models import COMPACT, changed, compact_model, without, written

Array = npt.NDArray[np.float32]

converts = pytest.mark.skipif(
    find_spec("litert_torch") is None, reason="litert-torch, which brings jax and LLVM, is no test dependency"
)
ORIGINAL = Recipe.original(COMPACT, stored_bits=32)
EXACT = {
    "original": ORIGINAL,
    "15 s, 8 bits": changed(ORIGINAL, bits=8, convolution_bits=8, window_s=15.0),
    "uneven heads, channels, one layer less": without(
        changed(
            replace(ORIGINAL, decoder=(replace(ORIGINAL.decoder[0], heads=1, cross_heads=3), *ORIGINAL.decoder[1:])),
            encoder={"heads": 3, "ffn_channels": 96},
        ),
        "decoder",
        1,
    ),
    "low rank, shorter vocabulary, 16 bits": replace(
        changed(ORIGINAL, bits=16, encoder={"ffn_rank": 16}, decoder={"ffn_rank": 16}),
        vocabulary=8192,
        vocabulary_language="en",
    ),
}
ROUNDING = {
    "8 bits": changed(ORIGINAL, bits=8, activation_bits=8),
    "4 bits": changed(ORIGINAL, bits=4, activation_bits=8),
    "4 bits in blocks that are not whole": changed(ORIGINAL, bits=4, group_size=32, encoder={"ffn_channels": 112}),
}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return compact_model()


def runtime_logits(folder: Path, mel: Array, tokens: Sequence[int]) -> Array:
    """(tokens, vocabulary), with the files called as a program without Python would."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - where it is installed

    encoder, decoder = (Interpreter(str(folder / name)) for name in ("encoder.tflite", "decoder.tflite"))
    frames = mel.shape[1]
    audio = encoder.get_signature_runner(f"encode_{frames}")(mel=mel[None])
    step = decoder.get_signature_runner(f"step_{frames}")
    inputs = {name: np.zeros(detail["shape"], detail["dtype"]) for name, detail in step.get_input_details().items()}
    inputs |= {f"audio_{name}": value for name, value in audio.items()}
    found = []
    for position, token in enumerate(tokens):
        inputs["token"][:], inputs["position"][:] = token, position
        outputs = step(**inputs)
        found.append(outputs["logits"][0])
        for name in inputs:
            if name.startswith("past_"):
                inputs[name][:, :, position] = outputs[f"new_{name.removeprefix('past_')}"][:, :, 0]
    return np.stack(found)


def torch_logits(network: Compressed, mel: Array, tokens: Sequence[int]) -> Array:
    with torch.inference_mode():
        features = encode(network.network, torch.from_numpy(mel)[None])
        logits: Array = network.network.decoder(torch.tensor([tokens]), features)[0].numpy()
    return logits


def compared(model: LoadedModel, recipe: Recipe, folder: Path, frames: int) -> float:
    """The largest difference between logits, by the largest logit."""
    network = written(model, recipe, folder, "litert")
    kept = KeptTokens.of(network)
    tokens = [kept.row(50257), kept.row(50362), 314, 1101]
    mel = np.random.default_rng(0).uniform(-0.9, 1.1, (80, frames)).astype(np.float32)
    expected = torch_logits(network, mel, tokens)
    return float(np.abs(runtime_logits(folder, mel, tokens) - expected).max() / np.abs(expected).max())


@converts
@pytest.mark.parametrize("recipe", EXACT.values(), ids=list(EXACT))
def test_logits_are_those_of_torch(recipe, model, tmp_path):
    assert compared(model, recipe, tmp_path / "a", round(100 * recipe.window_s)) < 1e-3


@converts
@pytest.mark.parametrize("recipe", ROUNDING.values(), ids=list(ROUNDING))
def test_logits_are_near_those_of_torch_where_activations_are_rounded(recipe, model, tmp_path):
    """Rows of 64 values are rounded to 8 bits before each of some 20 products; at 4 bits the largest weight may differ
    by a step.
    """
    assert compared(model, recipe, tmp_path / "a", 3000) < 0.1


@converts
def test_integers_are_stored_as_integers(model, tmp_path):
    sizes = {}
    for name, recipe in {
        "32": ORIGINAL,
        "8": ROUNDING["8 bits"],
        "4": changed(ORIGINAL, bits=4, group_size=32),
    }.items():
        written(model, recipe, tmp_path / name, "litert")
        sizes[name] = artifact_bytes(tmp_path / name)
    rows, columns = COMPACT.n_vocab, COMPACT.n_text_state  # of the embedding, whose values are those of float16
    scale = 4 + 8  # bytes of a row's, in float32, and of its zero point
    assert sizes["32"] - sizes["8"] > rows * (2 * columns - (columns + scale))
    assert sizes["8"] - sizes["4"] > rows * (columns + scale - (columns / 2 + columns / 32 * 2))


@converts
def test_a_matrix_that_the_converter_changed_is_an_error(model, tmp_path):
    written(model, ORIGINAL, tmp_path / "a", "litert")
    codes = Codes.of(np.zeros((2, 1, 4), np.uint8), np.ones((2, 1), np.float32), bits=8, is_unpacked=False)
    with pytest.raises(CompressionError, match="1 of 1 matrices are not in the file"):
        stored((tmp_path / "a" / "encoder.tflite").read_bytes(), {b"nothing": codes})


def stored_values(matrix: QuantisedMatrix, *, is_unpacked: bool) -> Array:
    codes = Codes.of(matrix.codes.numpy(), matrix.scales.float().numpy(), bits=matrix.bits, is_unpacked=is_unpacked)
    assert is_unpacked or (codes.scales > 0).all()
    values: Array = codes.values * codes.scales[..., None]
    return values


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 0), (4, 32)])
def test_codes_are_ours_but_where_scales_are_negative(bits, group):
    weight = torch.randn(50, 64, generator=torch.Generator().manual_seed(3))
    weight[7] = 0
    matrix = quantise(weight, Grid(bits=bits, group_size=group))
    ours = matrix.padded().view(matrix.codes.shape).numpy()
    np.testing.assert_array_equal(stored_values(matrix, is_unpacked=True), ours)
    scales = matrix.scales.float().numpy()
    found, is_negative = stored_values(matrix, is_unpacked=False), scales < 0
    assert is_negative.any()
    np.testing.assert_array_equal(found[~is_negative], ours[~is_negative])
    clipped = ((matrix.codes.numpy() == 0).sum(axis=-1) * scales**2)[is_negative]
    errors = ((found - ours) ** 2).sum(axis=-1)[is_negative]
    assert (errors <= 1.01 * clipped).all()
    assert bits == 8 or errors.sum() < clipped.sum()


def test_codes_of_4_bits_lie_two_in_a_byte():
    codes = np.array([[[8, 9, 0, 15]]], np.uint8)
    packed = Codes.of(codes, np.ones((1, 1), np.float32), bits=4, is_unpacked=False).packed()
    assert packed.tolist() == [0x10, 0x78]


@pytest.mark.parametrize(
    ("recipe", "gene"),
    [
        (changed(ORIGINAL, bits=2), "attention_bits = 2"),
        (changed(ORIGINAL, bits=8, group_size=32), "= 8 in groups of 32"),
        (changed(ORIGINAL, bits=4, group_size=16), "group_size = 16"),
        (changed(ORIGINAL, bits=4, symmetric=False), "symmetric = false"),
        (changed(ORIGINAL, bits=4, group_size=32, scale_bits=8), "scale_bits = 8"),
        (changed(ORIGINAL, bits=8, convolution_bits=4), "convolution_bits = 4"),
        (changed(ORIGINAL, bits=4, frequent_tokens=300), "frequent_tokens = 300"),
        (changed(ORIGINAL, bits=8, activation_bits=16), "activation_bits = 16"),
        (changed(ORIGINAL, activation_bits=8), "activation_bits = 8"),
        (changed(ORIGINAL, bits=8, activation_bits=8, activation_ranges="static"), "activation_ranges = static"),
    ],
)
def test_what_no_kernel_executes_is_refused(recipe, gene):
    with pytest.raises(InputError, match=f"cannot be exported to litert: .*{gene}"):
        check_exportable(recipe.canonical(COMPACT), COMPACT, "litert")


def test_without_its_packages_it_says_what_to_install(model, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(InputError, match=r"pip install 'whisperfit\[litert\]'"):
        written(model, ORIGINAL, tmp_path / "artifact", "litert")
    assert not (tmp_path / "artifact").exists()
