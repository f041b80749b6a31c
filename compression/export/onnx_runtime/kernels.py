"""Operators that multiply by a stored matrix, or read rows of it.

| weights | stored | kernel |
|---|---|---|
| 32, 16 bits | float32, float16 | MatMul in float32; float16 is widened once, when the artifact is loaded |
| 8, 4, 2 bits | packed codes, scales, zero points unless symmetric | MatMulNBits |
| 8 bits, for one row at a time | the high and low halves of the codes apart | two MatMulNBits of 4 bits |
| 8 bits per channel, 8-bit activations | int8 codes | MatMulInteger, see `rounded.py` |
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from onnx import TensorProto

from compression.export.onnx_runtime.graph import CONTRIB, Graph
from compression.export.onnx_runtime.weights import Array, Codes, Matrix, packed
from compression.techniques.grids import SCALE_CODES

Rows = Literal["many", "one"]
"""How many rows x has: the frames of a window, or the one token of a step."""
Accuracy = Literal[1, 4]
"""MatMulNBits' `accuracy_level`."""
FLOAT: Accuracy = 1
INT8_BLOCKS: Accuracy = 4
"""x is rounded to int8 in blocks as long as the weights' groups, where the processor has such a kernel."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One integer matrix by the names of its tensors; the matrix is the sum of its parts.

    `zero_points`: "" for 2^(bits - 1) everywhere. `factor`: on the scales, which the parts share.
    """

    codes: str
    zero_points: str
    bits: int
    factor: float = 1.0


def multiply(graph: Graph, x: str, matrix: Matrix, *, rows: Rows, accuracy: Accuracy = FLOAT) -> str:
    """x (..., K) times the matrix's transpose, plus its bias: (..., N)."""
    if matrix.codes is None:
        return _multiply_floats(graph, x, matrix)
    scales = _block_scales(graph, matrix.name, matrix.codes)
    sums: list[str] = []
    for part in _parts(graph, matrix.name, matrix.codes, split=rows == "one" and accuracy == FLOAT):
        scaled = scales if part.factor == 1 else graph.op("Mul", scales, graph.scalar(part.factor))
        bias = "" if sums else bias_of(graph, matrix)
        inputs = (x, part.codes, scaled, part.zero_points, "", bias)
        attributes = {"bits": part.bits, "accuracy_level": accuracy, **_kernel_shape(matrix.codes)}
        sums.append(graph.op("MatMulNBits", *inputs, name=matrix.name, domain=CONTRIB, **attributes))
    return sums[0] if len(sums) == 1 else graph.op("Add", *sums, name=matrix.name)


def look_up(graph: Graph, ids: str, matrix: Matrix) -> str:
    """Rows of the matrix for int64 ids (n,): float32 (n, K). Shares every stored tensor with `multiply` of one row."""
    if matrix.codes is None:
        stored = graph.constant(f"{matrix.name}.values", _values(matrix))
        return graph.cast(graph.op("Gather", stored, ids), TensorProto.FLOAT)
    codes = matrix.codes
    sums: list[str] = []
    for part in _parts(graph, matrix.name, codes, split=True):
        values = _unpacked(graph, graph.op("Gather", part.codes, ids), part.bits, (0, codes.blocks, codes.block))
        zeros = graph.scalar(float(2 ** (part.bits - 1)))
        if part.zero_points:
            rows = _unpacked(graph, graph.op("Gather", part.zero_points, ids), part.bits, (0, -1, 1))
            zeros = graph.op("Slice", rows, graph.integers(0), graph.integers(codes.blocks), graph.integers(1))
        sums.append(graph.op("Mul", graph.op("Sub", values, zeros), graph.scalar(part.factor)))
    whole = sums[0] if len(sums) == 1 else graph.op("Add", *sums)
    scales = graph.op("Unsqueeze", _scales(graph, matrix.name, codes, ids), graph.integers(-1))
    blocks = graph.op("Mul", whole, scales)
    return _columns(graph, blocks, codes)


def expanded(graph: Graph, matrix: Matrix, shape: tuple[int, ...]) -> str:
    """The matrix as float32 of another shape, computed once, when the artifact is loaded."""
    if matrix.codes is None:
        return graph.floats(f"{matrix.name}.values", _values(matrix).reshape(shape))
    codes = matrix.codes
    stored = graph.constant(f"{matrix.name}.codes", packed(codes.codes, codes.bits))
    values = _unpacked(graph, stored, codes.bits, codes.codes.shape)
    zeros = graph.scalar(float(2 ** (codes.bits - 1)))
    if codes.zero_points is not None:
        zeros = graph.cast(
            graph.constant(f"{matrix.name}.zero_points", codes.zero_points[..., None]), TensorProto.FLOAT
        )
    scales = graph.floats(f"{matrix.name}.scales", codes.scales[..., None])
    blocks = graph.op("Mul", graph.op("Sub", values, zeros), scales)
    return graph.op("Reshape", _columns(graph, blocks, codes), graph.integers(*shape))


