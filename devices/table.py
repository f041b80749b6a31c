"""Latency tables: measured or modelled times on full lattices of shapes, and interpolation between them."""

import csv
import io
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product
from math import exp, isfinite, log
from pathlib import Path

from common.errors import InputError
from devices.operation import OPERATION_KINDS, Operation, OperationKind


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One time of one operation; the fields are the columns of the CSV, in order.

    `count`: timed runs; 0 for a modelled time, which has neither spread nor minimum.
    """

    op: OperationKind
    m: int
    k: int
    n: int
    weight_bits: int
    activation_bits: int
    threads: int
    core_set: str
    count: int
    mean_ms: float
    std_ms: float | None
    min_ms: float | None
    source: str

    def __post_init__(self) -> None:
        if self.op not in OPERATION_KINDS:
            raise ValueError(f"op must be one of {', '.join(OPERATION_KINDS)}, but got {self.op!r}")
        for name in ("m", "k", "n", "weight_bits", "activation_bits", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}")
        _require_time("mean_ms", self.mean_ms, above_zero=True)
        if self.count < 0 or not self.core_set or not self.source:
            raise ValueError("count must be at least 0, core_set and source must not be empty")
        if (self.count == 0) != (self.std_ms is None) or (self.count == 0) != (self.min_ms is None):
            raise ValueError("std_ms and min_ms must be given for timed rows (count > 0), and only for them")
        if self.std_ms is not None and self.min_ms is not None:
            _require_time("std_ms", self.std_ms, above_zero=False)
            _require_time("min_ms", self.min_ms, above_zero=True)
            if self.min_ms > self.mean_ms:
                raise ValueError(f"min_ms must not exceed mean_ms, but got {self.min_ms:g} and {self.mean_ms:g}")


def _require_time(name: str, time_ms: float, *, above_zero: bool) -> None:
    if not isfinite(time_ms) or time_ms < 0 or (above_zero and time_ms == 0):
        rule = "above zero" if above_zero else "at least zero"
        raise ValueError(f"{name} must be finite and {rule}, but got {time_ms:g}")


COLUMNS = tuple(field.name for field in fields(TableRow))


@dataclass(frozen=True, kw_only=True, slots=True)
class LatticeKey:
    """What is not interpolated: an operation's kind and precision, and where it runs."""

    op: OperationKind
    weight_bits: int
    activation_bits: int
    threads: int
    core_set: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """The nodes of one dimension of a lattice, ascending."""

    name: str
    nodes: tuple[int, ...]

    def bracket(self, size: int) -> tuple[int, float]:
        """The cell (lower node's index, share of the upper node in log space) for `size`.

        Beyond the ends the share leaves [0, 1]: the last slope goes on. Raises InputError when there is
        one node only and `size` is another.
        """
        if len(self.nodes) == 1:
            if size != self.nodes[0]:
                raise InputError(
                    f"latency table: {self.name} = {size} asked, but it has {self.name} = {self.nodes[0]} only"
                )
            return 0, 0.0
        index = min(max(bisect_right(self.nodes, size) - 1, 0), len(self.nodes) - 2)
        low, high = self.nodes[index], self.nodes[index + 1]
        return index, log(size / low) / log(high / low)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lattice:
    """Times on every combination of the axes' nodes; `log_ms` in the order of `itertools.product(m, k, n)`."""

    axes: tuple[Axis, Axis, Axis]
    log_ms: tuple[float, ...]

    def mean_ms(self, m: int, k: int, n: int) -> float:
        """Multilinear interpolation of log time over log shape: exact for any power law in m, k and n."""
        cells = [axis.bracket(size) for axis, size in zip(self.axes, (m, k, n), strict=True)]
        corners = ([(index, 1 - share), (index + 1, share)] if share else [(index, 1.0)] for index, share in cells)
        _, rows_k, rows_n = (len(axis.nodes) for axis in self.axes)
        log_ms = sum(
            share_m * share_k * share_n * self.log_ms[(at_m * rows_k + at_k) * rows_n + at_n]
            for (at_m, share_m), (at_k, share_k), (at_n, share_n) in product(*corners)
        )
        return exp(log_ms)


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Every row of a device's latencies; for each precision and core set they fill a lattice of shapes."""

    rows: tuple[TableRow, ...]
    file: Path

    @cached_property
    def lattices(self) -> dict[LatticeKey, Lattice]:
        """Raises InputError naming the file for duplicates and holes."""
        groups: dict[LatticeKey, dict[tuple[int, int, int], float]] = {}
        for number, row in enumerate(self.rows, start=2):
            key = LatticeKey(
                op=row.op,
                weight_bits=row.weight_bits,
                activation_bits=row.activation_bits,
                threads=row.threads,
                core_set=row.core_set,
            )
            group = groups.setdefault(key, {})
            shape = (row.m, row.k, row.n)
            if shape in group:
                raise InputError(f"{self.file}: row {number}: {_describe(key)} of shape {shape} is given twice")
            group[shape] = log(row.mean_ms)
        return {key: _lattice(key, group, self.file) for key, group in groups.items()}

    def mean_ms(self, operation: Operation, *, threads: int, core_set: str) -> float:
        """Raises InputError when the table knows nothing of this kind and precision."""
        key = LatticeKey(
            op=operation.kind,
            weight_bits=operation.weight_bits,
            activation_bits=operation.activation_bits,
            threads=threads,
            core_set=core_set,
        )
        lattice = self.lattices.get(key)
        if lattice is None:
            known = ", ".join(
                f"{k.weight_bits}/{k.activation_bits}"
                for k in self.lattices
                if (k.op, k.threads, k.core_set) == (key.op, threads, core_set)
            )
            raise InputError(
                f"{self.file}: no latencies for {_describe(key)}; known weight/activation bits: {known or 'none'}"
            )
        return lattice.mean_ms(operation.m, operation.k, operation.n)


