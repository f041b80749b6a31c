"""Items of the inventory, and how each kind of operation becomes one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from compression.recipe.dimensions import Dimensions
from compression.recipe.kernels import ActivationRanges, Precision
from devices.operation import FLOAT_BITS, Operation
from evaluators.costs.tensor_bytes import TensorBytes, computed, tensor_bytes

Stage = Literal["encoder", "decoder"]
"""The graph that executes an operation."""
AttentionKind = Literal["attention", "cached_attention", "cross_attention"]

ACTIVATION_BYTES = 4
"""Activations and caches are float32 in memory."""
KERNEL_WIDTH = 3
"""Of both convolutions."""
ATTENTION_COPIES = 7
"""Values per position and column of a head while the kernel runs: query, key and value twice, the second time by
head, and the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InventoryItem:
    """One operation of an utterance.

    `count`: executions per utterance. `name`: such as `encoder.0.attention.query`, layers numbered as in the
    original. `weight_bytes`: the operation's tensors in the artifact (codes, scales, zero points, bias), 0 when
    another item holds them; `loaded_bytes`: the same in memory, as kernels read them; `mapped_bytes`: of the file,
    which stay in memory beside that; `loading_bytes`: in memory only while the graph is loaded. `parameters`: values
    of the tensors before quantisation.
    `activation_bytes`: float32 activations alive while it runs. `cache_bytes`: what all its executions together
    leave in the key and value caches.
    """

    operation: Operation
    count: int
    stage: Stage
    name: str
    weight_bytes: int = 0
    loaded_bytes: int = 0
    mapped_bytes: int = 0
    loading_bytes: int = 0
    parameters: int = 0
    activation_bytes: int = 0
    cache_bytes: int = 0

    @property
    def flops(self) -> int:
        """Two per multiply-accumulate of products, convolutions and attention (q k^T, then times v); else 0."""
        operation = self.operation
        match operation.kind:
            case "gemm" | "gemv" | "convolution":
                macs = operation.m * operation.k * operation.n
            case "attention" | "cached_attention" | "cross_attention":
                macs = 2 * operation.heads * operation.m * operation.k * operation.n
            case _:
                macs = 0
        return 2 * macs * self.count


@dataclass(frozen=True, kw_only=True, slots=True)
class UtteranceShape:
    """What all sub-layers of an utterance share.

    `frames`: mel frames in the encoder's window. `steps`: decoder steps. `group_size`, `symmetric`, `scale_bits`,
    `activation_bits` and `activation_ranges` are the recipe's. `float_bits`: storage of biases, normalisations and
    positions.
    """

    dimensions: Dimensions
    frames: int
    steps: int
    group_size: int
    symmetric: bool
    scale_bits: int
    activation_bits: int
    activation_ranges: ActivationRanges
    float_bits: int

    @property
    def positions(self) -> int:
        return self.frames // 2


def roundings(rows: int, inputs: int, precision: Precision) -> tuple[Operation, ...]:
    """What happens to the input (rows, inputs) of a linear layer before its product.

    Nothing where the kernel rounds by itself: then that is part of the product.
    """
    if not precision.rounds_before(inputs):
        return ()
    bits = precision.activation_bits
    return (
        Operation(
            kind="quantise" if precision.activation_ranges == "static" else "dynamic_quantise",
            m=rows,
            k=inputs,
            activation_bits=bits,
        ),
        Operation(kind="dequantise", m=rows, k=inputs, activation_bits=bits),
    )


