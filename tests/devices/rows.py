"""Rows of latency tables for tests."""

from devices.operation import Operation
from devices.table import TableRow


def timed(operation: Operation, ms: float, *, spread: float = 0.0, repeats: int = 32) -> TableRow:
    return TableRow.of(
        operation,
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
