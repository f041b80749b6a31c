"""Items of the inventory, and how each kind of operation becomes one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from compression.dimensions import Dimensions
from devices.operation import Operation, OperationKind
from evaluators.tensor_bytes import TensorBytes, tensor_bytes

Stage = Literal["encoder", "decoder"]

ACTIVATION_BYTES = 4
"""Activations and caches are float32 in memory."""
KERNEL_WIDTH = 3
"""Of both convolutions."""
MULTIPLYING: frozenset[OperationKind] = frozenset({"linear", "convolution", "attention"})


@dataclass(frozen=True, kw_only=True, slots=True)
class InventoryItem:
    """One operation of an utterance.

    `count`: executions per utterance. `name`: such as `encoder.0.attention.query`, layers numbered as in the
    original. `weight_bytes`: the operation's tensors in the artifact (codes, scales, zero points, bias), 0 when
    another item holds them; `loaded_bytes`: the same in memory. `parameters`: their values before quantisation.
    `activation_bytes`: float32 activations alive while it runs. `cache_bytes`: what all its executions together
    leave in the key and value caches.
    """

    operation: Operation
    count: int
    stage: Stage
    name: str
    weight_bytes: int = 0
    loaded_bytes: int = 0
    parameters: int = 0
    activation_bytes: int = 0
    cache_bytes: int = 0

    @property
    def flops(self) -> int:
        """Two per multiply-accumulate of linear, convolution and attention operations; 0 for the others."""
        operation = self.operation
        if operation.kind not in MULTIPLYING:
            return 0
        return 2 * operation.m * operation.k * operation.n * self.count


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What all sub-layers of an utterance share.

    `frames`: mel frames in the encoder's window. `steps`: decoder steps. `group_size`, `symmetric` and
    `activation_bits` are the recipe's. `float_bits`: storage of biases, normalisations and positions.
    """

    dimensions: Dimensions
    frames: int
    steps: int
    group_size: int
    symmetric: bool
    activation_bits: int
    float_bits: int

    @property
    def positions(self) -> int:
        return self.frames // 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemBuilder:
    """Makes the items of a sub-layer whose operations run `count` times over `rows` rows each.

    `group`: start of the items' names, if any. `bits`: of the weights. The methods' `alive`: activations held
    beside the operation's input and output.
    """

    setting: Setting
    stage: Stage
    rows: int
    count: int
    group: str = ""
    bits: int = 32

    @property
    def state(self) -> int:
        """Width of the stage's residual stream."""
        dimensions = self.setting.dimensions
        return dimensions.n_audio_state if self.stage == "encoder" else dimensions.n_text_state

    @property
    def head_width(self) -> int:
        dimensions = self.setting.dimensions
        return dimensions.audio_head_width if self.stage == "encoder" else dimensions.text_head_width

    @property
    def group_size(self) -> int:
        """The recipe's, 0 for floating-point weights."""
        return self.setting.group_size if self.bits <= 8 else 0

    def item(
        self,
        name: str,
        operation: Operation,
        *,
        activations: int = 0,
        tensors: tuple[TensorBytes, ...] = (),
        cache_values: int = 0,
    ) -> InventoryItem:
        return InventoryItem(
            operation=operation,
            count=self.count,
            stage=self.stage,
            name=f"{self.group}.{name}" if self.group else name,
            weight_bytes=sum(tensor.stored for tensor in tensors),
            loaded_bytes=sum(tensor.loaded for tensor in tensors),
            parameters=sum(tensor.parameters for tensor in tensors),
            activation_bytes=activations * ACTIVATION_BYTES,
            cache_bytes=cache_values * ACTIVATION_BYTES,
        )

    def floats(self, values: int) -> TensorBytes:
        """Biases, normalisations and positions, which stay in floating point."""
        return tensor_bytes(1, values, self.setting.float_bits)

    def matrix(self, outputs: int, inputs: int) -> TensorBytes:
        symmetric = self.setting.symmetric
        return tensor_bytes(outputs, inputs, self.bits, group_size=self.group_size, symmetric=symmetric)

    def linear(self, name: str, inputs: int, outputs: int, *, alive: int = 0, bias: bool = True) -> InventoryItem:
        operation = Operation(
            kind="linear",
            m=self.rows,
            k=inputs,
            n=outputs,
            weight_bits=self.bits,
            activation_bits=self.setting.activation_bits,
            group_size=self.group_size,
        )
        weight = self.matrix(outputs, inputs)
        return self.item(
            name,
            operation,
            activations=alive + self.rows * (inputs + outputs),
            tensors=(weight, self.floats(outputs)) if bias else (weight,),
        )

    def convolution(self, name: str, channels: int, *, input_rows: int) -> InventoryItem:
        inputs = channels * KERNEL_WIDTH
        weight = tensor_bytes(self.state, inputs, self.bits, symmetric=self.setting.symmetric)
        return self.item(
            name,
            Operation(kind="convolution", m=self.rows, k=inputs, n=self.state, weight_bits=self.bits),
            activations=input_rows * channels + self.rows * self.state,
            tensors=(weight, self.floats(self.state)),
        )

    def layer_norm(self, name: str) -> InventoryItem:
        """Keeps its input: it is the residual stream."""
        return self.item(
            name,
            Operation(kind="layer_norm", m=self.rows, n=self.state),
            activations=2 * self.rows * self.state,
            tensors=(self.floats(2 * self.state),),
        )

    def gelu(self, name: str, width: int, *, alive: int = 0) -> InventoryItem:
        operation = Operation(kind="gelu", m=self.rows, n=width)
        return self.item(name, operation, activations=alive + 2 * self.rows * width)

    def embedding(self, name: str, table: TensorBytes) -> InventoryItem:
        operation = Operation(
            kind="embedding", m=self.rows, n=self.state, weight_bits=self.bits, group_size=self.group_size
        )
        return self.item(name, operation, activations=2 * self.rows * self.state, tensors=(table,))

    def cache_append(self, name: str, width: int, *, alive: int) -> InventoryItem:
        """Rows of `width` copied into a cache, once per execution."""
        return self.item(
            name,
            Operation(kind="cache_append", m=self.rows, n=width),
            activations=alive,
            cache_values=self.count * self.rows * width,
        )

    def attention(self, heads: int, length: int, *, values_alive: int = 0) -> Iterator[InventoryItem]:
        """Scores and mixing head by head, softmax over all heads at once, over `length` keys.

        `values_alive`: the value projections, and as many keys, where no cache holds them.
        """
        width, residual = self.head_width, self.rows * self.state
        scores, mixed = heads * self.rows * length, heads * self.rows * width
        by_head = replace(self, count=heads * self.count)
        yield by_head.item(
            "scores",
            Operation(kind="attention", m=self.rows, k=width, n=length),
            activations=residual + mixed + 2 * values_alive + scores,
        )
        yield self.item(
            "softmax",
            Operation(kind="softmax", m=heads * self.rows, n=length),
            activations=residual + values_alive + 2 * scores,
        )
        yield by_head.item(
            "mixing",
            Operation(kind="attention", m=self.rows, k=length, n=width),
            activations=residual + values_alive + scores + mixed,
        )
