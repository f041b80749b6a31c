"""Models of operations after onnxruntime's optimisation: all copies of the kernels are there, with their weights."""

from collections import Counter
from itertools import product
from math import prod

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from devices.operation import OPERATION_KINDS, Operation
from devices.streams import streamed_bytes
from evaluators.profiling import operation_models
from evaluators.profiling.operation_models import MANY_OUTPUTS, STREAMED_BYTES, operation_model
from tests.evaluators.profiling.optimised import kernels, optimised

FLOAT, BLOCKS = {"MatMul": 1, "Add": 1}, {"MatMulNBits": 1}
DYNAMIC_16 = {
    **{"ReduceMin": 1, "Min": 1, "Neg": 1, "ReduceMax": 1, "Max": 2, "Sub": 1, "Div": 2, "Round": 1, "Cast": 1},
    "QuantizeLinear": 1,
}
ROUNDINGS = {
    ("quantise", 8): {"QuantizeLinear": 1},
    ("quantise", 16): {"QuantizeLinear": 1},
    ("dynamic_quantise", 8): {"DynamicQuantizeLinear": 1},
    ("dynamic_quantise", 16): DYNAMIC_16,
    ("dequantise", 8): {"DequantizeLinear": 1},
    ("dequantise", 16): {"DequantizeLinear": 1},
}
LOOK_UP = {"Gather": 3, "Cast": 2, "Unsqueeze": 2, "Reshape": 2, "Sub": 1, "Mul": 1}
HALVES = {"Gather": 7, "Cast": 4, "Unsqueeze": 2, "Reshape": 4, "Slice": 1, "Sub": 2, "Mul": 2, "Add": 1}


def products() -> dict[Operation, dict[str, int]]:
    found: dict[Operation, dict[str, int]] = {}
    for (kind, rows), (bits, group), activations in product(
        (("gemm", 20), ("gemv", 1)), ((2, 16), (4, 128), (8, 32)), (8, 32)
    ):
        operation = Operation(
            kind=kind, m=rows, k=128, n=64, weight_bits=bits, activation_bits=activations, group_size=group
        )
        in_halves = kind == "gemv" and bits == 8 and activations == 32
        found[operation] = {"MatMulNBits": 2, "Add": 1} if in_halves else BLOCKS
    for kind, rows in (("gemm", 20), ("gemv", 1)):
        found[Operation(kind=kind, m=rows, k=128, n=64)] = FLOAT
        per_channel = Operation(kind=kind, m=rows, k=128, n=64, weight_bits=8, activation_bits=8)
        found[per_channel] = {"DynamicQuantizeMatMul": 1}
    return found


COPIES: dict[Operation, dict[str, int]] = {
    **products(),
    **{
        Operation(kind=kind, m=rows, k=64, activation_bits=bits): each
        for (kind, bits), each in ROUNDINGS.items()
        for rows in (1, 20)
    },
    Operation(kind="convolution", m=100, k=240, n=64): {"Conv": 1},
    Operation(kind="convolution", m=50, k=192, n=64): {"Conv": 1},
    Operation(kind="attention", heads=2, m=50, k=64, n=50): {"MultiHeadAttention": 1, "Split": 1},
    Operation(kind="cached_attention", heads=2, k=64, n=10): {"MultiHeadAttention": 1, "Split": 1},
    Operation(kind="cross_attention", heads=2, k=64, n=50): {"MultiHeadAttention": 1, "Reshape": 2},
    Operation(kind="layer_norm", m=50, n=128): {"LayerNormalization": 1, "Add": 1},
    Operation(kind="layer_norm", n=128): {"LayerNormalization": 1, "Add": 1},
    Operation(kind="gelu", m=50, n=128): {"Gelu": 1},
    Operation(kind="gelu", n=128): {"Gelu": 1},
    Operation(kind="embedding", n=128): {"Gather": 1, "Unsqueeze": 1},
    Operation(kind="embedding", n=128, weight_bits=2, group_size=16): LOOK_UP,
    Operation(kind="embedding", n=128, weight_bits=4, group_size=32): LOOK_UP,
    Operation(kind="embedding", n=128, weight_bits=8, group_size=32): HALVES,
    Operation(kind="stream", n=16): FLOAT,
    Operation(kind="stream", n=8, weight_bits=4, activation_bits=8, group_size=32): BLOCKS,
    Operation(kind="cache_stream", n=16): {"MultiHeadAttention": 1, "Reshape": 2},
}
"""Kernels of one copy."""
AROUND = {"Split", "Concat"}
"""What brings single rows into a model side by side, and many outputs out of it."""


