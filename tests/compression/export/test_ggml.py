"""whisper.cpp files against ggml's own quantiser, a reader written for the test, and whisper.cpp's refusals."""

import ctypes
import struct
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from whisper.audio import mel_filters
from whisper.tokenizer import get_tokenizer

from compression.compress import compress
from compression.export.ggml import blocks, export, export_own_rounding, own_rounding
from compression.recipe.recipe import Recipe
from compression.recipe.runtimes import unsupported_reason
from compression.techniques.grids import Grid, quantise
from compression.whisper.load import LoadedModel
from tests.compression.export.models import COMPACT, changed, check_refused, compact_model, without

ORIGINAL = Recipe.original(COMPACT)
BLOCKS = {bits: changed(ORIGINAL, bits=bits, group_size=32) for bits in (8, 5, 4)}
TENSOR_TYPES = {16: 1, 8: 8, 5: 6, 4: 2}
"""ggml's numbers of f16, q8_0, q5_0, q4_0 (ggml.h)."""
FILE_TYPES = {16: 1, 8: 2007, 5: 2008, 4: 2002}
BLOCK_BYTES = {8: 34, 5: 22, 4: 18}
CONVOLUTION_BIASES = {"encoder.conv1.bias", "encoder.conv2.bias"}

StoredTensor = tuple[tuple[int, ...], int, bytes]
"""Shape, type, data."""


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return compact_model()


class Reader:
    """The file from its first byte to its last, as whisper.cpp's `whisper_model_load` reads it."""

    def __init__(self, file: Path) -> None:
        self._data = file.read_bytes()
        self._offset = 0
        self.header = self.integers(12)
        shape = self.integers(2)
        self.filters = np.frombuffer(self.bytes(4 * shape[0] * shape[1]), "<f4").reshape(shape)
        self.tokens = [self.bytes(*self.integers(1)) for _ in range(*self.integers(1))]
        self.tensors: dict[str, StoredTensor] = {}
        while self._offset < len(self._data):
            dimensions, length, kind = self.integers(3)
            shape = self.integers(dimensions)[::-1]
            name = self.bytes(length).decode()
            self.tensors[name] = (shape, kind, self.bytes(bytes_of(shape, kind)))

    def bytes(self, count: int) -> bytes:
        part = self._data[self._offset : self._offset + count]
        self._offset += count
        return part

    def integers(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}i", self.bytes(4 * count))


def bytes_of(shape: tuple[int, ...], kind: int) -> int:
    count = int(np.prod(shape))
    sizes = {0: 4 * count, 1: 2 * count}
    sizes |= {TENSOR_TYPES[bits]: count // 32 * size for bits, size in BLOCK_BYTES.items()}
    return sizes[kind]


def first_rows(tensor: StoredTensor, count: int) -> StoredTensor:
    """The vocabulary is long; what holds for its first rows holds for all."""
    (rows, *rest), kind, data = tensor
    shape = (min(rows, count), *rest)
    return shape, kind, data[: bytes_of(shape, kind)]


def values_of(tensor: StoredTensor) -> npt.NDArray[np.float32]:
    """The values of a tensor, block by block and weight by weight as in ggml-quants.c (`dequantize_row_q4_0` etc.)."""
    shape, kind, data = tensor
    if kind in (0, 1):
        return np.frombuffer(data, ("<f4", "<f2")[kind]).astype(np.float32).reshape(shape)
    bits = next(bits for bits, number in TENSOR_TYPES.items() if number == kind)
    values = []
    for start in range(0, len(data), BLOCK_BYTES[bits]):
        block = data[start : start + BLOCK_BYTES[bits]]
        (scale,) = struct.unpack("<e", block[:2])
        if bits == 8:
            values += [code * scale for code in struct.unpack("<32b", block[2:])]
            continue
        fifth = struct.unpack("<I", block[2:6])[0] if bits == 5 else 0
        codes = block[-16:]
        nibbles = [codes[j] & 15 for j in range(16)] + [codes[j] >> 4 for j in range(16)]
        values += [((nibbles[j] | (fifth >> j & 1) << 4) - 2 ** (bits - 1)) * scale for j in range(32)]
    return np.array(values, np.float32).reshape(shape)


@pytest.mark.parametrize("bits", [16, 8, 5, 4])
def test_a_file_holds_exactly_what_torch_computes_with(bits: int, model: LoadedModel, tmp_path: Path) -> None:
    recipe = without(BLOCKS.get(bits, ORIGINAL), "decoder", 1)
    compressed = compress(model, recipe)
    export(model, recipe, compressed, tmp_path)
    file = Reader(tmp_path / "ggml-model.bin")
    assert file.header == (0x67676D6C, 51864, 1500, 64, 4, 2, 448, 64, 4, 2, 80, FILE_TYPES[bits])
    assert np.array_equal(file.filters, mel_filters(torch.device("cpu"), 80).numpy())
    tokenizer = get_tokenizer(False)
    assert len(file.tokens) == tokenizer.eot
    assert tokenizer.decode([1000, 2000, 50255]).encode() == b"".join(file.tokens[t] for t in (1000, 2000, 50255))
    state = compressed.network.state_dict()
    assert file.tensors.keys() == state.keys()
    for name, tensor in file.tensors.items():
        assert tensor[0] == (state[name].shape if name not in CONVOLUTION_BIASES else (64, 1))
        values = values_of(first_rows(tensor, 64))
        assert np.array_equal(values.reshape(-1), state[name][:64].numpy().reshape(-1)), name


@pytest.mark.parametrize("bits", [16, 8, 5, 4])
def test_types_are_those_that_whisper_cpp_allocates(bits: int, model: LoadedModel, tmp_path: Path) -> None:
    recipe = BLOCKS.get(bits, ORIGINAL)
    export(model, recipe, compress(model, recipe), tmp_path)
    for name, (shape, kind, _) in Reader(tmp_path / "ggml-model.bin").tensors.items():
        if len(shape) == 1 or name.endswith("positional_embedding") or name in CONVOLUTION_BIASES:
            assert kind == 0
        else:
            assert kind == (TENSOR_TYPES[16] if len(shape) == 3 else TENSOR_TYPES[bits])


def matrix() -> torch.Tensor:
    """Blocks of usual weights, of zeros, of one value, and with two equal extremes."""
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(3)).half().float()
    weight[0, :32], weight[1, 32:64] = 0, 0.25
    weight[2, :2] = torch.tensor([9.0, -9.0])
    return weight


