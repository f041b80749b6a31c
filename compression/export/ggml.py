"""Export to whisper.cpp: one file, `ggml-model.bin`, with weights, mel filters and vocabulary.

The layout follows whisper.cpp's models/convert-pt-to-ggml.py and examples/quantize/quantize.cpp. Integer matrices are
in blocks of 32 weights with a float16 scale d and codes c, w = (c - 2^(b-1)) d, which is our symmetric grid
(ggml-common.h: `block_q8_0`, `block_q5_0`, `block_q4_0`).

Where weights are integers, whisper.cpp also rounds activations to 8 bits in blocks of 32, so that a recipe with
`activation_bits` 8 is nearest to what it computes. The file holds no window: a call's `audio_ctx` has to be 50 for
each second of the window that the recipe asks for, rounded up to whole 256 where flash attention is on, which does not
mask the rest.
"""

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from whisper.audio import mel_filters
from whisper.model import Whisper

from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.grids import QuantisedMatrix
from compression.whisper.load import LoadedModel
from compression.whisper.tokenizer import text_tokens, tokenizer_of

FILE_NAME = "ggml-model.bin"
BLOCK = 32
_MAGIC = 0x67676D6C


_QUANTISED_FILE = 2000
"""Added to a file's type where it holds blocks: version 2 of their layout."""


@dataclass(frozen=True, kw_only=True)
class _Type:
    """ggml's numbers of a tensor's type and of a file whose matrices have it (ggml.h: `ggml_type`, `ggml_ftype`)."""

    tensor: int
    file: int


_FLOAT32 = 0
_FLOAT16 = _Type(tensor=1, file=1)
_TYPES = {
    16: _FLOAT16,
    8: _Type(tensor=8, file=_QUANTISED_FILE + 7),
    5: _Type(tensor=6, file=_QUANTISED_FILE + 8),
    4: _Type(tensor=2, file=_QUANTISED_FILE + 2),
}
"""By weight bits. Not float32: the convolutions of such a file end whisper.cpp 1.8.5 with a failed assertion."""


def export(model: LoadedModel, recipe: Recipe, compressed: Compressed, out: Path) -> None:
    """Write `compress(model, recipe, ...)` as one file into the folder `out`; the recipe must not be refused."""
    _write(out / FILE_NAME, compressed, recipe.embedding_bits)


def export_own_rounding(model: LoadedModel, bits: int, out: Path) -> None:
    """Write the uncompressed model as whisper.cpp's own `quantize` does (8, 5 or 4 bits): a peer to compare with."""
    matrices = {
        name: own_rounding(module.weight.detach(), bits)
        for name, module in model.network.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    }
    _write(out / FILE_NAME, replace(Compressed.original(model.network), matrices=matrices), bits)


def own_rounding(weight: Tensor, bits: int) -> QuantisedMatrix:
    """A matrix (N, K) as whisper.cpp's own tools round it (ggml-quants.c: `quantize_row_q8_0_ref` and its siblings).

    Unlike ours, its 8 bits have the scale max |w| / 127 and never use code 0; all codes come from the scale as it
    was before its own rounding to float16, and halves are rounded up (away from zero at 8 bits).
    """
    groups = weight.unflatten(1, (-1, BLOCK))
    extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scales = extreme.abs() / 127 if bits == 8 else extreme / -(2 ** (bits - 1))
    products = groups * torch.where(scales == 0, 0.0, 1 / scales)
    if bits == 8:
        codes = products.sign() * (products.abs() + 0.5).floor() + 128
    else:
        codes = (products + (2 ** (bits - 1) + 0.5)).trunc().clamp(max=2**bits - 1)
    return QuantisedMatrix(
        codes=codes.to(torch.uint8),
        scales=scales.squeeze(-1).half(),
        zero_points=None,
        bits=bits,
        columns=weight.shape[1],
    )


def _write(path: Path, compressed: Compressed, bits: int) -> None:
    """The whole file; `bits` are those of its matrices."""
    network = compressed.network
    with path.open("wb") as handle:
        _write_header(handle, network, _TYPES[bits].file)
        for name, value in network.state_dict().items():
            module, _, parameter = name.rpartition(".")
            quantised = compressed.matrices.get(module) if parameter == "weight" else None
            _write_tensor(handle, name, value, quantised)


def _write_header(handle: BinaryIO, network: Whisper, file_type: int) -> None:
    """Hyper-parameters, mel filters, vocabulary (whisper.cpp knows the special tokens)."""
    dims = network.dims
    handle.write(
        struct.pack(
            "<12i",
            _MAGIC,
            dims.n_vocab,
            dims.n_audio_ctx,
            dims.n_audio_state,
            dims.n_audio_head,
            len(network.encoder.blocks),
            dims.n_text_ctx,
            dims.n_text_state,
            dims.n_text_head,
            len(network.decoder.blocks),
            dims.n_mels,
            file_type,
        )
    )
    filters = mel_filters(torch.device("cpu"), dims.n_mels).numpy()
    handle.write(struct.pack("<2i", *filters.shape) + filters.astype("<f4").tobytes())
    tokens = text_tokens(tokenizer_of(network))
    handle.write(struct.pack("<i", len(tokens)))
    for token in tokens:
        handle.write(struct.pack("<i", len(token)) + token)


def _write_tensor(handle: BinaryIO, name: str, value: Tensor, quantised: QuantisedMatrix | None) -> None:
    """One tensor behind its own header: weights as blocks or float16, everything else as float32."""
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        value = value.unsqueeze(1)  # as it is added to (channels, frames)
    if quantised is not None:
        kind, data = _TYPES[quantised.bits].tensor, blocks(quantised).tobytes()
    elif value.dim() > 1 and name.endswith("weight"):
        kind, data = _FLOAT16.tensor, value.numpy().astype("<f2").tobytes()
    else:
        kind, data = _FLOAT32, value.numpy().astype("<f4").tobytes()
    encoded = name.encode()
    handle.write(struct.pack("<3i", value.dim(), len(encoded), kind))
    handle.write(struct.pack(f"<{value.dim()}i", *reversed(value.shape)))
    handle.write(encoded + data)


def blocks(quantised: QuantisedMatrix) -> npt.NDArray[np.uint8]:
    """ggml's blocks of a symmetric matrix with groups of 32: bytes (N, K / 32, bytes of a block).

    A block is its scale, then 8-bit codes as signed bytes, or the lower four bits of codes j and j + 16 in one
    byte; 5 bits have the fifth bits of all codes in between, code j's in bit j of a little-endian word.
    """
    codes = quantised.codes.numpy()
    scales = quantised.scales.numpy().astype("<f2")[..., None].view(np.uint8)
    if quantised.bits == 8:
        return np.concatenate([scales, codes ^ 0x80], axis=-1)
    halves = codes & 15
    packed = halves[..., : BLOCK // 2] | halves[..., BLOCK // 2 :] << 4
    fifth = [np.packbits(codes >> 4, axis=-1, bitorder="little")] if quantised.bits == 5 else []
    return np.concatenate([scales, *fifth, packed], axis=-1)
