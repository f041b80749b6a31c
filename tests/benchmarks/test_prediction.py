"""Scores by hand, the design against random choices, the least error against a search."""

import numpy as np
import pytest

from benchmarks.latency.prediction import informative_rows, least_mape, score


def test_score_by_hand() -> None:
    found = score(np.array([1.0, 2.2, 3.0, 2.0]), np.array([1.0, 2.0, 4.0, 5.0]))
    assert found.mape == pytest.approx((0.0 + 0.1 + 0.25 + 0.6) / 4)
    assert found.median_ape == pytest.approx(0.175)
    # 2.2 / 2 is 1.1 and a rounding error
    assert found.within_10_percent in (0.25, 0.5)
    # ranks 1, 3, 4, 2 and 1, 2, 3, 4: 1 - 6 (0 + 1 + 1 + 4) / (4 x 15)
    assert found.spearman == pytest.approx(0.4)


def test_no_correlation_of_equal_values() -> None:
    assert score(np.ones(3), np.array([1.0, 2.0, 3.0])).spearman is None
    assert score(np.array([1.0, 2.0, 3.0]), np.ones(3)).spearman is None


def test_rows_for_a_line_are_its_ends() -> None:
    rng = np.random.default_rng(0)
    work = np.column_stack([np.ones(40), np.linspace(1.0, 9.0, 40)])
    chosen = informative_rows([work[:10], work[:10]], 4, rng)
    assert set(chosen) <= set(range(10))
    whole = [informative_rows([work], 10, np.random.default_rng(seed)) for seed in range(5)]
    # a quarter is 10 rows, and 10 are wanted: all of them
    assert all(len(set(rows)) == 10 for rows in whole)
    pool = np.random.default_rng(7).choice(40, 10, replace=False)
    ends = informative_rows([work], 2, np.random.default_rng(7))
    assert set(ends) == {pool.min(), pool.max()}


def test_rows_tell_more_than_random_ones() -> None:
    rng = np.random.default_rng(5)
    works = [rng.uniform(1.0, 5.0, (400, 2)), rng.lognormal(0.0, 0.5, (400, 5))]

    def information(rows: np.ndarray) -> float:
        found = 0.0
        for work in works:
            design = work / work.mean(axis=0)
            design = design / design.sum(axis=1, keepdims=True)
            found += np.linalg.slogdet(design[rows].T @ design[rows])[1]
        return found

    random = [information(rng.choice(400, 20, replace=False)) for _ in range(50)]
    for seed in range(5):
        rows = informative_rows(works, 20, np.random.default_rng(seed))
        assert len(set(rows)) == 20
        assert list(rows) == sorted(rows)
        assert information(rows) > max(random)


def test_same_seed_same_rows_and_columns_without_use_do_no_harm() -> None:
    work = np.column_stack([np.arange(1.0, 101.0), np.zeros(100), np.full(100, 6.0)])
    rows, same, other = (informative_rows([work], 10, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(rows, same)
    assert set(rows) != set(other)


def test_least_mape_is_that_of_the_best_constants() -> None:
    rng = np.random.default_rng(2)
    cells = np.repeat([4, 7], [30, 31])
    times = rng.lognormal(cells, 0.5)
    expected = 0.0
    for cell in (4, 7):
        inside = times[cells == cell]
        constants = np.linspace(inside.min(), inside.max(), 20_001)
        expected += np.abs(constants[:, None] / inside - 1.0).sum(axis=1).min() / 61
    assert least_mape(cells, times) == pytest.approx(expected, rel=1e-3)


def test_least_mape_leaves_small_cells_out() -> None:
    cells = np.repeat([0, 1], [10, 9])
    times = np.where(cells == 0, 5.0, np.arange(1.0, 20.0))
    assert least_mape(cells, times) == 0.0
    assert least_mape(cells[10:], times[10:]) is None