def product(rows: int, inputs: int, outputs: int, precision: Precision) -> Operation:
    """(rows, inputs) times the stored matrix (inputs, outputs)."""
    kernel = precision.kernel(inputs)
    has_blocks = precision.has_integer_weights and kernel != "integers"
    return Operation(
        kind="gemv" if rows == 1 else "gemm",
        m=rows,
        k=inputs,
        n=outputs,
        weight_bits=precision.kernel_bits,
        activation_bits=FLOAT_BITS if kernel == "floats" else 8,
        group_size=precision.block(inputs) if has_blocks else 0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemBuilder:
    """Makes the items of a sub-layer whose operations run `count` times over `rows` rows each.

    `group`: start of the items' names, if any. `bits`: of the weights. The methods' `alive`: activations held
    beside the operation's input and output.
    """

    setting: UtteranceShape
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
            loading_bytes=sum(tensor.loading for tensor in tensors),
            parameters=sum(tensor.parameters for tensor in tensors),
            activation_bytes=activations * ACTIVATION_BYTES,
            cache_bytes=cache_values * ACTIVATION_BYTES,
        )

    def floats(self, values: int) -> TensorBytes:
        """Biases, normalisations and positions, which stay in floating point."""
        return tensor_bytes(1, values, self.setting.float_bits)

    def matrix(self, outputs: int, inputs: int) -> TensorBytes:
        return tensor_bytes(
            outputs,
            inputs,
            self.bits,
            group_size=self.group_size,
            symmetric=self.setting.symmetric,
            scale_bits=self.setting.scale_bits,
        )

    def linear(
        self, name: str, inputs: int, outputs: int, *, alive: int = 0, biases: int | None = None
    ) -> Iterator[InventoryItem]:
        """A linear layer, or several with the same input as one; `biases`: values, by default one per output."""
        setting = self.setting
        precision = Precision(
            weight_bits=self.bits,
            group_size=self.group_size,
            activation_bits=setting.activation_bits,
            activation_ranges=setting.activation_ranges,
        )
        activations = alive + self.rows * (inputs + outputs)
        for operation in roundings(self.rows, inputs, precision):
            yield self.item(f"{name}_{operation.kind}", operation, activations=alive + 2 * self.rows * inputs)
        yield self.item(
            name,
            product(self.rows, inputs, outputs, precision),
            activations=activations,
            tensors=(self.matrix(outputs, inputs), self.floats(outputs if biases is None else biases)),
        )

    def factors(self, name: str, inputs: int, outputs: int, rank: int, *, alive: int) -> Iterator[InventoryItem]:
        """A linear layer as two with `rank` values between them, the bias in the second one; as one for rank 0."""
        if not rank:
            yield from self.linear(name, inputs, outputs, alive=alive)
            return
        yield from self.linear(f"{name}.0", inputs, rank, alive=alive, biases=0)
        yield from self.linear(f"{name}.1", rank, outputs, alive=alive)

    def convolution(self, name: str, channels: int, *, input_rows: int, positions: int = 0) -> InventoryItem:
        """`positions`: rows of the table that is added to its output."""
        inputs = channels * KERNEL_WIDTH
        weight = tensor_bytes(self.state, inputs, self.bits, symmetric=self.setting.symmetric)
        unpacked = computed(positions * self.state + (weight.parameters if weight.packed_bytes else 0))
        return self.item(
            name,
            Operation(kind="convolution", m=self.rows, k=inputs, n=self.state),
            activations=input_rows * channels + self.rows * self.state,
            tensors=(weight, unpacked, self.floats(self.state)),
        )

    def layer_norm(self, name: str) -> InventoryItem:
        """Keeps its input: it is the residual stream, to which the output of the sub-layer before was added."""
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
        """Rows are read from the mapped file. Of a quantised table all of it stays in memory, beside what the logits
        multiply by; of a floating-point one only until that is made.
        """
        precision = Precision(weight_bits=self.bits, group_size=self.group_size)
        kernel = product(1, self.state, 1, precision)
        operation = Operation(
            kind="embedding",
            m=self.rows,
            n=self.state,
            weight_bits=kernel.weight_bits,
            group_size=kernel.group_size,
        )
        item = self.item(name, operation, activations=2 * self.rows * self.state, tensors=(table,))
        if table.packed_bytes:
            return replace(item, mapped_bytes=table.stored)
        return replace(item, loading_bytes=item.loading_bytes + table.stored)

    def attention(self, kind: AttentionKind, heads: int, keys: int, *, cache_values: int = 0) -> InventoryItem:
        """softmax(q k^T) v of all heads over `keys` keys, in one kernel that never holds a whole matrix of scores."""
        width = self.head_width
        inner = self.rows * heads * width
        return self.item(
            "attention",
            Operation(kind=kind, heads=heads, m=self.rows, k=width, n=keys),
            activations=self.rows * self.state + ATTENTION_COPIES * inner,
            cache_values=cache_values,
        )
