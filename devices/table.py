"""Latency tables: times of single operations, measured on a device or modelled for it."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, Self

from common.errors import InputError
from devices.operation import OPERATION_KINDS, Operation, OperationKind

MODELLED = 0
"""Repeats of a time that nobody measured."""
NONSENSE_FACTOR = 3.0
"""An operation that is larger in every dimension cannot be so many times faster than a smaller one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One time of one operation; the fields are the columns of the CSV, in order.

    `heads` to `group_size`: see `Operation`. `core_set`: the cores that the threads were pinned to. `repeats`: timed
    runs; 0 for a modelled time, which has `median_ms` only. `source`: the profile run, or the model. `tool`: name and
    version of what measured.
    """

    op: OperationKind
    heads: int
    m: int
    k: int
    n: int
    weight_bits: int
    activation_bits: int
    group_size: int
    threads: int
    core_set: str
    repeats: int
    median_ms: float
    mean_ms: float | None
    std_ms: float | None
    min_ms: float | None
    source: str
    tool: str

    def __post_init__(self) -> None:
        if self.op not in OPERATION_KINDS:
            raise ValueError(f"op must be one of {', '.join(OPERATION_KINDS)}, but got {self.op!r}")
        for name in ("heads", "m", "k", "n", "weight_bits", "activation_bits", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}")
        if self.group_size < 0 or self.repeats < 0 or not self.core_set or not self.source or not self.tool:
            raise ValueError("group_size and repeats must be at least 0; core_set, source and tool must not be empty")
        _require_time("median_ms", self.median_ms, above_zero=True)
        self._check_measured()

    def _check_measured(self) -> None:
        measured = (self.mean_ms, self.std_ms, self.min_ms)
        if any((value is None) != (self.repeats == MODELLED) for value in measured):
            raise ValueError("mean_ms, std_ms and min_ms must be given for timed rows (repeats > 0), and only for them")
        if self.mean_ms is None or self.std_ms is None or self.min_ms is None:
            return
        _require_time("mean_ms", self.mean_ms, above_zero=True)
        _require_time("std_ms", self.std_ms, above_zero=False)
        _require_time("min_ms", self.min_ms, above_zero=True)
        if self.min_ms > min(self.median_ms, self.mean_ms):
            raise ValueError(f"min_ms ({self.min_ms:g}) must not exceed median_ms and mean_ms")

    @classmethod
    def of(cls, operation: Operation, **time: Any) -> Self:
        """A row of this operation; `time`: the other fields."""
        shape = asdict(operation)
        return cls(op=shape.pop("kind"), **shape, **time)

    @property
    def operation(self) -> Operation:
        return Operation(
            kind=self.op,
            heads=self.heads,
            m=self.m,
            k=self.k,
            n=self.n,
            weight_bits=self.weight_bits,
            activation_bits=self.activation_bits,
            group_size=self.group_size,
        )

    @property
    def relative_spread(self) -> float:
        """Standard deviation of a run over the median; 0 for a modelled time."""
        return (self.std_ms or 0.0) / self.median_ms


def _require_time(name: str, time_ms: float, *, above_zero: bool) -> None:
    if not isfinite(time_ms) or time_ms < 0 or (above_zero and time_ms == 0):
        rule = "above zero" if above_zero else "at least zero"
        raise ValueError(f"{name} must be finite and {rule}, but got {time_ms:g}")


COLUMNS = tuple(field.name for field in fields(TableRow))
_INTEGERS = ("heads", "m", "k", "n", "weight_bits", "activation_bits", "group_size", "threads", "repeats")
_TIMES = ("median_ms", "mean_ms", "std_ms", "min_ms")


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelClass:
    """Operations that differ in shape only, so that one may tell of another: the same kernel on the same cores."""

    op: OperationKind
    weight_bits: int
    activation_bits: int
    is_grouped: bool
    threads: int
    core_set: str

    @classmethod
    def of(cls, operation: Operation, *, threads: int, core_set: str) -> "KernelClass":
        return cls(
            op=operation.kind,
            weight_bits=operation.weight_bits,
            activation_bits=operation.activation_bits,
            is_grouped=operation.group_size > 0,
            threads=threads,
            core_set=core_set,
        )

    def __str__(self) -> str:
        groups = " in groups" if self.is_grouped else ""
        bits = f"{self.weight_bits}-bit weights{groups} and {self.activation_bits}-bit activations"
        return f"{self.op!r} with {bits} on {self.threads} threads of {self.core_set!r}"


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Every row of a device's latencies."""

    rows: tuple[TableRow, ...]
    file: Path

    @cached_property
    def classes(self) -> dict[KernelClass, tuple[TableRow, ...]]:
        """The rows by what they can tell about."""
        groups: dict[KernelClass, list[TableRow]] = {}
        for row in self.rows:
            key = KernelClass.of(row.operation, threads=row.threads, core_set=row.core_set)
            groups.setdefault(key, []).append(row)
        return {key: tuple(group) for key, group in groups.items()}

    def check(self) -> None:
        """Raise InputError naming the file and the row for a shape given twice, or times that cannot be."""
        numbers = {id(row): number for number, row in enumerate(self.rows, start=2)}
        for key, rows in self.classes.items():
            seen: dict[Operation, TableRow] = {}
            for row in rows:
                where = f"{self.file}: row {numbers[id(row)]}"
                if row.operation in seen:
                    raise InputError(f"{where}: {key} of shape {_shape(row)} is given twice")
                seen[row.operation] = row
            for small, large in _inversions(rows):
                raise InputError(
                    f"{self.file}: row {numbers[id(large)]}: {key} of shape {_shape(large)} takes "
                    f"{large.median_ms:g} ms, less than a third of the {small.median_ms:g} ms of the smaller shape "
                    f"{_shape(small)} in row {numbers[id(small)]}"
                )


