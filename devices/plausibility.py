"""Whether the numbers of a profile agree with each other: each may be possible, and two of them not together."""

from collections.abc import Iterator
from statistics import median

from common.errors import InputError
from devices.facts import DeviceDescription
from devices.operation import FLOAT_BITS, OPERATION_KINDS
from devices.roofline import Roofline, precisions
from devices.table import LatencyTable, TableRow

MOST_BYTES_PER_CYCLE = 16
"""That all cores together stream from memory, for each of them: a server's do 1 to 7, a Raspberry Pi's 0.5."""
MOST_FLOAT_MACS_PER_CYCLE = 64
"""Of float32 on one core: two 512-bit multiply-adds are 32, at a clock that may be twice the stated one."""
LEAST_FLOAT_MACS_PER_CYCLE = 0.01
"""Of the best product in a table: a Cortex-A53 does 0.6."""
DISAGREEMENT = 30.0
"""Between a table's times and the profile's own facts; the model is off by less than two."""


def doubts(description: DeviceDescription, table: LatencyTable) -> tuple[str, ...]:
    """One line for each disagreement, with the factor and what may be the cause; empty where there is none."""
    here = (description.threads, description.execution.core_set)
    offered = {kind: precisions(kind, description) for kind in OPERATION_KINDS}
    rows = [
        row
        for row in table.rows
        if (row.threads, row.core_set) == here and (row.weight_bits, row.activation_bits) in offered[row.op]
    ]
    return (*_memory(description), *_speed(description, rows), *_facts(description, rows))


def _memory(description: DeviceDescription) -> Iterator[str]:
    """Bandwidth against the cores that ask for it."""
    roofline, clock = description.roofline, description.active_cores.clock_mhz
    if roofline is None or clock is None:
        return
    bytes_per_s = roofline.memory_bandwidth_gb_s.value * 1e9
    per_cycle = bytes_per_s / (clock.value * 1e6 * description.active_cores.count.value)
    if per_cycle > MOST_BYTES_PER_CYCLE:
        yield (
            f"roofline.memory_bandwidth_gb_s ({roofline.memory_bandwidth_gb_s.value:g} GB/s) would be {per_cycle:.0f} "
            f"bytes a cycle for each core, {MOST_BYTES_PER_CYCLE} are the most that is believable: is it in MB/s?"
        )


def _speed(description: DeviceDescription, rows: list[TableRow]) -> Iterator[str]:
    """The table's best float32 product against the clock."""
    clock = description.active_cores.clock_mhz
    products = [row for row in rows if row.op == "gemm" and row.weight_bits == row.activation_bits == FLOAT_BITS]
    if clock is None or not products:
        return
    best = max(row.m * row.k * row.n / row.median_ms * 1000 for row in products)
    per_cycle = best / (clock.value * 1e6 * description.threads)
    text = f"the table's fastest float32 product does {per_cycle:.2g} multiply-adds a cycle and core"
    if per_cycle > MOST_FLOAT_MACS_PER_CYCLE:
        yield f"{text}, {MOST_FLOAT_MACS_PER_CYCLE} are the most that any does: are its times in seconds, not ms?"
    if per_cycle < LEAST_FLOAT_MACS_PER_CYCLE:
        yield f"{text}, even slow ones do 0.5: are its times in microseconds, not ms?"


def _facts(description: DeviceDescription, rows: list[TableRow]) -> Iterator[str]:
    """The table's times against the roofline model of the profile's own facts."""
    if description.roofline is None or not rows:
        return
    try:
        model = Roofline.of(description)
    except InputError:  # a table was given because the facts are not enough for the model
        return
    ratio = median(row.median_ms / model.latency_ms(row.operation) for row in rows)
    if not 1 / DISAGREEMENT < ratio < DISAGREEMENT:
        factor, word = (ratio, "slower") if ratio > 1 else (1 / ratio, "faster")
        yield (
            f"the table is {factor:.3g} times {word} than the profile's own facts say (median over {len(rows)} rows): "
            f"{_likely_unit(ratio)}"
        )


def _likely_unit(ratio: float) -> str:
    for unit, factor in (("microseconds", 1e3), ("nanoseconds", 1e6), ("seconds", 1e-3)):
        if factor / DISAGREEMENT < ratio < factor * DISAGREEMENT:
            return f"are its times in {unit}, not ms?"
    return "check its times, the clock and the peaks"
