"""What ONNX Runtime's kernels ask of a processor: multiply-adds, instructions and bytes of every operation.

Instructions of matrix-vector products on Arm were counted under QEMU (ONNX Runtime 1.32, one row times 384 x 1536, a
Cortex-A53 without and a Cortex-A76 with int8 dot products); they are a property of the runtime's code, not of a
device. Counts of the other kernels are estimates from times on x86-64, scaled by the width of the vectors.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from devices.operation import FLOAT_BITS, Operation

Kernels = Literal["neon", "neon_dot", "avx2"]
"""Arm without and with int8 dot products; x86-64."""

FLOAT_BYTES = 4
INTEGER_BITS = 8
"""Weights of at most these bits are integers with scales."""
SCALE_BYTES = 4
ZERO_POINT_BITS = 8


class ProductKernel(NamedTuple):
    """Precision of a product with stored weights; `in_blocks`: one scale per group along k, else per channel."""

    weight_bits: int
    activation_bits: int
    in_blocks: bool


_FLOAT = ProductKernel(32, 32, in_blocks=False)
_INT8 = ProductKernel(8, 8, in_blocks=False)

GEMV_INSTRUCTIONS: dict[Kernels, dict[ProductKernel, float]] = {
    "neon": {
        _FLOAT: 0.35,  # counted: 0.2 to 0.5
        _INT8: 0.49,  # counted; 0.61 unsigned
        ProductKernel(8, 32, in_blocks=True): 5.8,  # counted: two products with the 4-bit halves of the codes
        ProductKernel(4, 32, in_blocks=True): 2.9,  # counted
        ProductKernel(2, 32, in_blocks=True): 26.0,  # counted: the matrix is widened to float32 each time
        ProductKernel(8, 8, in_blocks=True): 26.0,  # not counted: without dot products as 2 bits, widened each time
        ProductKernel(4, 8, in_blocks=True): 2.9,  # without dot products the float32 kernel runs
        ProductKernel(2, 8, in_blocks=True): 26.0,
    },
    "neon_dot": {
        _FLOAT: 0.35,
        _INT8: 0.12,  # not counted: a little over the kernel in blocks
        ProductKernel(8, 32, in_blocks=True): 5.8,
        ProductKernel(4, 32, in_blocks=True): 2.9,
        ProductKernel(2, 32, in_blocks=True): 26.0,
        ProductKernel(8, 8, in_blocks=True): 0.1,  # counted
        ProductKernel(4, 8, in_blocks=True): 0.4,  # counted
        ProductKernel(2, 8, in_blocks=True): 26.0,
    },
    # not counted: from times of tiny.en's logits on a Xeon, 2 cores (docs/decisions/0009)
    "avx2": {
        _FLOAT: 0.2,
        _INT8: 0.15,
        ProductKernel(8, 32, in_blocks=True): 1.0,
        ProductKernel(4, 32, in_blocks=True): 0.5,
        ProductKernel(2, 32, in_blocks=True): 26.0,
        ProductKernel(8, 8, in_blocks=True): 0.15,
        ProductKernel(4, 8, in_blocks=True): 0.25,
        ProductKernel(2, 8, in_blocks=True): 26.0,
    },
}
"""Instructions per weight of one row times a matrix."""
WIDENING_INSTRUCTIONS: dict[int, float] = {2: 26.0, 4: 3.0, 8: 3.0, FLOAT_BITS: 0.0}
"""Per weight and call of a product of many rows, whose kernels widen the weights first; 4 and 8 bits are estimates:
750 rows take 0.31 to 0.34 instructions per multiply-add with or without (counted)."""
BLOCK_SLOWDOWN = 2.0
"""Integer products in blocks against whole ones: after each block its sum is scaled in float32. An estimate."""

ROUNDING_INSTRUCTIONS: dict[tuple[str, int], float] = {
    ("quantise", 8): 2.5,
    ("quantise", 16): 2.5,
    ("dynamic_quantise", 8): 3.5,
    ("dynamic_quantise", 16): 8.0,
    ("dequantise", 8): 1.5,
    ("dequantise", 16): 1.5,
}
"""Per element. ONNX Runtime 1.32 on one thread of a Xeon with 16 lanes: 0.23, 0.36, 0.21 ns per element for rounding
with a known range, with its own, and back; dynamic ranges of 16 bits are a chain of elementwise operators."""
LAYER_NORM_INSTRUCTIONS = 16.0
"""Per element; 5.3 ns on the same Xeon: SkipLayerNormalization is scalar code."""
GELU_INSTRUCTIONS = 12.0
"""Per element; 0.82 ns on the same Xeon with 16 lanes."""
SOFTMAX_INSTRUCTIONS = 7.0
"""Per score; 0.43 ns on the same Xeon with 16 lanes."""
SINGLE_ROW_ATTENTION_INSTRUCTIONS = 0.5
"""Per multiply-add of one query, as a float32 matrix-vector product with short rows."""
LOOK_UP_INSTRUCTIONS: dict[bool, float] = {False: 0.5, True: 10.0}
"""Per element, of floats and of packed codes."""
COPY_INSTRUCTIONS = 0.5
"""Per element moved."""
SESSION_INSTRUCTIONS = 5000.0
"""Per value that a graph takes or gives, of one thread: an estimate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What an operation asks of the machine.

    `float_macs`, `attention_macs`, `int8_macs`: multiply-adds of blocked kernels, which run at a share of the peak.
    `instructions`: vector instructions of all other kernels, which run at a number per cycle.
    `streamed_bytes`: read from memory whatever the cache; `cached_bytes`: only what exceeds the last-level cache.
    """

    float_macs: float = 0
    attention_macs: float = 0
    int8_macs: float = 0
    instructions: float = 0
    streamed_bytes: float = 0
    cached_bytes: float = 0


def weight_bytes(operation: Operation) -> float:
    """Bytes of the k x n weights in memory: codes, and a float32 scale and a zero point per group of them."""
    weights = operation.k * operation.n
    if operation.weight_bits > INTEGER_BITS:
        return weights * FLOAT_BYTES
    groups = weights / operation.group_size if operation.group_size else operation.n
    return weights * operation.weight_bits / 8 + groups * (SCALE_BYTES + ZERO_POINT_BITS / 8)


def product_kernel(operation: Operation) -> ProductKernel:
    """Which kernel multiplies; there is no integer one for floating-point weights."""
    return ProductKernel(operation.weight_bits, operation.activation_bits, in_blocks=operation.group_size > 0)


def _single_row_work(operation: Operation, kernels: Kernels) -> Work:
    return Work(
        instructions=GEMV_INSTRUCTIONS[kernels][product_kernel(operation)] * operation.k * operation.n,
        streamed_bytes=weight_bytes(operation),
        cached_bytes=FLOAT_BYTES * (operation.k + operation.n),
    )


def _many_rows_work(operation: Operation, kernels: Kernels) -> Work:
    """Integer arithmetic needs integers on both sides and, in blocks, dot products; all else runs as float32."""
    m, k, n = operation.m, operation.k, operation.n
    kernel = product_kernel(operation)
    in_integers = kernel == _INT8 or (kernel.activation_bits == 8 and kernel.weight_bits > 2 and kernels != "neon")
    macs = m * k * n
    return Work(
        float_macs=0 if in_integers else macs,
        int8_macs=macs * (BLOCK_SLOWDOWN if kernel.in_blocks else 1) if in_integers else 0,
        instructions=0 if in_integers else WIDENING_INSTRUCTIONS[kernel.weight_bits] * k * n,
        streamed_bytes=weight_bytes(operation),
        cached_bytes=FLOAT_BYTES * m * (k + n),
    )


def _attention_work(operation: Operation) -> Work:
    """Scores and mixing are heads x m x k x n multiply-adds each, and there are heads x m x n scores.

    Keys and values are 8 heads n k bytes. Those of cross-attention come from memory, as each layer has its own; a cache
    is read, written to the longer cache and read again.
    """
    heads, m, k, n = operation.heads, operation.m, operation.k, operation.n
    macs, scores, fixed_bytes = 2 * heads * m * k * n, heads * m * n, 2 * FLOAT_BYTES * heads * n * k
    softmax = SOFTMAX_INSTRUCTIONS * scores
    match operation.kind:
        case "attention":
            split = COPY_INSTRUCTIONS * 4 * heads * m * k
            activations = FLOAT_BYTES * 4 * heads * m * k
            return Work(attention_macs=macs, instructions=softmax + split, cached_bytes=2 * activations)
        case "cached_attention":
            copied = COPY_INSTRUCTIONS * 2 * heads * n * k
            products = SINGLE_ROW_ATTENTION_INSTRUCTIONS * macs
            return Work(instructions=products + softmax + copied, streamed_bytes=2 * fixed_bytes)
        case _:
            products = SINGLE_ROW_ATTENTION_INSTRUCTIONS * macs
            return Work(instructions=products + softmax, streamed_bytes=fixed_bytes)


def _rows_work(operation: Operation) -> Work:
    m, k, n = operation.m, operation.k, operation.n
    elements = m * n
    match operation.kind:
        case "quantise" | "dynamic_quantise" | "dequantise":
            per_element = ROUNDING_INSTRUCTIONS[operation.kind, operation.activation_bits]
            traffic = (FLOAT_BYTES + operation.activation_bits / 8) * m * k
            return Work(instructions=per_element * m * k, cached_bytes=traffic)
        case "layer_norm":
            return Work(instructions=LAYER_NORM_INSTRUCTIONS * elements, cached_bytes=4 * FLOAT_BYTES * elements)
        case "gelu":
            return Work(instructions=GELU_INSTRUCTIONS * elements, cached_bytes=2 * FLOAT_BYTES * elements)
        case "embedding":
            packed = operation.weight_bits <= INTEGER_BITS
            return Work(instructions=LOOK_UP_INSTRUCTIONS[packed] * elements, streamed_bytes=FLOAT_BYTES * elements)
        case "split_heads":
            traffic = 2 * FLOAT_BYTES * elements
            return Work(instructions=COPY_INSTRUCTIONS * elements, streamed_bytes=traffic)
        case _:
            return Work()


def work_of(operation: Operation, kernels: Kernels) -> Work:
    """The work of any operation; that of `session` is none, as it is overhead only."""
    match operation.kind:
        case "gemv":
            return _single_row_work(operation, kernels)
        case "gemm" | "convolution":
            return _many_rows_work(operation, kernels)
        case "attention" | "cached_attention" | "cross_attention":
            return _attention_work(operation)
        case _:
            return _rows_work(operation)
