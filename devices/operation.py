"""One kind of work that a runtime does, as a latency table knows it."""

from dataclasses import dataclass
from typing import Literal, get_args

OperationKind = Literal[
    "gemm",  # (M, K) activations times (K, N) stored weights, M > 1, and the bias: the encoder's linear layers
    "gemv",  # the same for one row: the decoder's linear layers and the logits
    "quantise",  # M rows of K rounded to integers in a range that is known
    "dynamic_quantise",  # the same in their own range, found first
    "dequantise",  # M rows of K integers back to float32
    "convolution",  # after im2col: M output frames, K = channels_in * kernel width, N channels_out; float32
    "attention",  # softmax(q k^T) v of each head in one kernel: M queries, N keys, K per head
    "cached_attention",  # the same for M new rows whose keys and values are appended to a cache, then N long
    "cross_attention",  # the same for M rows over N keys and values that stay
    "split_heads",  # M rows of N columns, keys and values side by side, into one matrix per head
    "layer_norm",  # M rows of N: the residual addition before it included
    "gelu",  # M rows of N
    "embedding",  # look-up of M rows of N
    "stream",  # in tables only: a step that does nothing but multiply one row by N megabytes of weights
    "cache_stream",  # the same over N megabytes of keys and values
    "session",  # fixed overhead of one run of a graph that takes and gives N values
]
OPERATION_KINDS: tuple[OperationKind, ...] = get_args(OperationKind)

FLOAT_BITS = 32
"""Activation precision of an unquantised operation: float32 arithmetic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """An operation of one shape at one precision: one kernel, or the few that always come together.

    `heads`, `m`, `k`, `n`: its dimensions; unused ones are 1 (see OperationKind).
    `weight_bits`: of the weights that the kernel multiplies by: 2, 4, 8, or 32 for floating point, since float16 is
    widened when a model is loaded; 32 for operations without weights.
    `activation_bits`: of a product, 8 (integers times integers) or 32; of a rounding, 8 or 16.
    `group_size`: weights per scale in the kernel; 0 for floating point, and for integer products with one scale per
    output channel.
    """

    kind: OperationKind
    heads: int = 1
    m: int = 1
    k: int = 1
    n: int = 1
    weight_bits: int = FLOAT_BITS
    activation_bits: int = FLOAT_BITS
    group_size: int = 0
