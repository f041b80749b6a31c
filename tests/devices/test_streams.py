"""What a shared cache forgets, on streams that are made up."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.operation import Operation
from devices.streams import CACHED_MB, StreamPredictor, stream_of, streamed_bytes
from devices.table import TableRow
from tests.devices.rows import timed

FLOATS = Operation(kind="stream")
INTEGERS = Operation(kind="stream", weight_bits=4, activation_bits=8, group_size=32)
CACHES = Operation(kind="cache_stream")


def stream(megabytes: int, ms: float, kind: Operation = FLOATS) -> TableRow:
    return timed(replace(kind, n=megabytes), ms)


def test_operations_read_as_the_streams_of_their_kernels() -> None:
    product = Operation(kind="gemv", k=384, n=1536)
    assert stream_of(product) == FLOATS
    assert stream_of(replace(product, weight_bits=4, activation_bits=8, group_size=128)) == INTEGERS
    assert stream_of(replace(product, weight_bits=8, activation_bits=8)) != INTEGERS
    assert stream_of(Operation(kind="cross_attention", heads=6, k=64, n=1500)) == CACHES
    assert stream_of(Operation(kind="gemm", m=100, k=384, n=384)) is None


def test_megabytes_are_those_of_the_tensors() -> None:
    assert streamed_bytes(Operation(kind="gemv", k=384, n=1536)) == 4 * 384 * 1536
    grouped = Operation(kind="gemv", k=384, n=1536, weight_bits=4, group_size=32)
    assert streamed_bytes(grouped) == 384 * 1536 / 2 + 4 * 384 / 32 * 1536  # codes, and a float32 scale for each group
    assert streamed_bytes(Operation(kind="cross_attention", heads=6, k=64, n=1500)) == 2 * 4 * 6 * 64 * 1500
    assert streamed_bytes(Operation(kind="gelu", n=1536)) == 0


def test_what_is_read_rarely_takes_longer() -> None:
    """25 GB/s when read every 4 ms, 10 when read every 20 ms: 0.04 and 0.1 ms per megabyte."""
    rows = [stream(n, ms) for n, ms in ((16, 0.64), (32, 1.28), (100, 4.0), (200, 20.0))]
    predictor = StreamPredictor.fit(rows[::-1])
    for soon in (0.1, 1.28, 2.0, 4.0):
        assert predictor.extra_ms({FLOATS: 50}, soon) == pytest.approx(0, abs=1e-9)
    assert predictor.extra_ms({FLOATS: 50}, 12.0) == pytest.approx(50 * (0.07 - 0.04))  # half way
    assert predictor.extra_ms({FLOATS: 50}, 100.0) == pytest.approx(50 * 0.06)  # as in the longest stream


def test_every_kind_waits_as_long_as_its_own_streams() -> None:
    rows = [
        *(stream(n, ms) for n, ms in ((32, 1.28), (200, 20.0))),
        *(stream(n, ms, INTEGERS) for n, ms in ((32, 2.0), (64, 20.0))),
    ]
    predictor = StreamPredictor.fit(rows)
    floats, integers = 20 / 200 - 1.28 / 32, 20 / 64 - 2 / 32
    reads = {FLOATS: 10.0, INTEGERS: 5.0, CACHES: 100.0}  # of caches nothing is known
    assert predictor.extra_ms(reads, 20.0) == pytest.approx(10 * floats + 5 * integers)
    middle = (1.28 + 20) / 2
    assert predictor.extra_ms({FLOATS: 10.0}, middle) == pytest.approx(10 * floats / 2)
    assert predictor.extra_ms({INTEGERS: 1.0}, 11.0) == pytest.approx(integers / 2)
    assert predictor.extra_ms({CACHES: 100.0}, 20.0) == 0


@given(st.integers(1, 400), st.floats(0.1, 50), st.floats(0.8, 1.2))
def test_a_step_reads_as_often_as_it_ends(megabytes: int, step_ms: float, factor: float) -> None:
    """t = factor x (step + extra(t))."""
    predictor = StreamPredictor.fit([stream(n, n * 0.04 + 1e-4 * n**2) for n in (16, 32, 64, 128, 256)])
    reads = {FLOATS: float(megabytes)}
    extra = predictor.step_extra_ms(reads, step_ms, factor)
    assert extra == pytest.approx(predictor.extra_ms(reads, factor * (step_ms + extra)), abs=2e-3 * (step_ms + extra))


def test_a_stream_is_its_own_step() -> None:
    """Streams that take 0.04 ms per megabyte, and longer from 64 MB on: the extra of such a step is the rest."""
    times = {32: 1.28, 64: 2.56, 128: 7.0, 256: 20.0}
    predictor = StreamPredictor.fit([stream(n, ms) for n, ms in times.items()])
    for megabytes, ms in times.items():
        extra = predictor.step_extra_ms({FLOATS: megabytes}, 0.04 * megabytes, 1.0)
        assert 0.04 * megabytes + extra == pytest.approx(ms, rel=0.02)


def test_where_no_cache_is_so_large_nothing_is_added() -> None:
    predictor = StreamPredictor.fit([stream(n, 0.3 * n) for n in (16, CACHED_MB, 64, 256)])
    assert all(predictor.step_extra_ms({FLOATS: n}, 5.0, 1.0) == pytest.approx(0, abs=1e-9) for n in (1, 40, 300))
    assert StreamPredictor.fit([]).step_extra_ms({FLOATS: 500}, 5.0, 1.0) == 0
    assert StreamPredictor.fit([]).extra_ms({FLOATS: 500}, 5.0) == 0


@given(st.dictionaries(st.integers(1, 500), st.floats(0.01, 100), min_size=1, max_size=8), st.integers(1, 2000))
def test_a_cache_never_makes_a_step_faster_than_its_rows_said(rows: dict[int, float], megabytes: int) -> None:
    predictor = StreamPredictor.fit([stream(n, ms) for n, ms in rows.items()])
    assert 0 <= predictor.step_extra_ms({FLOATS: megabytes}, 3.0, 1.0) < float("inf")