@pytest.fixture(scope="module")
def ggml() -> ctypes.CDLL:
    spec = find_spec("pywhispercpp")
    assert spec is not None
    assert spec.origin is not None
    (file,) = (Path(spec.origin).parents[1] / "pywhispercpp.libs").glob("libggml-base*")
    library = ctypes.CDLL(str(file))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    return library


@pytest.mark.parametrize("bits", [8, 5, 4])
def test_own_rounding_is_ggmls_byte_for_byte(bits: int, ggml: ctypes.CDLL) -> None:
    weight = matrix()
    ours = blocks(own_rounding(weight, bits))
    theirs = np.zeros_like(ours)
    size_bytes = ggml.ggml_quantize_chunk(
        TENSOR_TYPES[bits], weight.data_ptr(), theirs.ctypes.data, 0, *weight.shape, None
    )
    assert size_bytes == ours.nbytes
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("bits", [8, 5, 4])
def test_our_rounding_is_no_worse_than_ggmls(bits: int) -> None:
    weight = matrix()
    ours, theirs = quantise(weight, Grid(bits=bits, group_size=32)), own_rounding(weight, bits)
    errors = [(rounded.dequantised() - weight).square().sum() for rounded in (ours, theirs)]
    assert errors[0] <= 1.0001 * errors[1]


def test_the_peer_is_the_uncompressed_model(model: LoadedModel, tmp_path: Path) -> None:
    weight = model.network.encoder.blocks[1].mlp[2].weight.detach().clone()
    export_own_rounding(model, 4, tmp_path)
    tensors = Reader(tmp_path / "ggml-model.bin").tensors
    assert np.array_equal(
        values_of(tensors["encoder.blocks.1.mlp.2.weight"]), own_rounding(weight, 4).dequantised().numpy()
    )
    assert torch.equal(weight, model.network.encoder.blocks[1].mlp[2].weight)


def test_what_is_executed() -> None:
    eight = changed(BLOCKS[8], activation_bits=8, window_s=15.0)
    for recipe in (ORIGINAL, *BLOCKS.values(), eight, without(ORIGINAL, "encoder", 0)):
        assert unsupported_reason("ggml", recipe, COMPACT) is None


REFUSED = {
    "vocabulary = 8192: whisper.cpp knows only Whisper's own vocabularies": changed(
        ORIGINAL, vocabulary=8192, vocabulary_language="en"
    ),
    "frequent_tokens = 512: whisper.cpp stores a matrix at one number of bits": changed(BLOCKS[4], frequent_tokens=512),
    "encoder.1.heads = 3 of 4": replace(
        ORIGINAL, encoder=(ORIGINAL.encoder[0], changed(ORIGINAL, encoder={"heads": 3}).encoder[1])
    ),
    "decoder.0.cross_heads = 2 of 4": changed(ORIGINAL, decoder={"cross_heads": 2}),
    "decoder.0.ffn_channels = 192 of 256": changed(ORIGINAL, decoder={"ffn_channels": 192}),
    "encoder.0.ffn_rank = 32: whisper.cpp has one matrix": changed(ORIGINAL, encoder={"ffn_rank": 32}),
    "encoder.0.attention_bits = 32": changed(ORIGINAL, bits=32, convolution_bits=32),
    "encoder.0.attention_bits = 6": changed(ORIGINAL, bits=6),
    "decoder.0.ffn_bits = 4 beside encoder.0.attention_bits = 8": changed(BLOCKS[8], decoder={"ffn_bits": 4}),
    "embedding_bits = 8 beside encoder.0.attention_bits = 16": changed(ORIGINAL, embedding_bits=8),
    "convolution_bits = 8": changed(BLOCKS[8], convolution_bits=8),
    "group_size = 0: whisper.cpp has groups of 32 weights": changed(ORIGINAL, bits=8),
    "scale_bits = 8: whisper.cpp has scales of 16 bits": changed(BLOCKS[4], scale_bits=8),
    "symmetric = false": changed(BLOCKS[4], symmetric=False),
    "activation_bits = 16": changed(BLOCKS[8], activation_bits=16),
    "activation_bits = 8: whisper.cpp has activations of 32 bits beside floating-point weights": changed(
        ORIGINAL, activation_bits=8
    ),
    "2 decoder layers: whisper.cpp cannot: it takes such a file for an early distil": without(BLOCKS[8], "decoder", 1),
    "activation_ranges = static": changed(BLOCKS[8], activation_bits=8, activation_ranges="static"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals_name_the_gene(reason: str) -> None:
    check_refused("ggml", REFUSED[reason], reason)
