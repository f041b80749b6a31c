"""Rows of latency tables for tests."""

from devices.operation import Operation
from devices.table import TableRow


def timed(operation: Operation, ms: float, *, spread: float = 0.0, repeats: int = 32) -> TableRow:
    return TableRow(
        op=operation.kind,
        heads=operation.heads,
        m=operation.m,
        k=operation.k,
        n=operation.n,
        weight_bits=operation.weight_bits,
        activation_bits=operation.activation_bits,
        group_size=operation.group_size,
        threads=1,
        core_set="a72",
        repeats=repeats,
        median_ms=ms,
        mean_ms=ms,
        std_ms=spread * ms,
        min_ms=ms * (1 - min(spread, 0.5)),
        source="test",
        tool="test",
    )
