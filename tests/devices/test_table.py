from itertools import product
from math import isclose
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from devices.operation import Operation
from devices.table import COLUMNS, LatencyTable, TableRow, format_table, parse_table

FILE = Path("board.csv")
NODES = (1, 8, 100)


def row(m: int, k: int, n: int, mean_ms: float) -> TableRow:
    return TableRow(
        op="linear",
        m=m,
        k=k,
        n=n,
        weight_bits=8,
        activation_bits=32,
        threads=4,
        core_set="a53",
        count=0,
        mean_ms=mean_ms,
        std_ms=None,
        min_ms=None,
        source="test",
    )


def power_law(m: int, k: int, n: int) -> float:
    return 0.003 * m**0.9 * k**1.1 * n**0.5


def table_of_power_law() -> LatencyTable:
    return LatencyTable(
        rows=tuple(row(m, k, n, power_law(m, k, n)) for m, k, n in product(NODES, NODES, NODES)), file=FILE
    )


def ask(table: LatencyTable, m: int, k: int, n: int) -> float:
    operation = Operation(kind="linear", m=m, k=k, n=n, weight_bits=8)
    return table.mean_ms(operation, threads=4, core_set="a53")


sizes = st.integers(1, 1000)


@given(sizes, sizes, sizes)
def test_power_laws_are_interpolated_and_extrapolated_exactly(m: int, k: int, n: int) -> None:
    assert isclose(ask(table_of_power_law(), m, k, n), power_law(m, k, n), rel_tol=1e-9)


def test_group_sizes_are_not_told_apart() -> None:
    table = table_of_power_law()
    grouped = Operation(kind="linear", m=8, k=8, n=8, weight_bits=8, group_size=32)
    assert table.mean_ms(grouped, threads=4, core_set="a53") == ask(table, 8, 8, 8)


def test_a_single_node_is_not_stretched() -> None:
    table = LatencyTable(rows=tuple(row(1, k, 8, 1.0) for k in NODES), file=FILE)
    with pytest.raises(InputError, match="m = 2 asked, but it has m = 1 only"):
        ask(table, 2, 8, 8)


def test_unknown_precision_names_the_known_ones() -> None:
    operation = Operation(kind="linear", m=8, k=8, n=8, weight_bits=3)
    with pytest.raises(InputError, match=r"board.csv: .*3-bit weights.* known weight/activation bits: 8/32"):
        table_of_power_law().mean_ms(operation, threads=4, core_set="a53")


def test_text_round_trip() -> None:
    text = format_table(table_of_power_law().rows)
    assert format_table(parse_table(text, file=FILE).rows) == text


TIMED = "linear,1,1,1,8,32,4,a53,50,2.0,0.1,1.8,profiler"


def parse_lines(*lines: str) -> LatencyTable:
    return parse_table("\n".join([",".join(COLUMNS), *lines]) + "\n", file=FILE)


def test_timed_rows_keep_spread_and_minimum() -> None:
    (timed,) = parse_lines(TIMED).rows
    assert (timed.count, timed.mean_ms, timed.std_ms, timed.min_ms) == (50, 2.0, 0.1, 1.8)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("linear,1,1,1,8,32,4,a53,0,0,,,x", "mean_ms must be finite and above zero"),
        ("linear,1,1,1,8,32,4,a53,0,-1,,,x", "mean_ms must be finite and above zero"),
        ("linear,1,1,1,8,32,4,a53,0,nan,,,x", "mean_ms must be finite and above zero"),
        ("linear,1,1,1,8,32,4,a53,0,inf,,,x", "mean_ms must be finite and above zero"),
        ("linear,0,1,1,8,32,4,a53,0,1,,,x", "m must be at least 1"),
        ("linear,1,1.5,1,8,32,4,a53,0,1,,,x", "invalid literal"),
        ("linear,1,1,1,8,32,4,a53,0,fast,,,x", "could not convert"),
        ("matmul,1,1,1,8,32,4,a53,0,1,,,x", "op must be one of"),
        ("linear,1,1,1,8,32,4,,0,1,,,x", "core_set and source must not be empty"),
        ("linear,1,1,1,8,32,4,a53,50,1,,,x", "std_ms and min_ms must be given"),
        ("linear,1,1,1,8,32,4,a53,0,1,0.1,0.9,x", "std_ms and min_ms must be given"),
        ("linear,1,1,1,8,32,4,a53,50,1,-0.1,0.9,x", "std_ms must be finite and at least zero"),
        ("linear,1,1,1,8,32,4,a53,50,1,0.1,1.1,x", "min_ms must not exceed mean_ms"),
        ("linear,1,1,1", "not enough values"),
        (TIMED, "is given twice"),
    ],
)
def test_bad_rows_are_named(line: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"^board\.csv: row 3: .*{reason}"):
        parse_lines(TIMED, line)


def test_holes_are_refused() -> None:
    rows = [r for r in table_of_power_law().rows if (r.m, r.k, r.n) != (8, 100, 1)]
    with pytest.raises(InputError, match=r"board\.csv: a row is missing: .*\(8, 100, 1\)"):
        parse_table(format_table(rows), file=FILE)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "columns"), ("op,m\n", "columns"), (",".join(COLUMNS) + "\n", "no rows")]
)
def test_no_table(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"^board\.csv: .*{reason}"):
        parse_table(text, file=FILE)
