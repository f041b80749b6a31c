"""One kind of work that a runtime does, as a latency table knows it."""

from dataclasses import dataclass
from typing import Literal, get_args

OperationKind = Literal[
    "linear",  # (M, K) activations times (K, N) stored weights; M = 1 is a matrix-vector product
    "convolution",  # the same after im2col: M output frames, K = channels_in * kernel width, N channels_out
    "attention",  # (M, K) times (K, N), both activations, one head: scores and mixing
    "softmax",  # M rows of N
    "layer_norm",  # M rows of N
    "gelu",  # M rows of N
    "embedding",  # look-up of M rows of N
    "cache_append",  # M rows of N copied into a key or value cache
    "session",  # fixed overhead of one run of a graph
]
OPERATION_KINDS: tuple[OperationKind, ...] = get_args(OperationKind)

FLOAT_BITS = 32
"""Activation precision of an unquantised operation: float32 arithmetic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """An operation of one shape at one precision.

    `m`, `k`, `n`: its dimensions; unused ones are 1 (see OperationKind).
    `weight_bits`: stored bits per weight, 2 to 8, 16 (float16) or 32; 32 for operations without weights.
    `activation_bits`: 32 (float32 arithmetic), 16 or 8 (integer arithmetic).
    `group_size`: weights per scale along k; 0 means one scale per output channel.
    """

    kind: OperationKind
    m: int = 1
    k: int = 1
    n: int = 1
    weight_bits: int = FLOAT_BITS
    activation_bits: int = FLOAT_BITS
    group_size: int = 0
