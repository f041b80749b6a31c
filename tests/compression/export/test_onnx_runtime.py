"""The two graphs against the torch network that they were made from, and their files against the promised bytes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch

from compression.compress import compress
from compression.export.manifest import Sources, write_manifest
from compression.export.onnx_runtime.artifact import export
from compression.export.onnx_runtime.graph import Graph
from compression.export.onnx_runtime.rounded import linear
from compression.export.onnx_runtime.weights import Storage, packed
from compression.recipe.kernels import block_of
from compression.recipe.recipe import Recipe
from compression.recipe.runtimes import unsupported_reason
from compression.techniques.compressed import Compressed
from compression.whisper.decoding_rules import DecodingRules
from compression.whisper.load import LoadedModel
from compression.whisper.network import encode
from compression.whisper.tokenizer import tokenizer_of
from evaluators.costs.price import stored_bytes
from runtime.artifact import Artifact
from runtime.audio import Floats
from runtime.model import Model, session_entries
from tests.compression.export.models import COMPACT, changed, compact_calibration, compact_model, without

FRAMES = 600
PROMPT = (50257, 50362, 314, 1101, 257)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return compact_model()


ORIGINAL = Recipe.original(COMPACT, stored_bits=16)
FLOAT_ACTIVATIONS = {
    "float32": Recipe.original(COMPACT, stored_bits=32),
    "float16": ORIGINAL,
    **{f"{bits} bits per channel": changed(ORIGINAL, bits=bits, convolution_bits=8) for bits in (2, 4, 8)},
    **{f"{bits} bits, groups of 16": changed(ORIGINAL, bits=bits, group_size=16) for bits in (2, 4, 8)},
    "4 bits, zero points": changed(ORIGINAL, bits=4, group_size=32, symmetric=False, convolution_bits=8),
    "8 bits, zero points": changed(ORIGINAL, bits=8, group_size=16, symmetric=False, convolution_bits=8),
    "8 bits per channel, zero points": changed(ORIGINAL, bits=8, symmetric=False, convolution_bits=4),
    "scales of 8 bits": changed(ORIGINAL, bits=4, group_size=16, scale_bits=8),
    "scales of 8 bits, 8-bit weights, zero points": changed(
        ORIGINAL, bits=8, group_size=32, symmetric=False, scale_bits=8, encoder={"ffn_rank": 48}
    ),
    "scales of 8 bits, frequent tokens": changed(
        ORIGINAL, bits=4, group_size=16, symmetric=False, frequent_tokens=300, scale_bits=8
    ),
    "groups longer than the rows": changed(ORIGINAL, bits=4, group_size=128, symmetric=False),
    "mixed": changed(ORIGINAL, encoder={"attention_bits": 4}, decoder={"ffn_bits": 8}, embedding_bits=4, group_size=32),
    "float32 beside 8 bits": changed(Recipe.original(COMPACT, stored_bits=32), decoder={"ffn_bits": 8}),
    "pruned": changed(
        ORIGINAL,
        bits=4,
        encoder={"heads": 3, "ffn_channels": 96},
        decoder={"heads": 1, "cross_heads": 3},
        group_size=32,
    ),
    "fewer layers": without(without(changed(ORIGINAL, bits=8), "encoder", 1), "decoder", 0),
    "frequent tokens": changed(ORIGINAL, bits=4, group_size=32, frequent_tokens=300),
    "frequent tokens, zero points": changed(ORIGINAL, bits=4, group_size=16, symmetric=False, frequent_tokens=300),
    "frequent tokens, 2 bits per channel": changed(ORIGINAL, bits=2, frequent_tokens=1),
    "low rank": changed(ORIGINAL, encoder={"ffn_rank": 32}, decoder={"ffn_rank": 20}),
    "low rank, 4 bits": changed(ORIGINAL, bits=4, encoder={"ffn_rank": 32}, decoder={"ffn_rank": 20}),
    "low rank, 8 bits in groups": changed(
        ORIGINAL, bits=8, group_size=32, symmetric=False, encoder={"ffn_rank": 48}, decoder={"ffn_rank": 20}
    ),
}
ROUNDED_ACTIVATIONS = {
    "int8, dynamic": changed(ORIGINAL, bits=8, activation_bits=8),
    "int8, dynamic, zero points": changed(ORIGINAL, bits=8, activation_bits=8, symmetric=False),
    "int8, static": changed(ORIGINAL, bits=8, activation_bits=8, activation_ranges="static"),
    "int8, dynamic, 4-bit weights per channel": changed(ORIGINAL, bits=4, activation_bits=8),
    "int8, dynamic, float weights": changed(ORIGINAL, activation_bits=8),
    "int8 in blocks, 8 bits": changed(ORIGINAL, bits=8, activation_bits=8, group_size=32),
    "int8 in blocks, 4 bits": changed(ORIGINAL, bits=4, activation_bits=8, group_size=16, symmetric=False),
    "int8 in blocks, scales of 8 bits": changed(ORIGINAL, bits=4, activation_bits=8, group_size=16, scale_bits=8),
    "16 bits, dynamic": changed(ORIGINAL, bits=8, activation_bits=16),
    "16 bits, static": changed(ORIGINAL, bits=8, activation_bits=16, activation_ranges="static"),
    "int8, dynamic, low rank": changed(ORIGINAL, bits=8, activation_bits=8, encoder={"ffn_rank": 48}),
    "int8, static, low rank": changed(
        ORIGINAL, bits=8, activation_bits=8, activation_ranges="static", decoder={"ffn_rank": 32}
    ),
}


def exported(model: LoadedModel, recipe: Recipe, out: Path) -> tuple[Compressed, Model]:
    recipe = recipe.canonical(COMPACT)
    assert unsupported_reason("onnxruntime", recipe, COMPACT) is None
    compressed = compress(model, recipe, compact_calibration(model))
    export(model, recipe, compressed, out)
    write_manifest(out, target="onnxruntime", model=model, recipe=recipe, sources=Sources(model="compact"))
    return compressed, Model(Artifact.open(out), threads=1)


def spectrogram() -> torch.Tensor:
    return torch.randn(COMPACT.n_mels, FRAMES, generator=torch.Generator().manual_seed(2))


def torch_logits(compressed: Compressed, mel: torch.Tensor, tokens: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """(tokens, vocabulary)."""
    network = compressed.network
    with torch.inference_mode():
        logits: npt.NDArray[np.float32] = network.decoder(torch.tensor([tokens]), encode(network, mel[None]))[0].numpy()
    return logits


def step_by_step(model: Model, mel: torch.Tensor, tokens: tuple[int, ...]) -> Floats:
    """(tokens, vocabulary), one token at a time."""
    text, steps = model.encode(mel.numpy()), []
    for token in tokens:
        logits, text = text.step(np.array([[token]]))
        steps.append(logits[0])
    return np.stack(steps)


@pytest.mark.parametrize("recipe", FLOAT_ACTIVATIONS.values(), ids=FLOAT_ACTIVATIONS.keys())
def test_logits_are_those_of_torch(recipe, model, tmp_path):
    compressed, artifact = exported(model, recipe, tmp_path)
    expected = torch_logits(compressed, spectrogram(), PROMPT)
    close = {"rtol": 0, "atol": 2e-5 * np.abs(expected).max()}
    np.testing.assert_allclose(step_by_step(artifact, spectrogram(), PROMPT), expected, **close)
    at_once, _ = artifact.encode(spectrogram().numpy()).step(np.array([PROMPT]))
    np.testing.assert_allclose(at_once[0], expected[-1], **close)


@pytest.mark.parametrize("rows", ["many", "one"])
@pytest.mark.parametrize("recipe", ROUNDED_ACTIVATIONS.values(), ids=ROUNDED_ACTIVATIONS.keys())
def test_a_layer_rounds_its_input_as_torch_does(recipe, rows, model, tmp_path):
    """One layer: over several, a last digit that differs before rounding grows to another code after it."""
    recipe = recipe.canonical(COMPACT)
    compressed = compress(model, recipe, compact_calibration(model))
    network = compressed.network
    attention = network.encoder.blocks[0].attn if rows == "many" else network.decoder.blocks[0].attn
    modules = [attention.query, attention.key, attention.value]
    graph = Graph("layer")
    x = graph.input("x", onnx.TensorProto.FLOAT, (1, "rows", 64))
    storage = Storage(precision=recipe.precision(recipe.embedding_bits), half_vectors=True, codes=compressed.codes)
    graph.output(linear(graph, x, "layer", modules, storage, rows=rows), "y", (1, "rows", 192))
    graph.write(tmp_path / "layer.onnx")
    values = 2 * torch.randn(1, 40 if rows == "many" else 1, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = torch.cat([module(values) for module in modules], dim=-1).numpy()
    options = ort.SessionOptions()
    for key, value in session_entries(saturates=True).items():  # exact on processors without VNNI too
        options.add_session_config_entry(key, value)
    (found,) = ort.InferenceSession(tmp_path / "layer.onnx", options).run(None, {"x": values.numpy()})
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("recipe", ROUNDED_ACTIVATIONS.values(), ids=ROUNDED_ACTIVATIONS.keys())
def test_models_with_rounded_activations_run(recipe, model, tmp_path):
    compressed, artifact = exported(model, recipe, tmp_path)
    expected = torch_logits(compressed, spectrogram(), PROMPT)
    assert np.abs(step_by_step(artifact, spectrogram(), PROMPT) - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("frames", [2, 150, 1050, 3000])
def test_windows_of_any_length_have_the_first_positions(frames, model, tmp_path):
    compressed, artifact = exported(model, ORIGINAL, tmp_path)
    mel = torch.randn(COMPACT.n_mels, frames, generator=torch.Generator().manual_seed(4))
    logits, _ = artifact.encode(mel.numpy()).step(np.array([PROMPT]))
    expected = torch_logits(compressed, mel, PROMPT)[-1]
    np.testing.assert_allclose(logits[0], expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("bits", "frequent"), [(16, 0), (8, 0), (4, 0), (4, 200)])
def test_a_shorter_vocabulary_is_a_shorter_table(bits, frequent, model, tmp_path):
    recipe = changed(
        ORIGINAL, bits=bits, vocabulary=1500, vocabulary_language="en", frequent_tokens=frequent
    ).canonical(COMPACT)
    compressed, artifact = exported(model, recipe, tmp_path)
    rows = compressed.vocabulary.rows
    prompt = tuple(rows[list(PROMPT)].tolist())
    expected = torch_logits(compressed, spectrogram(), prompt)
    close = {"rtol": 0, "atol": 2e-5 * np.abs(expected).max()}
    found = step_by_step(artifact, spectrogram(), prompt)
    assert found.shape == (len(PROMPT), COMPACT.embedding_rows(1500))
    np.testing.assert_allclose(found, expected, **close)
    whole = replace(recipe, vocabulary=0)
    (tmp_path / "whole").mkdir()
    exported(model, whole, tmp_path / "whole")
    saved = sum(file.stat().st_size for file in (tmp_path / "whole").glob("*.onnx.data"))
    saved -= sum(file.stat().st_size for file in tmp_path.glob("*.onnx.data"))
    assert saved == pytest.approx(stored_bytes(COMPACT, whole) - stored_bytes(COMPACT, recipe), rel=0.01)


def test_tokens_of_a_shorter_vocabulary_say_what_the_originals_say(model, tmp_path):
    recipe = changed(ORIGINAL, vocabulary=1500, vocabulary_language="en").canonical(COMPACT)
    compressed, _ = exported(model, recipe, tmp_path)
    tokenizer, ids, rows = tokenizer_of(compressed.network), compressed.vocabulary.ids, compressed.vocabulary.rows
    vocabulary = Artifact.open(tmp_path).vocabulary
    assert vocabulary.size == len(ids)
    assert all(vocabulary.text([row]) == tokenizer.decode([token]) for row, token in enumerate(ids.tolist()[:1500]))
    special, original = vocabulary.special, DecodingRules.of_openai(tokenizer).suppressed
    assert (special.start, special.end, special.no_timestamps) == tuple(
        rows[[tokenizer.sot, tokenizer.eot, tokenizer.no_timestamps]].tolist()
    )
    assert {ids[row].item() for row in special.suppressed} == set(original) & set(ids.tolist())
    assert [ids[row].item() for row in special.begin_suppressed] == [*tokenizer.encode(" "), tokenizer.eot]


def test_hypotheses_do_not_see_each_other(model, tmp_path):
    _, artifact = exported(model, FLOAT_ACTIVATIONS["mixed"], tmp_path)
    window = artifact.encode(spectrogram().numpy())
    _, text = window.rows([0, 0]).step(np.array([[50257, 11], [50257, 13]]))
    together, _ = text.step(np.array([[314], [257]]))
    for row, tokens in zip(together, ((50257, 11, 314), (50257, 13, 257)), strict=True):
        alone, _ = window.step(np.array([tokens]))
        np.testing.assert_allclose(row, alone[0], rtol=0, atol=2e-5 * np.abs(alone).max())


@pytest.mark.parametrize(
    "name",
    [
        *("float16", "8 bits per channel", "4 bits, zero points", "mixed", "low rank", "low rank, 8 bits in groups"),
        *("frequent tokens", "frequent tokens, zero points", "frequent tokens, 2 bits per channel"),
    ],
)
def test_tensors_take_the_bytes_that_the_recipe_promises(name, model, tmp_path):
    """What is not in the promise: alignment, the table of positions' rates, and copies of equal scales."""
    recipe = FLOAT_ACTIVATIONS[name].canonical(COMPACT)
    exported(model, recipe, tmp_path)
    stored = sum(file.stat().st_size for file in tmp_path.glob("*.onnx.data"))
    assert stored == pytest.approx(stored_bytes(COMPACT, recipe), rel=0.01)


