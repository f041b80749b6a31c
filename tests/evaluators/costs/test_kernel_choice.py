"""Which kernels a linear layer is priced as, against the operators that the exporter writes for the same layer."""

from collections import Counter
from itertools import product as combinations

import onnx
import pytest
import torch
from torch import nn
from whisper.model import Linear

from compression.export.onnx_runtime.graph import Graph
from compression.export.onnx_runtime.layers import Builder
from compression.export.onnx_runtime.rounded import linear
from compression.export.onnx_runtime.weights import Storage, stacked
from compression.recipe.kernels import Precision
from compression.techniques.activations import BlockLinear, DynamicLinear, StaticLinear
from compression.techniques.grids import Grid, QuantisedMatrix, round_to_grid
from devices.operation import Operation
from evaluators.costs.items import ItemBuilder, UtteranceShape, product, roundings
from tests.strategies import small_dimensions

INPUTS, OUTPUTS, RANK = 96, 40, 24
HELPERS = {"Add", "Cast", "Div", "Expand", "Max", "Min", "Mul", "Neg", "ReduceMax", "ReduceMin", "Round", "Sub"}
"""Operators around the kernels: biases, widened tensors, ranges of 16 bits."""
PRECISIONS = [
    Precision(weight_bits=bits, group_size=group_size, activation_bits=activation_bits, activation_ranges=ranges)
    for bits, group_size, activation_bits, ranges in combinations(
        (2, 4, 8, 16, 32), (0, 16, 32), (8, 16, 32), ("dynamic", "static")
    )
    if bits <= 8 or group_size == 0
    if activation_bits < 32 or ranges == "dynamic"
]


def layer(
    precision: Precision, codes: dict[nn.Module, QuantisedMatrix], inputs: int = INPUTS, outputs: int = OUTPUTS
) -> Linear:
    """A layer as `compress` leaves it; its codes go into `codes`."""
    module = Linear(inputs, outputs)
    values, quantised = round_to_grid(
        module.weight.detach(), Grid(bits=precision.weight_bits, group_size=precision.group_size)
    )
    module.weight = torch.nn.Parameter(values)
    bits = precision.activation_bits
    if bits == 32:
        rounding = module
    elif precision.activation_ranges == "static":
        rounding = StaticLinear(module, bits=bits, low=-2.0, high=3.0)
    elif bits == 8 and precision.group_size and quantised:
        rounding = BlockLinear(module, block=precision.group_size)
    else:
        rounding = DynamicLinear(module, bits=bits, range_over="clip")
    if quantised:
        codes[rounding] = quantised
    return rounding


def written(precision: Precision, rows: str, inputs: int = INPUTS) -> list[onnx.NodeProto]:
    """The exporter's operators for a layer."""
    graph = Graph("layer")
    x = graph.input("x", onnx.TensorProto.FLOAT, (1, "rows", inputs))
    codes: dict[nn.Module, QuantisedMatrix] = {}
    modules, storage = [layer(precision, codes, inputs)], Storage(precision=precision, half_vectors=True, codes=codes)
    graph.output(linear(graph, x, "layer", modules, storage, rows=rows), "y", (1, "rows", OUTPUTS))
    return operators_of(graph)


def operators_of(graph: Graph) -> list[onnx.NodeProto]:
    """Without the helpers."""
    nodes = onnx.load_from_string(graph.to_bytes()).graph.node
    return [node for node in nodes if node.op_type not in {*HELPERS, "Identity", "Transpose"}]


def expected(operations: tuple[Operation, ...]) -> Counter[str]:
    """The operators behind priced operations."""
    found: Counter[str] = Counter()
    for o in operations:
        match o.kind:
            case "quantise":
                found["QuantizeLinear"] += 1
            case "dynamic_quantise":
                found["DynamicQuantizeLinear" if o.activation_bits == 8 else "QuantizeLinear"] += 1
            case "dequantise":
                found["DequantizeLinear"] += 1
            case _ if o.weight_bits == 32:
                found["MatMul"] += 1
            case _ if o.group_size == 0:
                found["MatMulInteger"] += 1
            case _:
                is_split = o.kind == "gemv" and o.weight_bits == 8 and o.activation_bits == 32
                found["MatMulNBits"] += 2 if is_split else 1
    return found


