"""Operations as small ONNX models, made of the exporter's own operators, to be timed by themselves.

A model runs an operation several times (`copies`), each with weights of its own, so that the fixed cost of a run is
small beside them and no weight is found in a cache. Weights are constant tensors that onnxruntime makes when it loads
the model: the files are a few kilobytes.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, numpy_helper
from torch import nn
from whisper.model import Linear

from compression.export.onnx_runtime.graph import CONTRIB, INLINE_BYTES, Graph
from compression.export.onnx_runtime.kernels import FLOAT, INT8_BLOCKS, Rows, look_up, multiply
from compression.export.onnx_runtime.layers import Builder
from compression.export.onnx_runtime.rounded import multiply_integers, quantised_input
from compression.export.onnx_runtime.weights import Codes, Matrix
from compression.recipe.kernels import Precision
from compression.techniques.activations import DynamicLinear, StaticLinear
from devices.operation import FLOAT_BITS, Operation, OperationKind
from devices.streams import CACHED_MB, streamed_bytes

STREAMED_BYTES = CACHED_MB * 1e6
"""Weights, or keys and values, that the copies of a one-row operation have together."""
STREAM_ROWS, STREAM_COLUMNS = 512, 2048
"""Of each matrix of which a stream is made."""
STREAM_CACHE = Operation(kind="cross_attention", heads=8, k=64, n=750)
"""Of which a stream of keys and values is made."""
RUN_MACS = 2e8
"""About the arithmetic of one run of a model whose operation multiplies matrices."""
RUN_VALUES = 4e6
"""The same for operations that go through their input once."""
MAX_COPIES = 96
HEAD_WIDTH = 64
"""Of every Whisper."""
MANY_OUTPUTS = 16
"""More are joined."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """A tensor to feed, of any values; `type` is numpy's name."""

    name: str
    shape: tuple[int, ...]
    type: str = "float32"


@dataclass(frozen=True, kw_only=True)
class OperationModel:
    """A serialised ONNX model of `copies` times one operation; a run takes and gives `values` tensors."""

    operation: Operation
    copies: int
    inputs: tuple[Input, ...]
    values: int
    model: bytes


def operation_model(operation: Operation) -> OperationModel:
    """The model to time an operation by."""
    copies = _copies(operation)
    graph = _ConstantGraph("operation")
    inputs = tuple(_BUILDERS[operation.kind](graph, operation, copies))
    values = len(inputs) + graph.output_count
    return OperationModel(operation=operation, copies=copies, inputs=inputs, values=values, model=graph.to_bytes())


