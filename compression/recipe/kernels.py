"""Which of ONNX Runtime's kernels multiplies by the weights of a linear layer, and what happens to its input before.

Decided here once: `compress` rounds inputs as that kernel does, the exporter writes it, the costs price it.
"""

from dataclasses import dataclass
from typing import Literal

ActivationRanges = Literal["dynamic", "static"]
Kernel = Literal["floats", "int8_blocks", "integers"]
"""How the input is read: as float32 (MatMul, MatMulNBits); rounded to int8 in the weights' blocks, in MatMulNBits;
as 8-bit integers over one range (MatMulInteger)."""

FLOAT_BITS = 32
"""Of floating point in memory, however it is stored."""
WIDEST_INTEGER = 8
"""Weights of at most these bits are integers with scales."""
KERNEL_BITS = (2, 4, 8)
"""Bits per weight that MatMulNBits takes; it refuses the odd ones."""
MIN_BLOCK, MAX_BLOCK = 16, 256
"""Blocks of MatMulNBits are powers of two in this range."""


def block_of(group_size: int, columns: int) -> int | None:
    """The block of MatMulNBits for a group size; None when there is none.

    One group per row (`group_size` 0) becomes blocks with equal scales, of the largest power of two that divides the
    row.
    """
    if group_size:
        fits = MIN_BLOCK <= group_size <= MAX_BLOCK and group_size.bit_count() == 1
        return group_size if fits else None
    return min(max(columns & -columns, MIN_BLOCK), 128)


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """Stored bits per weight, group size and activations of a linear layer, as a recipe says them."""

    weight_bits: int
    group_size: int = 0
    activation_bits: int = FLOAT_BITS
    activation_ranges: ActivationRanges = "dynamic"

    @property
    def has_integer_weights(self) -> bool:
        return self.weight_bits <= WIDEST_INTEGER

    @property
    def kernel_bits(self) -> int:
        """Floating point is float32 in memory."""
        return self.weight_bits if self.has_integer_weights else FLOAT_BITS

    def block(self, inputs: int) -> int:
        """The block in which integer weights are kept; the group size where MatMulNBits has no such block."""
        return block_of(self.group_size, inputs) or self.group_size

    def kernel(self, inputs: int) -> Kernel:
        """Of a layer with so many inputs.

        MatMulInteger has 8-bit weights with one scale per output channel, as where a group holds a whole row.
        """
        if self.activation_bits != 8:
            return "floats"
        if self.has_integer_weights and self.group_size and self.activation_ranges == "dynamic":
            return "int8_blocks"
        has_one_scale = self.group_size == 0 or self.group_size >= inputs
        return "integers" if self.weight_bits == 8 and has_one_scale else "floats"

    def rounds_before(self, inputs: int) -> bool:
        """Whether the input is rounded by operators of its own, to be read as float32 again."""
        return self.activation_bits < FLOAT_BITS and self.kernel(inputs) == "floats"
