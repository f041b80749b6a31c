"""What steps of a decoder read, and how much longer that takes when a shared cache has forgotten it.

Rows of one-row operations are timed with `CACHED_MB` of weights in turn. A server's last-level cache is shared: what
other programs read drives our weights out, the more of them the longer we take to come back to them. So what a
megabyte takes longer depends on the time between two readings of it, and on the kernel that waits for it: one that
reads in the order of memory waits less than one that jumps between codes and scales.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from devices.operation import Operation, OperationKind
from devices.table import TableRow

Array = NDArray[np.float64]

STREAMS: tuple[OperationKind, ...] = ("stream", "cache_stream")
STREAM_GROUP_SIZE = 32
"""Of streams of weights in groups."""
CACHED_MB = 32
"""Weights that a model for a one-row product has: more than a core's own caches, less than a server's last one."""
_STEPS_TO_SETTLE, _SETTLED = 30, 1e-4


def stream_of(operation: Operation) -> Operation | None:
    """The stream of one megabyte that is read as this operation reads; None for one that reads nothing of its own."""
    o = operation
    match o.kind:
        case "gemv":
            group_size = STREAM_GROUP_SIZE if o.group_size else 0
            return Operation(
                kind="stream", weight_bits=o.weight_bits, activation_bits=o.activation_bits, group_size=group_size
            )
        case "cross_attention":
            return Operation(kind="cache_stream")
        case _:
            return None


def streamed_bytes(operation: Operation) -> float:
    """What one execution for a row reads once: weights with their scales, or keys and values; 0 for all else."""
    o = operation
    match o.kind:
        case "gemv":
            scales = 4 / o.group_size if o.group_size else 0.0
            return o.k * o.n * (o.weight_bits / 8 + scales)
        case "cross_attention":
            return 8 * o.heads * o.n * o.k
        case _:
            return 0


@dataclass(frozen=True, kw_only=True)
class StreamPredictor:
    """`intervals_ms` (n,), ascending, and for each kind of stream `extra_ms_per_mb` (n,): what a megabyte takes longer
    than in a stream of `CACHED_MB` when it is read again after that time; linear between them.

    Where the device's caches are smaller than that, nothing is added.
    """

    intervals_ms: Array
    extra_ms_per_mb: Mapping[Operation, Array]

    @classmethod
    def fit(cls, rows: Sequence[TableRow]) -> Self:
        """From rows of streams; of which there are none, nothing is known to be added."""
        kinds: dict[Operation, list[TableRow]] = {}
        for row in rows:
            kinds.setdefault(replace(row.operation, n=1), []).append(row)
        intervals_ms = np.unique([row.median_ms for row in rows])
        curves = {kind: np.interp(intervals_ms, *_curve(some)) for kind, some in kinds.items()}
        return cls(intervals_ms=intervals_ms, extra_ms_per_mb=curves)

    def extra_ms(self, reads: Mapping[Operation, float], interval_ms: float) -> float:
        """What so many megabytes of each kind take longer when each is read every `interval_ms`."""
        curve = self._curve(reads)
        return float(np.interp(interval_ms, self.intervals_ms, curve)) if len(curve) else 0.0

    def step_extra_ms(self, reads: Mapping[Operation, float], step_ms: float, factor: float) -> float:
        """The same for a step whose operations take `step_ms`: it takes t = factor x (step + extra(t)).

        The least solution, found from below: the extra hardly falls with the interval, and is bounded.
        """
        curve, extra = self._curve(reads), 0.0
        if not len(curve):
            return extra
        for _ in range(_STEPS_TO_SETTLE):
            before = extra
            extra = float(np.interp(factor * (step_ms + extra), self.intervals_ms, curve))
            if extra - before <= _SETTLED * step_ms:
                break
        return extra

    def _curve(self, reads: Mapping[Operation, float]) -> Array:
        """ms of the extra (n,); empty where nothing is known."""
        known = self.extra_ms_per_mb
        curves = [megabytes * known[kind] for kind, megabytes in reads.items() if kind in known]
        return np.sum(curves, axis=0) if curves else np.empty(0)


def _curve(rows: Sequence[TableRow]) -> tuple[Array, Array]:
    """Ascending intervals and extra per megabyte of one kind of stream."""
    ordered = sorted(rows, key=lambda row: row.median_ms)
    megabytes = np.array([row.n for row in ordered], dtype=np.float64)
    times_ms = np.array([row.median_ms for row in ordered])
    rates = times_ms / megabytes
    cached_rate = rates[int(np.argmin(np.abs(megabytes - CACHED_MB)))]
    return times_ms, np.maximum(rates - cached_rate, 0.0)