def _shape(row: TableRow) -> tuple[int, ...]:
    return (row.heads, row.m, row.k, row.n)


def _inversions(rows: Sequence[TableRow]) -> Iterator[tuple[TableRow, TableRow]]:
    """Pairs of a smaller and a larger shape of which the larger is absurdly faster."""
    for small in rows:
        for large in rows:
            is_larger = all(a <= b for a, b in zip(_shape(small), _shape(large), strict=True))
            same_group = small.group_size == large.group_size
            if is_larger and same_group and large.median_ms * NONSENSE_FACTOR < small.median_ms:
                yield small, large


def format_table(rows: Iterable[TableRow]) -> str:
    """The rows as CSV; times with six significant digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = asdict(row)
        cells |= {name: "" if cells[name] is None else f"{cells[name]:.6g}" for name in _TIMES}
        writer.writerow(cells)
    return text.getvalue()


def parse_table(text: str, *, file: Path) -> LatencyTable:
    """Raise InputError naming `file` and the row unless `text` is a table that can be believed."""
    try:
        lines = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise InputError(f"{file}: not a CSV file: {error}") from error
    if not lines or tuple(lines[0]) != COLUMNS:
        raise InputError(f"{file}: row 1: the columns must be {','.join(COLUMNS)}")
    if len(lines) == 1:
        raise InputError(f"{file}: the latency table has no rows")
    table = LatencyTable(
        rows=tuple(_parse_row(line, number, file) for number, line in enumerate(lines[1:], start=2)), file=file
    )
    table.check()
    return table


def _parse_row(line: Sequence[str], number: int, file: Path) -> TableRow:
    if len(line) != len(COLUMNS):
        raise InputError(f"{file}: row {number}: {len(COLUMNS)} cells are needed, but got {len(line)}")
    cells: dict[str, Any] = dict(zip(COLUMNS, line, strict=True))
    try:
        cells |= {name: int(cells[name]) for name in _INTEGERS}
        cells |= {name: float(cells[name]) if cells[name] else None for name in _TIMES}
        if cells["median_ms"] is None:
            raise ValueError("median_ms is missing")
        return TableRow(**cells)
    except ValueError as error:
        raise InputError(f"{file}: row {number}: {error}") from error