class _ConstantGraph(Graph):
    """Stores what is large as one number and its shape.

    Each time another number: onnxruntime would keep equal tensors once. Codes have few numbers, so they are counted by
    themselves: two tensors of them per copy are fewer than 251.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._made: dict[str, str] = {}
        self._numbers: Counter[str] = Counter()

    def constant(self, name: str, values: npt.NDArray[Any]) -> str:
        if values.nbytes <= INLINE_BYTES:
            return super().constant(name, values)
        if name not in self._made:
            self._numbers[values.dtype.kind] += 1
            number = self._numbers[values.dtype.kind]
            fill = number % 251 if values.dtype.kind in "iu" else number / 1000
            value = numpy_helper.from_array(np.array([fill]).astype(values.dtype))
            self._made[name] = self.op("ConstantOfShape", self.integers(*values.shape), name=name, value=value)
        return self._made[name]


def _copies(operation: Operation) -> int:
    o = operation
    match o.kind:
        case "gemv":
            return min(ceil(STREAMED_BYTES / streamed_bytes(o)), MAX_COPIES)
        case "stream" | "cache_stream":
            return max(1, round(o.n * 1e6 / streamed_bytes(_piece(o))))
        case "cross_attention":
            copies = STREAMED_BYTES / streamed_bytes(o)
        case "gemm" | "convolution":
            copies = RUN_MACS / (o.m * o.k * o.n)
        case "attention":
            copies = RUN_MACS / (2 * o.heads * o.m * o.k * o.n)
        case "session":
            return 1
        case _:
            copies = RUN_VALUES / (o.m * o.k * o.n)
    return min(max(ceil(copies), 2), MAX_COPIES)


def _rows(graph: Graph, shape: tuple[int, ...], copies: int) -> tuple[list[Input], tuple[str, ...]]:
    """An input for every copy: what is computed from one input alone would be computed once for all copies.

    Single rows come side by side in one input, since passing a value costs as much as working on a row.
    """
    if shape[1] == 1:
        whole = Input(name="x", shape=(1, 1, copies * shape[2]))
        return [whole], graph.ops("Split", _declare(graph, whole), outputs=copies, axis=-1, num_outputs=copies)
    inputs = [Input(name=f"x_{index}", shape=shape) for index in range(copies)]
    return inputs, tuple(_declare(graph, value) for value in inputs)


def _give(graph: Graph, values: list[str], shape: tuple[int | str, ...], *, name: str = "y", **dtype: int) -> None:
    """Outputs of this shape, (batch, rows or heads, ...); single rows as one."""
    if len(values) > MANY_OUTPUTS:
        graph.output(graph.op("Concat", *values, axis=1), name, (shape[0], "joined", *shape[2:]), **dtype)
        return
    for index, value in enumerate(values):
        graph.output(value, f"{name}_{index}", shape, **dtype)


def _declare(graph: Graph, value: Input, dtype: int = TensorProto.FLOAT) -> str:
    """Rows are a free dimension, as in an artifact: onnxruntime optimises fixed shapes otherwise."""
    return graph.input(value.name, dtype, ("batch", "rows", *value.shape[2:]))


def _piece(stream: Operation) -> Operation:
    """One of the operations that a stream is made of."""
    if stream.kind == "cache_stream":
        return STREAM_CACHE
    return replace(stream, kind="gemv", k=STREAM_ROWS, n=STREAM_COLUMNS)


def _stream(graph: Graph, o: Operation, copies: int) -> list[Input]:
    """One after the other, as a step of the decoder does."""
    piece = _piece(o)
    return _BUILDERS[piece.kind](graph, piece, copies)


def _product(graph: Graph, o: Operation, copies: int) -> list[Input]:
    inputs, xs = _rows(graph, (1, o.m, o.k), copies)
    rows: Rows = "one" if o.kind == "gemv" else "many"
    ys = []
    for index, x in enumerate(xs):
        matrix = _matrix(f"weight_{index}", o)
        if o.activation_bits == 8 and not o.group_size:
            ys.append(multiply_integers(graph, x, matrix, _dynamic(o.k, 8)))
        else:
            accuracy = INT8_BLOCKS if o.activation_bits == 8 else FLOAT
            ys.append(multiply(graph, x, matrix, rows=rows, accuracy=accuracy))
    _give(graph, ys, ("batch", "rows", o.n))
    return inputs


def _matrix(name: str, o: Operation) -> Matrix:
    """Zeros that take no memory."""
    bias = np.full(o.n, 0.5, np.float32)
    if o.weight_bits == FLOAT_BITS:
        return Matrix(name=name, values=_constant((o.n, o.k), np.float32), codes=None, bias=bias)
    block = o.group_size or o.k
    blocks = ceil(o.k / block)
    groups = blocks if o.group_size else 1
    codes = Codes(
        codes=_constant((o.n, blocks, block), np.uint8),
        scales=_constant((o.n, groups), np.float16),
        zero_points=None,
        bits=o.weight_bits,
        columns=o.k,
    )
    return Matrix(name=name, values=None, codes=codes, bias=bias)


def _constant(shape: tuple[int, ...], dtype: type[Any]) -> npt.NDArray[Any]:
    return np.broadcast_to(np.ones((), dtype), shape)


def _dynamic(width: int, bits: int) -> DynamicLinear:
    return DynamicLinear(Linear(width, 1), bits=bits, range_over="token")


def _rounding(graph: Graph, o: Operation, copies: int) -> list[Input]:
    inputs, xs = _rows(graph, (1, o.m, o.k), copies)
    layer: DynamicLinear | StaticLinear = _dynamic(o.k, o.activation_bits)
    if o.kind == "quantise":
        layer = StaticLinear(Linear(o.k, 1), bits=o.activation_bits, low=-1.0, high=1.0)
    codes = [quantised_input(graph, x, layer)[0] for x in xs]
    _give(graph, codes, ("batch", "rows", o.k), dtype=_code_type(o.activation_bits))
    return inputs


def _code_type(bits: int) -> int:
    return {8: TensorProto.UINT8, 16: TensorProto.UINT16}[bits]


def _dequantise(graph: Graph, o: Operation, copies: int) -> list[Input]:
    dtype = {8: np.uint8, 16: np.uint16}[o.activation_bits]
    x = Input(name="x", shape=(1, o.m, o.k), type=np.dtype(dtype).name)
    _declare(graph, x, _code_type(o.activation_bits))
    zero = graph.constant("zero", np.array(3, dtype))
    scales = [graph.scalar(0.01 * (index + 1)) for index in range(copies)]
    values = [graph.op("DequantizeLinear", x.name, scale, zero) for scale in scales]
    _give(graph, values, ("batch", "rows", o.k))
    return [x]


def _convolution(graph: Graph, o: Operation, copies: int) -> list[Input]:
    """Whisper's first convolution keeps the frames, its second, as wide as its input, halves them."""
    channels = o.k // 3
    stride = 2 if channels == o.n else 1
    shape = (1, channels, o.m * stride)
    x = graph.input("x", TensorProto.FLOAT, (1, channels, "frames"))
    for index in range(copies):
        weight = graph.constant(f"weight_{index}", _constant((o.n, channels, 3), np.float32))
        bias = graph.constant(f"bias_{index}", np.full(o.n, 0.5, np.float32))
        y = graph.op("Conv", x, weight, bias, pads=[1, 1], strides=[stride])
        graph.output(y, f"y_{index}", (1, o.n, "positions"))
    return [Input(name="x", shape=shape)]


