"""Which operations ONNX Runtime runs for a linear layer; `compression.export.onnx_runtime.rounded` writes the same."""

from dataclasses import dataclass

from compression.recipe.blocks import block_of
from compression.recipe.recipe import ActivationRanges
from devices.operation import FLOAT_BITS, Operation, OperationKind

WIDEST_INTEGER = 8
"""Weights of at most these bits are integers with scales."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """Stored bits per weight, group size and activations of a linear layer, as a recipe says them."""

    weight_bits: int
    group_size: int = 0
    activation_bits: int = FLOAT_BITS
    activation_ranges: ActivationRanges = "dynamic"

    @property
    def kernel_bits(self) -> int:
        """Floating point is float32 in memory."""
        return self.weight_bits if self.weight_bits <= WIDEST_INTEGER else FLOAT_BITS


def roundings(rows: int, inputs: int, precision: Precision) -> tuple[Operation, ...]:
    """What happens to the input (rows, inputs) of a linear layer before its product.

    Nothing where the kernel rounds by itself: then that is part of the product.
    """
    bits = precision.activation_bits
    if bits == FLOAT_BITS or _rounds_in_blocks(precision) or _multiplies_integers(precision, inputs):
        return ()
    kind: OperationKind = "quantise" if precision.activation_ranges == "static" else "dynamic_quantise"
    return (
        Operation(kind=kind, m=rows, k=inputs, activation_bits=bits),
        Operation(kind="dequantise", m=rows, k=inputs, activation_bits=bits),
    )


def product(rows: int, inputs: int, outputs: int, precision: Precision) -> Operation:
    """(rows, inputs) times the stored matrix (inputs, outputs)."""
    is_integer = _multiplies_integers(precision, inputs)
    block = 0
    if precision.kernel_bits <= WIDEST_INTEGER and not is_integer:
        block = block_of(precision.group_size, inputs) or precision.group_size
    return Operation(
        kind="gemv" if rows == 1 else "gemm",
        m=rows,
        k=inputs,
        n=outputs,
        weight_bits=precision.kernel_bits,
        activation_bits=8 if is_integer or _rounds_in_blocks(precision) else FLOAT_BITS,
        group_size=block,
    )


def _rounds_in_blocks(precision: Precision) -> bool:
    """int8 in the blocks of the weights, inside of MatMulNBits."""
    integer_weights = precision.kernel_bits <= WIDEST_INTEGER and precision.group_size > 0
    return integer_weights and precision.activation_bits == 8 and precision.activation_ranges == "dynamic"


def _multiplies_integers(precision: Precision, inputs: int) -> bool:
    """MatMulInteger, which has 8-bit weights with one scale per output channel, as where a group holds a whole row."""
    has_one_scale = precision.group_size == 0 or precision.group_size >= inputs
    is_integer = (precision.weight_bits, precision.activation_bits) == (8, 8)
    return is_integer and has_one_scale and not _rounds_in_blocks(precision)