def _columns(graph: Graph, blocks: str, codes: Codes) -> str:
    """(rows, B, block) -> (rows, K)."""
    flat = graph.op("Reshape", blocks, graph.integers(0, codes.blocks * codes.block))
    if codes.blocks * codes.block == codes.columns:
        return flat
    return graph.op("Slice", flat, graph.integers(0), graph.integers(codes.columns), graph.integers(1))


def _unpacked(graph: Graph, codes: str, bits: int, shape: tuple[int, ...]) -> str:
    """Packed codes as float32 of a shape (0: as it was), by a table of what each byte holds."""
    lanes = np.arange(256)[:, None] >> np.arange(0, 8, bits) & (2**bits - 1)
    table = graph.constant(f"bytes_of_{bits}_bits", lanes.astype(np.float32))
    values = graph.op("Gather", table, graph.cast(codes, TensorProto.INT32))
    return graph.op("Reshape", values, graph.integers(*shape))


def _parts(graph: Graph, name: str, codes: Codes, *, split: bool) -> tuple[Part, ...]:
    """Store the codes as they are, or 8-bit codes as a sum of two 4-bit matrices.

    MatMulNBits multiplies a single row by 8-bit codes in float32 only by unpacking the whole matrix, some fifty times
    slower than its 4-bit kernel. With c = 16 h + l and z = 16 y + k,

        s (c - z) = 16 s (h - y) + s (l - k),

    two 4-bit matrices of together the same bytes.
    """
    zeros = None if codes.zero_points is None else _per_block(codes, codes.zero_points)
    if not split or codes.bits != 8:
        stored = "" if zeros is None else graph.constant(f"{name}.zero_points", packed(zeros, codes.bits))
        weight = graph.constant(f"{name}.codes", packed(codes.codes, codes.bits))
        return (Part(codes=weight, zero_points=stored, bits=codes.bits),)
    if zeros is None:
        bytes_per_row = -(-codes.blocks // 2)
        zero_byte = graph.constant("zero_byte", np.zeros((1, 1), np.uint8))
        high_zeros, low_zeros = "", graph.op("Expand", zero_byte, graph.integers(len(codes.codes), bytes_per_row))
    else:
        high_zeros = graph.constant(f"{name}.high_zero_points", packed(zeros >> 4, 4))
        low_zeros = graph.constant(f"{name}.low_zero_points", packed(zeros & 15, 4))
    high = graph.constant(f"{name}.high_codes", packed(codes.codes >> 4, 4))
    low = graph.constant(f"{name}.low_codes", packed(codes.codes & 15, 4))
    return (
        Part(codes=high, zero_points=high_zeros, bits=4, factor=16.0),
        Part(codes=low, zero_points=low_zeros, bits=4),
    )


def _kernel_shape(codes: Codes) -> dict[str, int]:
    return {"K": codes.columns, "N": len(codes.codes), "block_size": codes.block}


def _scales(graph: Graph, name: str, codes: Codes, ids: str = "") -> str:
    """(N, G) float32, or those of some rows."""

    def part(of: str, values: Array) -> str:
        stored = graph.constant(f"{name}.{of}", values)
        return graph.cast(graph.op("Gather", stored, ids) if ids else stored, TensorProto.FLOAT)

    scales = part("scales", codes.scales)
    if codes.row_scales is None:
        return scales
    rows = graph.op("Mul", part("row_scales", codes.row_scales), graph.scalar(1 / SCALE_CODES))
    return graph.op("Mul", scales, rows)


def _block_scales(graph: Graph, name: str, codes: Codes) -> str:
    """(N, B) float32."""
    scales = _scales(graph, name, codes)
    if codes.scales.shape[1] == codes.blocks:
        return scales
    return graph.op("Expand", scales, graph.integers(len(codes.codes), codes.blocks))


def _per_block(codes: Codes, of_groups: Array) -> Array:
    """(N, G) -> (N, B)."""
    return np.repeat(of_groups, codes.blocks // of_groups.shape[1], axis=1)


def _multiply_floats(graph: Graph, x: str, matrix: Matrix) -> str:
    weight = graph.op("Transpose", graph.floats(f"{matrix.name}.values", _values(matrix)), perm=[1, 0])
    product = graph.op("MatMul", x, weight, name=matrix.name)
    bias = bias_of(graph, matrix)
    return graph.op("Add", product, bias, name=matrix.name) if bias else product


def bias_of(graph: Graph, matrix: Matrix) -> str:
    """The bias as float32; "" where there is none."""
    return "" if matrix.bias is None else graph.floats(f"{matrix.name}.bias", matrix.bias)


def _values(matrix: Matrix) -> Array:
    if matrix.values is None:
        raise ValueError(f"{matrix.name} is on an integer grid")
    return matrix.values