def _describe(key: LatticeKey) -> str:
    bits = f"{key.weight_bits}-bit weights and {key.activation_bits}-bit activations"
    return f"{key.op!r} with {bits} on {key.threads} threads of {key.core_set!r}"


def _lattice(key: LatticeKey, log_ms: dict[tuple[int, int, int], float], file: Path) -> Lattice:
    nodes = [tuple(sorted(set(sizes))) for sizes in zip(*log_ms, strict=True)]
    for shape in product(*nodes):
        if shape not in log_ms:
            raise InputError(f"{file}: a row is missing: {_describe(key)} of shape {shape}")
    m, k, n = (Axis(name=name, nodes=sizes) for name, sizes in zip("mkn", nodes, strict=True))
    return Lattice(axes=(m, k, n), log_ms=tuple(log_ms[shape] for shape in sorted(log_ms)))


def format_table(rows: Iterable[TableRow]) -> str:
    """The rows as CSV; times with six significant digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = (getattr(row, column) for column in COLUMNS)
        writer.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in values)
    return text.getvalue()


def parse_table(text: str, *, file: Path) -> LatencyTable:
    """Raise InputError naming `file` and the row unless `text` is a whole table."""
    lines = list(csv.reader(io.StringIO(text)))
    if not lines or tuple(lines[0]) != COLUMNS:
        raise InputError(f"{file}: row 1: the columns must be {','.join(COLUMNS)}")
    if len(lines) == 1:
        raise InputError(f"{file}: the latency table has no rows")
    rows = tuple(_parse_row(line, number, file) for number, line in enumerate(lines[1:], start=2))
    table = LatencyTable(rows=rows, file=file)
    _ = table.lattices  # holes and duplicates are found now, not in the middle of a search
    return table


def _parse_row(line: Sequence[str], number: int, file: Path) -> TableRow:
    try:
        op, m, k, n, weight_bits, activation_bits, threads, core_set, count, mean, std, least, source = line
        return TableRow(
            op=op,  # type: ignore[arg-type]  # TableRow refuses unknown kinds
            m=int(m),
            k=int(k),
            n=int(n),
            weight_bits=int(weight_bits),
            activation_bits=int(activation_bits),
            threads=int(threads),
            core_set=core_set,
            count=int(count),
            mean_ms=float(mean),
            std_ms=float(std) if std else None,
            min_ms=float(least) if least else None,
            source=source,
        )
    except ValueError as error:
        raise InputError(f"{file}: row {number}: {error}") from error