@pytest.mark.parametrize("rows", ["many", "one"])
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_a_layer_is_priced_as_the_operators_that_it_is_written_as(precision: Precision, rows: str) -> None:
    nodes = written(precision, rows)
    count = 7 if rows == "many" else 1
    kernel = product(count, INPUTS, OUTPUTS, precision)
    operators = expected((*roundings(count, INPUTS, precision), kernel))
    if "MatMulInteger" in operators:  # whose rounding is priced with it, whichever of the two it is
        assert roundings(count, INPUTS, precision) == ()
        operators["QuantizeLinear" if precision.activation_ranges == "static" else "DynamicQuantizeLinear"] += 1
    assert Counter(node.op_type for node in nodes) == operators
    for node in nodes:
        if node.op_type == "MatMulNBits":
            attributes = {attribute.name: attribute.i for attribute in node.attribute}
            assert (attributes["K"], attributes["N"]) == (kernel.k, kernel.n)
            assert attributes["block_size"] == kernel.group_size
            assert attributes["bits"] * operators["MatMulNBits"] == kernel.weight_bits
            assert attributes["accuracy_level"] == (4 if kernel.activation_bits == 8 else 1)


@pytest.mark.parametrize("group_size", [0, 64, 128, 256])
@pytest.mark.parametrize("inputs", [64, 128, 256])
def test_blocks_are_priced_as_they_are_written_where_a_group_is_a_whole_row(inputs: int, group_size: int) -> None:
    precision = Precision(weight_bits=4, group_size=group_size, activation_bits=8)
    (node,) = [node for node in written(precision, "many", inputs) if node.op_type == "MatMulNBits"]
    (block,) = [attribute.i for attribute in node.attribute if attribute.name == "block_size"]
    assert block == product(7, inputs, OUTPUTS, precision).group_size
    assert group_size in (0, block)


def test_layers_that_are_stored_differently_are_no_one_matrix() -> None:
    precision, codes = Precision(weight_bits=4, group_size=16), dict[nn.Module, QuantisedMatrix]()
    storage = Storage(precision=precision, half_vectors=True, codes=codes)
    integers = [layer(precision, codes), layer(precision, codes)]
    assert stacked("layer", integers, storage).codes.codes.shape == (2 * OUTPUTS, INPUTS // 16, 16)
    for other in (32, 8, 2):
        with pytest.raises(ValueError, match="stored differently"):
            stacked("layer", [*integers, layer(Precision(weight_bits=other, group_size=16), codes)], storage)
    with pytest.raises(ValueError, match="stored differently"):
        stacked("layer", [*integers, layer(Precision(weight_bits=4, group_size=32), codes)], storage)


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_operations_have_the_layers_shape(precision: Precision) -> None:
    for count, kind in ((7, "gemm"), (1, "gemv")):
        kernel = product(count, INPUTS, OUTPUTS, precision)
        assert (kernel.kind, kernel.heads, kernel.m, kernel.k, kernel.n) == (kind, 1, count, INPUTS, OUTPUTS)
        for rounding in roundings(count, INPUTS, precision):
            assert (rounding.m, rounding.k, rounding.n) == (count, INPUTS, 1)
            assert rounding.activation_bits == precision.activation_bits


@pytest.mark.parametrize("rows", ["many", "one"])
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_low_rank_factors_are_priced_as_the_operators_that_they_are_written_as(precision: Precision, rows: str) -> None:
    graph = Graph("factors")
    x = graph.input("x", onnx.TensorProto.FLOAT, (1, "rows", INPUTS))
    codes: dict[nn.Module, QuantisedMatrix] = {}
    pair = nn.Sequential(layer(precision, codes, INPUTS, RANK), layer(precision, codes, RANK, OUTPUTS))
    build = Builder(graph=graph, rows=rows, precision=precision, half_vectors=True, codes=codes)
    graph.output(build.factors(x, "factors", pair, precision.weight_bits), "y", (1, "rows", OUTPUTS))
    setting = UtteranceShape(
        dimensions=small_dimensions(),
        frames=100,
        steps=5,
        group_size=precision.group_size,
        symmetric=True,
        scale_bits=16,
        activation_bits=precision.activation_bits,
        activation_ranges=precision.activation_ranges,
        float_bits=16,
    )
    count = 7 if rows == "many" else 1
    items = ItemBuilder(setting=setting, stage="encoder", rows=count, count=1, bits=precision.weight_bits)
    operations = [item.operation for item in items.factors("factors", INPUTS, OUTPUTS, RANK, alive=0)]
    operators = expected(tuple(operations))
    if integers := operators["MatMulInteger"]:
        operators["QuantizeLinear" if precision.activation_ranges == "static" else "DynamicQuantizeLinear"] += integers
    assert Counter(node.op_type for node in operators_of(graph)) == operators
    products = [(o.k, o.n) for o in operations if o.kind in ("gemm", "gemv")]
    assert products == [(INPUTS, RANK), (RANK, OUTPUTS)]