def _attention(graph: Graph, o: Operation, copies: int) -> list[Input]:
    """Queries, keys and values come side by side from one product."""
    build, inner = _builder(graph), o.heads * o.k
    inputs, xs = _rows(graph, (1, o.m, 3 * inner), copies)
    _give(graph, [build.attend(*build.split(x, 3), heads=o.heads) for x in xs], ("batch", "rows", inner))
    return inputs


def _cached_attention(graph: Graph, o: Operation, copies: int) -> list[Input]:
    build, inner = _builder(graph), o.heads * o.k
    inputs, xs = _rows(graph, (1, o.m, 3 * inner), copies)
    caches = [Input(name=name, shape=(1, o.heads, o.n - o.m, o.k)) for name in ("past_key", "past_value")]
    pasts = [graph.input(cache_name.name, TensorProto.FLOAT, ("batch", o.heads, "past", o.k)) for cache_name in caches]
    made = [
        graph.ops(
            "MultiHeadAttention",
            *(*build.split(x, 3), "", "", "", *pasts),
            outputs=3,
            domain=CONTRIB,
            num_heads=o.heads,
            unidirectional=1,
        )
        for x in xs
    ]
    mixed, keys, values = (list(outputs) for outputs in zip(*made, strict=True))
    _give(graph, mixed, ("batch", "rows", inner))
    _give(graph, keys, ("batch", o.heads, "length", o.k), name="key")
    _give(graph, values, ("batch", o.heads, "length", o.k), name="value")
    return [*inputs, *caches]


