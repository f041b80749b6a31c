"""The weights of a .tflite file as a recipe stores them: our own codes in the place of floating-point values.

`litert_torch` writes float32. A matrix is found again by its values, which the conversion leaves as they are. The
layout is that of LiteRT's schema (`QuantizationParameters`, `BlockwiseQuantization`), as `ai_edge_quantizer` 0.10
writes it, whose own rounding is not used.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from common.errors import CompressionError

DEQUANTIZE_VERSION = 6
STRETCHES = 8
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """A matrix on a symmetric integer grid. `values` (N, G, g) int8, `scales` (N, G) float32.

    `is_unpacked`: the runtime multiplies by floats that it makes of them when it loads them; else by the codes, and
    rounds what they multiply to 8 bits.
    """

    bits: int
    values: npt.NDArray[np.int8]
    scales: Floats
    is_unpacked: bool

    @classmethod
    def of(cls, codes: npt.NDArray[np.uint8], scales: Floats, *, bits: int, is_unpacked: bool) -> "Codes":
        """From a `QuantisedMatrix`'s codes and scales.

        XNNPACK multiplies by codes only where scales are positive. Where one is negative, its weights are rounded anew.
        """
        signed = codes.astype(np.int16) - 2 ** (bits - 1)
        if not is_unpacked:
            values = signed * scales[..., None]
            signed[scales == 0] = 0
            scales = np.where(scales == 0, np.float32(1), scales)
            is_negative = scales < 0
            signed[is_negative], scales[is_negative] = _positive(values[is_negative], -scales[is_negative], bits)
        return cls(bits=bits, values=signed.astype(np.int8), scales=scales, is_unpacked=is_unpacked)

    @property
    def has_blocks(self) -> bool:
        return self.scales.shape[1] > 1

    def packed(self) -> npt.NDArray[np.uint8]:
        """Bytes; of 4 bits two codes in one, the first in its lower half."""
        flat = self.values.reshape(-1).view(np.uint8)
        halves = [flat[::2] & 15, flat[1::2] << 4]
        return flat if self.bits == 8 else np.bitwise_or(*halves, dtype=np.uint8)


def _positive(values: Floats, scales: Floats, bits: int) -> tuple[npt.NDArray[np.int16], Floats]:
    """Codes and scales (rows,) of values (rows, g) from -(half - 1) to half steps of `scales`, half being 2^(bits - 1).

    A positive scale lacks the code of the last step. Of scales between this one, which clips it, and that which reaches
    it, each row has the one with the least squared error.
    """
    half = 2 ** (bits - 1)
    best = (np.zeros(values.shape, np.int16), scales, np.full(scales.shape, np.inf, np.float32))
    for stretch in np.linspace(1, half / (half - 1), STRETCHES):
        sizes = (scales * np.float32(stretch)).astype(np.float16).astype(np.float32)
        codes = np.clip(np.rint(values / sizes[:, None]), -half, half - 1).astype(np.int16)
        errors = ((codes * sizes[:, None] - values) ** 2).sum(axis=1)
        is_better = errors < best[2]
        best = (
            np.where(is_better[:, None], codes, best[0]),
            np.where(is_better, sizes, best[1]),
            np.minimum(errors, best[2]),
        )
    return best[0], best[1]


def digest(values: Floats) -> bytes:
    """By which a matrix is found."""
    return hashlib.sha256(values.tobytes()).digest()


def stored(file: bytes, matrices: Mapping[bytes, Codes]) -> bytes:
    """The model with those matrices as codes, and other matrices as float16 where that changes none of their values.

    `matrices`: by the `digest` of their values. Raises CompressionError when one of them is not in the file.
    """
    from ai_edge_litert.tools import flatbuffer_utils  # noqa: PLC0415 - only this target needs it

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(file))
    writer = _Writer(schema=flatbuffer_utils.schema_fb, model=model)
    forms, found = _forms(writer, matrices)
    if missing := len(matrices) - len(found):
        raise CompressionError(f"{missing} of {len(matrices)} matrices are not in the file that litert_torch made")
    for subgraph in model.subgraphs:
        writer.rewrite(subgraph, forms)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _forms(writer: "_Writer", matrices: Mapping[bytes, Codes]) -> tuple[dict[int, Codes | None], set[bytes]]:
    """What the constants become, by buffer, their bytes being replaced: codes, or None for float16; and which matrices
    were found.
    """
    forms, found = dict[int, Codes | None](), set[bytes]()
    constants = (tensor for subgraph in writer.model.subgraphs for tensor in writer.floats(subgraph))
    ranks = {tensor.buffer: sum(size > 1 for size in tensor.shape) for tensor in constants}
    for index, rank in ranks.items():
        buffer = writer.model.buffers[index]
        values = np.asarray(buffer.data, np.uint8).view(np.float32)
        if codes := matrices.get(key := digest(values)):
            found.add(key)
            forms[index], buffer.data = codes, codes.packed()
        elif rank > 1 and np.array_equal(values, values.astype(np.float16)):
            forms[index], buffer.data = None, values.astype(np.float16).view(np.uint8)
    return forms, found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Writer:
    """`schema`: the module of the format's classes. `model`: changed in place."""

    schema: Any
    model: Any

    def floats(self, subgraph: Any) -> list[Any]:
        """Its float32 tensors that are constant."""
        is_float = self.schema.TensorType.FLOAT32
        constants = [tensor for tensor in subgraph.tensors if tensor.type == is_float and tensor.buffer]
        return [tensor for tensor in constants if self.model.buffers[tensor.buffer].data is not None]

    def rewrite(self, subgraph: Any, forms: Mapping[int, Codes | None]) -> None:
        """Types, scales and unpacking of the constants that have new bytes."""
        numbers = {id(tensor): number for number, tensor in enumerate(subgraph.tensors)}
        unpacking = []
        for tensor in self.floats(subgraph):
            if tensor.buffer in forms:
                form = forms[tensor.buffer]
                if form is None:
                    tensor.type = self.schema.TensorType.FLOAT16
                else:
                    self._quantise(subgraph, tensor, form)
                if form is None or form.is_unpacked:
                    unpacking.append(self._unpack(subgraph, numbers[id(tensor)], looks_up=form is not None))
        subgraph.operators[:0] = unpacking

    def _quantise(self, subgraph: Any, tensor: Any, codes: Codes) -> None:
        tensor.type = self.schema.TensorType.INT8 if codes.bits == 8 else self.schema.TensorType.INT4
        tensor.quantization = self.schema.QuantizationParametersT()
        tensor.quantization.quantizedDimension = 0
        if not codes.has_blocks:
            tensor.quantization.scale = codes.scales[:, 0]
            tensor.quantization.zeroPoint = np.zeros(len(codes.scales), np.int64)  # the loader wants one a row
            return
        blocks = self.schema.BlockwiseQuantizationT()
        blocks.scales, blocks.zeroPoints = self._scales(subgraph, tensor.name, codes.scales), -1
        blocks.blockSize = codes.values.shape[2]
        tensor.quantization.details = blocks
        tensor.quantization.detailsType = self.schema.QuantizationDetails.BlockwiseQuantization

    def _scales(self, subgraph: Any, name: bytes, scales: Floats) -> int:
        """The number of a new constant, in float16 as the format wants it."""
        buffer = self.schema.BufferT()
        buffer.data = scales.astype(np.float16).reshape(-1).view(np.uint8)
        self.model.buffers.append(buffer)
        tensor = self._tensor(name + b"_scales", scales.shape, self.schema.TensorType.FLOAT16)
        tensor.buffer = len(self.model.buffers) - 1
        subgraph.tensors.append(tensor)
        return len(subgraph.tensors) - 1

    def _unpack(self, subgraph: Any, number: int, *, looks_up: bool) -> Any:
        """An operator whose float32 output takes the constant's place; `looks_up`: not where rows are looked up, which
        reads codes itself.
        """
        packed = subgraph.tensors[number]
        subgraph.tensors.append(self._tensor(packed.name + b"_float", packed.shape, self.schema.TensorType.FLOAT32))
        output = len(subgraph.tensors) - 1
        for reader in subgraph.operators:
            kind = self.model.operatorCodes[reader.opcodeIndex].builtinCode
            if not (looks_up and kind == self.schema.BuiltinOperator.EMBEDDING_LOOKUP):
                reader.inputs = [output if tensor == number else tensor for tensor in reader.inputs]
        unpack = self.schema.OperatorT()
        unpack.opcodeIndex, unpack.inputs, unpack.outputs = self._dequantize(), [number], [output]
        unpack.builtinOptionsType = self.schema.BuiltinOptions.DequantizeOptions
        unpack.builtinOptions = self.schema.DequantizeOptionsT()
        return unpack

    def _tensor(self, name: bytes, shape: Iterable[int], kind: int) -> Any:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, 0
        return tensor

    def _dequantize(self) -> int:
        """The number of that operator's code, which is added where it is missing."""
        kind = self.schema.BuiltinOperator.DEQUANTIZE
        for number, code in enumerate(self.model.operatorCodes):
            if code.builtinCode == kind:
                return number
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, kind, DEQUANTIZE_VERSION
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1