@pytest.mark.parametrize("name", ["frequent tokens", "frequent tokens, zero points"])
def test_frequent_tokens_take_the_bytes_that_the_recipe_promises(name, model, tmp_path):
    """Beside the same recipe without them: so many bytes more, but for the alignment of a few tensors more."""
    recipe = FLOAT_ACTIVATIONS[name].canonical(COMPACT)
    sizes = []
    for tokens in (recipe.frequent_tokens, 0):
        out = tmp_path / str(tokens)
        out.mkdir()
        exported(model, replace(recipe, frequent_tokens=tokens), out)
        sizes.append((out / "decoder.onnx.data").stat().st_size)
    promised = stored_bytes(COMPACT, recipe) - stored_bytes(COMPACT, replace(recipe, frequent_tokens=0))
    assert promised == (300 + 1608) * 64 // 2 + (0 if recipe.symmetric else (300 + 1608) * 4 // 2)
    assert abs(sizes[0] - sizes[1] - promised) < 64 * 8


def test_the_embedding_is_stored_once(model, tmp_path):
    exported(model, FLOAT_ACTIVATIONS["8 bits per channel"], tmp_path)
    decoder = onnx.load(tmp_path / "decoder.onnx", load_external_data=False)
    embedding = [tensor for tensor in decoder.graph.initializer if tensor.name.startswith("decoder.token_embedding")]
    assert sum(int(np.prod(tensor.dims)) for tensor in embedding if "codes" in tensor.name) == COMPACT.n_vocab * 64
    onnx.checker.check_model(onnx.load(tmp_path / "decoder.onnx"))


