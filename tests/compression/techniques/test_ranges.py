"""Ranges of activations against brute force."""

import numpy as np
import pytest
import torch

from compression.calibration.inputs import InputRecorder, InputStatistics
from compression.techniques.ranges import PERCENTILE, SHARES, input_range


def statistics(values: torch.Tensor) -> InputStatistics:
    recorder = InputRecorder()
    for clip in values.split(16):
        recorder.add(clip)
    return recorder.statistics()


@pytest.fixture
def values() -> torch.Tensor:
    """A bell with one outlier on the right."""
    drawn = torch.randn(640, 24, generator=torch.Generator().manual_seed(0))
    drawn[17, 3] = 40.0
    return drawn


def test_minmax_holds_all(values: torch.Tensor) -> None:
    found = input_range(statistics(values), bits=8, estimator="minmax")
    assert found == pytest.approx((float(values.min()), 40.0))


def test_zero_is_always_inside(values: torch.Tensor) -> None:
    for estimator in ("minmax", "percentile", "mse"):
        low, high = input_range(statistics(values.abs() + 1), bits=8, estimator=estimator)
        assert low == 0 < high


def test_percentile_leaves_the_outermost_out(values: torch.Tensor) -> None:
    low, high = input_range(statistics(values), bits=8, estimator="percentile")
    flat = np.sort(values.numpy().ravel())
    outside = np.mean(flat > high)
    assert outside <= 1 - PERCENTILE / 100 + 1 / len(flat)
    assert flat[0] <= low < -3
    assert 3 < high < 40


@pytest.mark.parametrize("bits", [4, 8])
def test_mse_is_the_best_of_its_shares(values: torch.Tensor, bits: int) -> None:
    low, high = input_range(statistics(values), bits=bits, estimator="mse")
    grids = []
    for share in SHARES:
        step = (40.0 - float(values.min())) * share / (2**bits - 1)
        zero = round(-float(values.min()) * share / step)
        points = (np.arange(2**bits) - zero) * step
        nearest = np.abs(values.numpy().ravel()[:, None] - points).min(1)
        grids.append(np.mean(nearest**2))
    assert high == pytest.approx(40 * SHARES[int(np.argmin(grids))], rel=1e-5)
    assert low / high == pytest.approx(float(values.min()) / 40, rel=1e-5)
    assert high < 40
