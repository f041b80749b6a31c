"""The blocks in which ONNX Runtime's MatMulNBits keeps integer weights."""

MIN_BLOCK, MAX_BLOCK = 16, 256
"""They are powers of two in this range."""


def block_of(group_size: int, columns: int) -> int | None:
    """The block of MatMulNBits for a group size; None when there is none.

    One group per row (`group_size` 0) becomes blocks with equal scales, of the largest power of two that divides the
    row.
    """
    if group_size:
        fits = MIN_BLOCK <= group_size <= MAX_BLOCK and group_size.bit_count() == 1
        return group_size if fits else None
    return min(max(columns & -columns, MIN_BLOCK), 128)