def test_the_same_model_gives_the_same_bytes(model, tmp_path):
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        exported(model, FLOAT_ACTIVATIONS["mixed"], tmp_path / name)
    for file in (tmp_path / "once").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


@pytest.mark.parametrize(
    ("changes", "gene"),
    [
        ({"bits": 3}, "encoder.0.attention_bits = 3"),
        ({"decoder": {"ffn_bits": 5}}, "decoder.0.ffn_bits = 5"),
        ({"embedding_bits": 6}, "embedding_bits = 6"),
        ({"convolution_bits": 7}, "convolution_bits = 7"),
        ({"bits": 4, "group_size": 24}, "group_size = 24"),
        ({"bits": 4, "group_size": 8}, "group_size = 8"),
    ],
    ids=str,
)
def test_a_refusal_names_the_gene(changes, gene):
    reason = unsupported_reason("onnxruntime", changed(ORIGINAL, **changes), COMPACT)
    assert reason
    assert reason.startswith(gene)


@pytest.mark.parametrize(
    ("group_size", "columns", "block"),
    [(0, 384, 128), (0, 1536, 128), (0, 320, 64), (0, 1504, 32), (0, 100, 16), (32, 384, 32), (48, 384, None)],
)
def test_blocks_are_powers_of_two(group_size, columns, block):
    assert block_of(group_size, columns) == block


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_packing_puts_the_first_code_lowest(bits):
    codes = np.random.default_rng(0).integers(0, 2**bits, (3, 5)).astype(np.uint8)
    rows = packed(codes, bits)
    for row, expected in zip(rows, codes, strict=True):
        number = int.from_bytes(row.tobytes(), "little")
        assert [number >> (bits * index) & (2**bits - 1) for index in range(5)] == expected.tolist()