def test_every_kind_is_here() -> None:
    assert {operation.kind for operation in COPIES} == set(OPERATION_KINDS) - {"session", "split_heads"}


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quicker; still more than are given one by one."""
    monkeypatch.setattr(operation_models, "MAX_COPIES", MANY_OUTPUTS + 2)


@pytest.mark.usefixtures("fewer")
@pytest.mark.parametrize("operation", COPIES, ids=str)
def test_every_copy_is_executed(operation: Operation) -> None:
    """Nothing is merged, fused over copies, computed once for all or left out."""
    model = operation_model(operation)
    found = kernels(optimised(model.model))
    expected = Counter({kernel: count * model.copies for kernel, count in COPIES[operation].items()})
    around = found - expected
    assert found - around == expected
    assert around.keys() <= AROUND
    assert around.total() <= 4
    assert model.copies > 1


@pytest.mark.parametrize("shape", [(50, 256), (1500, 768), (300, 128)], ids=str)
def test_keys_and_values_are_split_one_by_one(shape: tuple[int, int]) -> None:
    """Two transposes of each copy."""
    rows, columns = shape
    model = operation_model(Operation(kind="split_heads", m=rows, n=columns))
    found = kernels(optimised(model.model))
    assert found["Transpose"] == 2 * model.copies
    assert found["Split"] == model.copies


def weights(graph: onnx.GraphProto) -> list[np.ndarray]:
    """The matrices of all products, one after the other."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    names = [node.input[1] for node in graph.node if "MatMul" in node.op_type]
    assert len(set(names)) == len(names), "two products share a matrix"
    return [numpy_helper.to_array(tensors[name]) for name in names]


@pytest.mark.parametrize("operation", products(), ids=str)
def test_no_two_copies_share_their_weights(operation: Operation) -> None:
    """Not even as tensors of equal values, of which onnxruntime keeps one."""
    found = weights(optimised(operation_model(operation).model, with_tensors=True))
    assert len({(matrix.shape, matrix.flat[0].item()) for matrix in found}) == len(found)
    model = operation_model(operation)
    assert sum(matrix.nbytes for matrix in found) == pytest.approx(
        model.copies * operation.k * operation.n * operation.weight_bits / 8
    )


@pytest.mark.parametrize(("bits", "group"), [(32, 0), (4, 32), (8, 32)])
def test_one_row_goes_through_more_weights_than_a_cache_of_its_own_holds(bits: int, group: int) -> None:
    operation = Operation(kind="gemv", k=384, n=1536, weight_bits=bits, group_size=group)
    model = operation_model(operation)
    assert STREAMED_BYTES <= model.copies * streamed_bytes(operation) <= 1.1 * STREAMED_BYTES


def test_streams_are_as_long_as_they_say() -> None:
    for megabytes in (16, 64, 96):
        found = weights(optimised(operation_model(Operation(kind="stream", n=megabytes)).model, with_tensors=True))
        assert sum(matrix.nbytes for matrix in found) / 1e6 == pytest.approx(megabytes, rel=0.07)
        caches = operation_model(Operation(kind="cache_stream", n=megabytes)).inputs
        assert 4 * sum(prod(cache_name.shape) for cache_name in caches) / 1e6 == pytest.approx(megabytes, rel=0.07)


@pytest.mark.parametrize("values", [3, 8, 26])
def test_a_session_takes_and_gives_values_and_computes_nothing(values: int) -> None:
    model = operation_model(Operation(kind="session", n=values))
    graph = optimised(model.model)
    assert len(graph.input) + len(graph.output) == model.values == values
    assert set(kernels(graph)) <= {"Identity"}


@pytest.mark.usefixtures("fewer")
@pytest.mark.parametrize("operation", [*COPIES, Operation(kind="split_heads", m=50, n=256)], ids=str)
def test_models_run_and_their_values_are_counted(operation: Operation) -> None:
    model = operation_model(operation)
    session = ort.InferenceSession(model.model, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    feeds = {value.name: generator.integers(0, 50, value.shape).astype(value.type) for value in model.inputs}
    assert len(session.get_inputs()) + len(session.get_outputs()) == model.values
    assert len(session.get_outputs()) <= max(3 * MANY_OUTPUTS, model.copies)
    for output in session.run(None, feeds):
        assert np.isfinite(output).all()


def test_files_are_small() -> None:
    """They go to a board by hundreds."""
    for operation in (*COPIES, Operation(kind="gemv", k=1280, n=51866), Operation(kind="stream", n=256)):
        assert len(operation_model(operation).model) < 200_000
