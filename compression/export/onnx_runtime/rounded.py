"""Linear layers whose input is rounded to 8 or 16 bits as `compression.techniques.activations` does it in torch.

But for one thing: a dynamic range is that of all rows of a call, in torch that of each token. In a decoder that differs
where a call has several, in the prompt of a multilingual model and with beams. Which kernel multiplies says
`compression.recipe.kernels`.
"""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto
from torch import nn

from compression.export.onnx_runtime.graph import Graph
from compression.export.onnx_runtime.kernels import INT8_BLOCKS, Rows, bias_of, multiply
from compression.export.onnx_runtime.weights import Matrix, Storage, stacked
from compression.techniques.activations import DynamicLinear, StaticLinear

_CODE_TYPES = {8: np.uint8, 16: np.uint16}


def linear(  # noqa: PLR0913 - one layer
    graph: Graph, x: str, name: str, modules: Sequence[nn.Module], storage: Storage, *, rows: Rows
) -> str:
    """Linear layers with the same input x (..., K) as one: (..., sum of their outputs)."""
    matrix, precision = stacked(name, modules, storage), storage.precision
    inputs = modules[0].get_parameter("weight").shape[1]
    kernel = precision.kernel(inputs)
    if kernel == "int8_blocks":
        return multiply(graph, x, matrix, rows=rows, accuracy=INT8_BLOCKS)
    if kernel == "integers":
        return multiply_integers(graph, x, matrix, _rounding(modules[0]))
    if precision.rounds_before(inputs):
        x = graph.op("DequantizeLinear", *quantised_input(graph, x, _rounding(modules[0])))
    return multiply(graph, x, matrix, rows=rows)


def _rounding(module: nn.Module) -> DynamicLinear | StaticLinear:
    if not isinstance(module, DynamicLinear | StaticLinear):
        raise TypeError("a layer whose input is rounded does not say how")
    return module


def quantised_input(graph: Graph, x: str, layer: DynamicLinear | StaticLinear) -> tuple[str, str, str]:
    """Codes, scale and zero point of x over its own range, or over the one that was calibrated."""
    if isinstance(layer, DynamicLinear) and layer.bits == 8:
        return graph.ops("DynamicQuantizeLinear", x, outputs=3)  # type: ignore[return-value]
    if isinstance(layer, DynamicLinear):
        scale, zero_point = _dynamic_range(graph, x)
    else:
        scale, zero_point = _calibrated_range(graph, layer)
    return graph.op("QuantizeLinear", x, scale, zero_point), scale, zero_point


def _dynamic_range(graph: Graph, x: str) -> tuple[str, str]:
    """DynamicQuantizeLinear's formula at 16 bits, which that operator does not have."""
    zero = graph.scalar(0.0)
    low = graph.op("Min", graph.op("ReduceMin", x, keepdims=0), zero)
    high = graph.op("Max", graph.op("ReduceMax", x, keepdims=0), zero)
    width = graph.op("Max", graph.op("Sub", high, low), graph.scalar(float(np.finfo(np.float32).tiny) * 65535))
    scale = graph.op("Div", width, graph.scalar(65535.0))
    zero_point = graph.op("Round", graph.op("Div", graph.op("Neg", low), scale))
    return scale, graph.cast(zero_point, TensorProto.UINT16)


def _calibrated_range(graph: Graph, layer: StaticLinear) -> tuple[str, str]:
    """As `fake_quantise`: scale (high - low) / (2^b - 1), zero point round(-low / scale)."""
    low, high, levels = np.float32(layer.low), np.float32(layer.high), np.float32(2**layer.bits - 1)
    scale = np.maximum((high - low) / levels, np.finfo(np.float32).tiny)
    zero_point = np.array(np.rint(-low / scale), _CODE_TYPES[layer.bits])
    stored = graph.constant(f"zero_point_{layer.bits}_{zero_point}", zero_point)
    return graph.scalar(float(scale)), stored


def multiply_integers(graph: Graph, x: str, matrix: Matrix, layer: DynamicLinear | StaticLinear) -> str:
    """uint8 activations times int8 weights per channel, summed in integers.

    The codes are stored less 128, since ONNX Runtime's kernels are fastest with signed weights. It fuses these
    operators.
    """
    if matrix.codes is None:
        raise ValueError(f"{matrix.name} is not on an integer grid")
    codes = matrix.codes
    inputs, scale, zero_point = quantised_input(graph, x, layer)
    rows = codes.codes.reshape(len(codes.codes), -1)[:, : codes.columns]
    weight = graph.constant(f"{matrix.name}.codes", np.ascontiguousarray((rows ^ 128).view(np.int8).T))
    zeros = np.zeros(len(rows), np.int8) if codes.zero_points is None else (codes.zero_points[:, 0] ^ 128).view(np.int8)
    weight_zeros = graph.constant(f"{matrix.name}.zero_points", zeros if zeros.any() else np.array(0, np.int8))
    sums = graph.cast(graph.op("MatMulInteger", inputs, weight, zero_point, weight_zeros), TensorProto.FLOAT)
    scales = graph.op("Mul", scale, graph.floats(f"{matrix.name}.scales", codes.scales[:, 0]))
    product = graph.op("Mul", sums, scales, name=matrix.name)
    bias = bias_of(graph, matrix)
    return graph.op("Add", product, bias, name=matrix.name) if bias else product