def _cross_attention(graph: Graph, o: Operation, copies: int) -> list[Input]:
    """Every copy has keys and values of its own, as every layer of the decoder has."""
    build, inner = _builder(graph), o.heads * o.k
    inputs, xs = _rows(graph, (1, o.m, inner), copies)
    ys = []
    for index, x in enumerate(xs):
        pair = [Input(name=f"{name}_{index}", shape=(1, o.heads, o.n, o.k)) for name in ("key", "value")]
        inputs += pair
        key, value = (graph.input(member.name, TensorProto.FLOAT, (1, o.heads, "positions", o.k)) for member in pair)
        flat = graph.op("Reshape", x, graph.integers(1, -1, inner))
        mixed = build.attend(flat, key, value, heads=o.heads)
        ys.append(graph.op("Reshape", mixed, graph.integers(1, o.m, inner)))
    _give(graph, ys, ("batch", "rows", inner))
    return inputs


def _split_heads(graph: Graph, o: Operation, copies: int) -> list[Input]:
    build, heads = _builder(graph), o.n // (2 * HEAD_WIDTH)
    inputs, xs = _rows(graph, (1, o.m, o.n), copies)
    parts = [part for x in xs for part in build.split(x, 2)]
    by_head = [build.by_head(part, heads=heads, width=HEAD_WIDTH) for part in parts]
    if len(by_head) <= MANY_OUTPUTS:
        _give(graph, by_head, (1, heads, "rows", HEAD_WIDTH))
    else:  # onnxruntime would move the transposes behind the Concat, and make one of them
        _give(graph, [graph.op("Reshape", part, graph.integers(1, -1)) for part in by_head], (1, "rows"))
    return inputs


def _layer_norm(graph: Graph, o: Operation, copies: int) -> list[Input]:
    """One after the other, each on what the one before has made."""
    build, norm, whole = _builder(graph), nn.LayerNorm(o.n), Input(name="x", shape=(1, o.m, o.n))
    x = _declare(graph, whole)
    for index in range(copies):
        x = build.add(x, build.layer_norm(x, f"norm_{index}", norm))
    _give(graph, [x], ("batch", "rows", o.n))
    return [whole]


def _gelu(graph: Graph, o: Operation, copies: int) -> list[Input]:
    whole = Input(name="x", shape=(1, o.m, o.n))
    x = _declare(graph, whole)
    for _ in range(copies):
        x = graph.op("Gelu", x)
    _give(graph, [x], ("batch", "rows", o.n))
    return [whole]


def _embedding(graph: Graph, o: Operation, copies: int) -> list[Input]:
    """A short table: only the rows that are looked up are read."""
    table = _matrix("table", Operation(kind="gemv", k=o.n, n=64, weight_bits=o.weight_bits, group_size=o.group_size))
    whole = Input(name="ids", shape=(copies * o.m,), type="int64")
    ids = graph.input(whole.name, TensorProto.INT64, ("rows",))
    parts = graph.ops("Split", ids, outputs=copies, axis=0, num_outputs=copies)
    rows = [graph.op("Unsqueeze", look_up(graph, part, table), graph.integers(0)) for part in parts]
    _give(graph, rows, ("batch", "rows", o.n))
    return [whole]


def _session(graph: Graph, o: Operation, _: int) -> list[Input]:
    """Half of the values go in, half come out."""
    inputs = [Input(name=f"x_{index}", shape=(1, 1, 1)) for index in range(ceil(o.n / 2))]
    xs = [_declare(graph, value) for value in inputs]
    for index, x in enumerate(xs[: o.n - len(inputs)]):
        graph.output(x, f"y_{index}", ("batch", "rows", 1))
    return inputs


def _builder(graph: Graph) -> Builder:
    return Builder(graph=graph, rows="many", precision=Precision(weight_bits=FLOAT_BITS), half_vectors=False, codes={})


_BUILDERS: dict[OperationKind, Callable[[Graph, Operation, int], list[Input]]] = {
    "gemm": _product,
    "gemv": _product,
    "quantise": _rounding,
    "dynamic_quantise": _rounding,
    "dequantise": _dequantise,
    "convolution": _convolution,
    "attention": _attention,
    "cached_attention": _cached_attention,
    "cross_attention": _cross_attention,
    "split_heads": _split_heads,
    "layer_norm": _layer_norm,
    "gelu": _gelu,
    "embedding": _embedding,
    "stream": _stream,
    "cache_stream": _stream,
    "session": _session,
}
