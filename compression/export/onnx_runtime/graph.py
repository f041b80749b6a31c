"""A thin builder of ONNX graphs, and the way they are written to disk."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators, such as MatMulNBits."""
CONTRIB_VERSION = 1
IR_VERSION = 10
INLINE_BYTES = 512
"""Larger tensors go into the file of weights, which ONNX Runtime maps into memory instead of copying."""
ALIGNMENT_BYTES = 64


class Graph:
    """Operators and tensors are added one after the other; every value is known by its name.

    `metadata`: entries of the file for whoever loads it.
    """

    def __init__(self, name: str) -> None:
        self.metadata: dict[str, str] = {}
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, dtype: int, shape: tuple[int | str, ...]) -> str:
        """An input; names in `shape` are free dimensions."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, value: str, name: str, shape: tuple[int | str, ...], *, dtype: int = TensorProto.FLOAT) -> None:
        """Give a value the name of an output."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output.{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def shared_output(self, name: str, shape: tuple[int | str, ...]) -> str:
        """Make the last operator's output one of the graph too, although others use it: no Identity runs for that."""
        self._nodes[-1].output[0] = name
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    @property
    def output_count(self) -> int:
        return len(self._outputs)

    @property
    def constant_bytes(self) -> int:
        """Of all stored tensors."""
        return sum(values.nbytes for values in self._constants.values())

    def constant(self, name: str, values: npt.NDArray[Any]) -> str:
        """A stored tensor; a name that is there already must hold the same values."""
        known = self._constants.setdefault(name, values)
        if known is not values and not (known.dtype == values.dtype and np.array_equal(known, values)):
            raise ValueError(f"two different tensors are called {name!r}")
        return name

    def integers(self, *values: int) -> str:
        """A small constant list, such as a shape or axes."""
        return self.constant(f"integers_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def index(self, value: int) -> str:
        """A constant whole number."""
        return self.constant(f"index_{value}", np.array(value, np.int64))

    def scalar(self, value: float) -> str:
        return self.constant(f"scalar_{value!r}", np.array(value, np.float32))

    def op(self, kind: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any) -> str:
        """Add an operator with one output; "" is an input left out. Returns the output's name."""
        (output,) = self.ops(kind, *inputs, outputs=1, name=name, domain=domain, **attributes)
        return output

    def ops(
        self, kind: str, *inputs: str, outputs: int, name: str = "", domain: str = "", **attributes: Any
    ) -> tuple[str, ...]:
        """Add an operator with several outputs. Returns their names."""
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        label = f"{name or kind.lower()}.{len(self._nodes)}"
        results = tuple(f"{label}:{index}" for index in range(outputs))
        self._nodes.append(helper.make_node(kind, inputs, results, name=label, domain=domain, **attributes))
        return results

    def cast(self, value: str, dtype: int) -> str:
        return self.op("Cast", value, to=dtype)

    def floats(self, name: str, values: npt.NDArray[Any]) -> str:
        """A stored tensor of floating point as float32: what is stored as float16 is widened when it is loaded."""
        stored = self.constant(name, values)
        return stored if values.dtype == np.float32 else self.cast(stored, TensorProto.FLOAT)

    def write(self, path: Path) -> None:
        """Write `path` and, beside it, the file of weights `path`.data."""
        weights = path.with_name(f"{path.name}.data")
        with weights.open("wb") as handle:
            tensors = [_tensor(name, values, handle, weights.name) for name, values in self._constants.items()]
        path.write_bytes(self._serialised(tensors))

    def to_bytes(self) -> bytes:
        """The whole model in one piece, its tensors included."""
        return self._serialised([numpy_helper.from_array(values, name) for name, values in self._constants.items()])

    def _serialised(self, tensors: list[TensorProto]) -> bytes:
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, tensors)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, CONTRIB_VERSION)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="whisperfit")
        helper.set_model_props(model, self.metadata)
        return bytes(model.SerializeToString())


def _tensor(name: str, values: npt.NDArray[Any], weights: Any, file_name: str) -> onnx.TensorProto:
    """The tensor itself where it is small, else a reference to its bytes, appended to the file of weights."""
    if values.nbytes <= INLINE_BYTES:
        return numpy_helper.from_array(np.asarray(values, order="C"), name)
    weights.write(bytes(-weights.tell() % ALIGNMENT_BYTES))
    tensor = TensorProto(
        name=name,
        dims=values.shape,
        data_type=helper.np_dtype_to_tensor_dtype(values.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", file_name), ("offset", weights.tell()), ("length", values.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    weights.write(values.tobytes())
    return tensor
