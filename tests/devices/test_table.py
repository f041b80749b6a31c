"""Tables as text, and what is refused: every kind of nonsense by its row, inversions by brute force."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from devices.operation import Operation
from devices.table import COLUMNS, KernelClass, LatencyTable, TableRow, format_table, parse_table

FILE = Path("board.csv")


def row(**changes: object) -> TableRow:
    """A timed row of an 8-bit product in groups."""
    return replace(
        TableRow(
            op="gemm",
            heads=1,
            m=100,
            k=384,
            n=1536,
            weight_bits=8,
            activation_bits=32,
            group_size=32,
            threads=4,
            core_set="a53",
            repeats=32,
            median_ms=2.0,
            mean_ms=2.1,
            std_ms=0.1,
            min_ms=1.9,
            source="profile",
            tool="onnxruntime 1.32.0",
        ),
        **changes,
    )


def modelled(**changes: object) -> TableRow:
    return row(repeats=0, mean_ms=None, std_ms=None, min_ms=None, **changes)


def parse(*rows: TableRow) -> LatencyTable:
    return parse_table(format_table(rows), file=FILE)


def with_cell(column: str, text: str) -> str:
    """A table of two rows, the second one changed in one cell (whatever a `TableRow` thinks of it)."""
    lines = list(csv.reader(io.StringIO(format_table([row(), row(n=3072)]))))
    lines[2][COLUMNS.index(column)] = text
    return "".join(f"{','.join(line)}\n" for line in lines)


times = st.floats(1e-4, 1e4)


@st.composite
def rows(draw: st.DrawFn) -> TableRow:
    fastest = draw(times)
    middle, mean = (fastest * draw(st.floats(1, 2)) for _ in range(2))
    spread = draw(st.floats(0, 5))
    is_timed = draw(st.booleans())
    return TableRow(
        op=draw(st.sampled_from(("gemm", "gemv", "attention", "layer_norm", "stream"))),
        heads=draw(st.integers(1, 20)),
        m=draw(st.integers(1, 1500)),
        k=draw(st.integers(1, 5120)),
        n=draw(st.integers(1, 51866)),
        weight_bits=draw(st.sampled_from((2, 4, 8, 32))),
        activation_bits=draw(st.sampled_from((8, 16, 32))),
        group_size=draw(st.sampled_from((0, 32, 128))),
        threads=draw(st.integers(1, 8)),
        core_set=draw(st.sampled_from(("a53", "a78-2400mhz", 'odd, "quoted"'))),
        repeats=draw(st.integers(1, 100)) if is_timed else 0,
        median_ms=middle,
        mean_ms=mean if is_timed else None,
        std_ms=spread if is_timed else None,
        min_ms=fastest if is_timed else None,
        source="profile",
        tool="onnxruntime 1.32.0",
    )


@given(rows())
def test_a_row_survives_the_trip_through_text(one: TableRow) -> None:
    (back,) = parse(one).rows
    assert back.operation == one.operation
    for name in ("threads", "core_set", "repeats", "source", "tool"):
        assert getattr(back, name) == getattr(one, name)
    for name in ("median_ms", "mean_ms", "std_ms", "min_ms"):
        value = getattr(one, name)
        assert getattr(back, name) == (None if value is None else pytest.approx(value, rel=5e-6))
    assert format_table([back]) == format_table([one])


def test_columns_are_the_contract() -> None:
    """As docs/devices.md says."""
    assert ",".join(COLUMNS) == (
        "op,heads,m,k,n,weight_bits,activation_bits,group_size,threads,core_set,repeats,"
        "median_ms,mean_ms,std_ms,min_ms,source,tool"
    )


def test_rows_know_their_operation_and_spread() -> None:
    assert row().operation == Operation(kind="gemm", m=100, k=384, n=1536, weight_bits=8, group_size=32)
    assert row().relative_spread == pytest.approx(0.05)
    assert modelled().relative_spread == 0


def test_classes_are_kernels() -> None:
    """Shapes and group sizes tell about each other; precision, having groups, threads and cores do not."""
    together = [row(), row(n=3072), row(group_size=64), row(heads=2)]
    apart = [
        row(weight_bits=4),
        row(activation_bits=8),
        row(group_size=0),
        row(threads=2),
        row(core_set="a72"),
        row(op="gemv"),
    ]
    classes = LatencyTable(rows=(*together, *apart), file=FILE).classes
    assert sorted(len(group) for group in classes.values()) == [1] * len(apart) + [len(together)]
    key = KernelClass.of(row().operation, threads=4, core_set="a53")
    assert classes[key] == tuple(together)
    assert str(key) == "'gemm' with 8-bit weights in groups and 32-bit activations on 4 threads of 'a53'"


@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        ("median_ms", "", "median_ms is missing"),
        ("median_ms", "0", "median_ms must be finite and above zero, but got 0"),
        ("median_ms", "-1", "median_ms must be finite and above zero, but got -1"),
        ("median_ms", "nan", "median_ms must be finite and above zero, but got nan"),
        ("median_ms", "inf", "median_ms must be finite and above zero, but got inf"),
        ("median_ms", "fast", "could not convert string to float: 'fast'"),
        ("median_ms", "1.5", r"min_ms \(1.9\) must not exceed median_ms and mean_ms"),
        ("mean_ms", "1.5", r"min_ms \(1.9\) must not exceed median_ms and mean_ms"),
        ("mean_ms", "", r"mean_ms, std_ms and min_ms must be given for timed rows \(repeats > 0\), and only for them"),
        ("std_ms", "", "mean_ms, std_ms and min_ms must be given"),
        ("min_ms", "", "mean_ms, std_ms and min_ms must be given"),
        ("repeats", "0", "mean_ms, std_ms and min_ms must be given"),
        ("repeats", "", "invalid literal"),
        ("repeats", "-2", "group_size and repeats must be at least 0"),
        ("std_ms", "-0.1", "std_ms must be finite and at least zero, but got -0.1"),
        ("std_ms", "nan", "std_ms must be finite and at least zero, but got nan"),
        ("min_ms", "0", "min_ms must be finite and above zero, but got 0"),
        ("mean_ms", "inf", "mean_ms must be finite and above zero, but got inf"),
        ("op", "matmul", "op must be one of gemm, gemv, .*, but got 'matmul'"),
        ("heads", "0", "heads must be at least 1, but got 0"),
        ("m", "0", "m must be at least 1, but got 0"),
        ("k", "-3", "k must be at least 1, but got -3"),
        ("n", "1.5", "invalid literal"),
        ("n", "", "invalid literal"),
        ("weight_bits", "0", "weight_bits must be at least 1"),
        ("threads", "0", "threads must be at least 1"),
        ("group_size", "-1", "group_size and repeats must be at least 0"),
        ("core_set", "", ".*; core_set, source and tool must not be empty"),
        ("source", "", ".*; core_set, source and tool must not be empty"),
        ("tool", "", ".*; core_set, source and tool must not be empty"),
    ],
)
def test_bad_cells_are_named_with_file_and_row(column: str, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"^board\.csv: row 3: {reason}") as caught:
        parse_table(with_cell(column, text), file=FILE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "row 1: the columns must be op,heads"),
        ("op,m\n", "row 1: the columns must be op,heads"),
        (format_table([row()]).replace("median_ms", "mean"), "row 1: the columns must be op,heads"),
        (format_table([]), "the latency table has no rows"),
        (format_table([row()]) + "gemm,1,1\n", "row 3: 17 cells are needed, but got 3"),
        (format_table([row()]) + "\n", "row 3: 17 cells are needed, but got 0"),
        (format_table([row()]) + '"' + "x" * 200_000, "not a CSV file: field larger"),
    ],
)
def test_what_is_no_table(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"^board\.csv: {reason}"):
        parse_table(text, file=FILE)


@given(st.text(alphabet='gemv,01.5\n"\r', max_size=80))
def test_whatever_follows_the_columns_is_no_table_and_one_line_says_so(text: str) -> None:
    """The letters of `gemv` and a few more: never all seventeen cells."""
    with pytest.raises(InputError, match=r"^board\.csv: ") as caught:
        parse_table(format_table([]) + text, file=FILE)
    assert "\n" not in str(caught.value)


def test_a_shape_given_twice() -> None:
    with pytest.raises(
        InputError, match=r"^board\.csv: row 3: 'gemm' .* of shape \(1, 100, 384, 1536\) is given twice"
    ):
        parse(row(), row(median_ms=2.2))
    parse(row(), row(group_size=64))
    parse(row(), row(threads=1))


def test_a_larger_shape_that_is_absurdly_faster() -> None:
    reason = (
        r"^board\.csv: row 3: 'gemm' .* of shape \(1, 200, 384, 1536\) takes 0.5 ms, less than a third of the 2 ms "
        r"of the smaller shape \(1, 100, 384, 1536\) in row 2$"
    )
    with pytest.raises(InputError, match=reason):
        parse(modelled(), modelled(m=200, median_ms=0.5))
    parse(modelled(), modelled(m=200, median_ms=0.7))  # noise and alignment can do that
    parse(modelled(), modelled(m=200, group_size=128, median_ms=0.5))  # another number of scales
    parse(modelled(), modelled(m=200, n=768, median_ms=0.5))  # not larger in all dimensions


small = st.tuples(*[st.integers(1, 3)] * 4)


@given(st.dictionaries(small, st.floats(0.1, 10), min_size=1, max_size=12))
def test_inversions_by_brute_force(times_ms: dict[tuple[int, int, int, int], float]) -> None:
    table = [
        modelled(heads=heads, m=m, k=k, n=n, median_ms=float(f"{ms:.6g}")) for (heads, m, k, n), ms in times_ms.items()
    ]

    def volume_fits(small: TableRow, large: TableRow) -> bool:
        return (
            small.heads <= large.heads
            and small.m <= large.m
            and small.k <= large.k
            and small.n <= large.n
            and 3 * large.median_ms < small.median_ms
        )

    is_nonsense = any(volume_fits(row, other) for row in table for other in table)
    if is_nonsense:
        with pytest.raises(InputError, match="less than a third"):
            parse(*table)
    else:
        assert len(parse(*table).rows) == len(table)


@given(st.dictionaries(small, st.floats(1, 2.9), min_size=1, max_size=12))
def test_times_that_grow_are_believed_with_noise(noise: dict[tuple[int, int, int, int], float]) -> None:
    parse(
        *(
            modelled(heads=heads, m=m, k=k, n=n, median_ms=heads * m * k * n * factor)
            for (heads, m, k, n), factor in noise.items()
        )
    )
