"""The order in which units leave, against least squares for every subset that is compared."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compression.calibration import removal_order as surgeon
from compression.calibration.removal_order import departure_scores, departures, ridged
from compression.recipe.importance import kept_units


def problem(seed: int, *, units: int, width: int, outputs: int = 3) -> tuple[Tensor, Tensor]:
    """A weight matrix (outputs, K), and a covariance of correlated columns (K, K)."""
    generator = torch.Generator().manual_seed(seed)
    columns = units * width
    mixed = torch.randn(3 * columns, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    covariance = torch.cov(mixed.T).double().reshape(columns, columns)
    return torch.randn(outputs, columns, generator=generator).double(), covariance


def least_error(weight: Tensor, covariance: Tensor, kept: set[int], width: int) -> float:
    """min over weights of the kept units' columns of E|weight x - W' x|^2 + ridge |weight - W'|^2, by numpy."""
    root = np.linalg.cholesky(ridged(covariance).numpy()).T  # |root (w - w')|^2 is a row's error
    target = root @ weight.numpy().T
    columns = [unit * width + index for unit in sorted(kept) for index in range(width)]
    if not columns:
        return float((target**2).sum())
    solution = np.linalg.lstsq(root[:, columns], target, rcond=None)[0]
    return float(((root[:, columns] @ solution - target) ** 2).sum())


@given(seed=st.integers(0, 2**32), units=st.integers(1, 6), width=st.integers(1, 3))
def test_each_unit_that_leaves_is_the_best_one_and_its_rise_is_exact(seed: int, units: int, width: int) -> None:
    weight, covariance = problem(seed, units=units, width=width)
    order, rises = departures(weight, covariance, units=units)
    assert sorted(order.tolist()) == list(range(units))
    kept, whole = set(range(units)), least_error(weight, covariance, set(), width)
    for unit, rise in zip(order.tolist(), rises.tolist(), strict=True):
        before = least_error(weight, covariance, kept, width)
        possible = {
            kept_unit: least_error(weight, covariance, kept - {kept_unit}, width) - before for kept_unit in kept
        }
        assert rise == pytest.approx(possible[unit], rel=1e-4, abs=1e-6 * whole)
        assert possible[unit] <= min(possible.values()) + 1e-6 * whole
        kept.remove(unit)


def test_many_units_leave_in_steps_with_exact_rises_and_no_worse() -> None:
    """200 units: those that leave in a step are chosen among candidates; against a choice among all."""
    units = 200
    weight, covariance = problem(0, units=units, width=1, outputs=20)
    order, rises = departures(weight, covariance, units=units)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surgeon, "CANDIDATES", units)
        patch.setattr(surgeon, "STEP", units)
        _, best = departures(weight, covariance, units=units)
    for left in (10, 50, 100, 190):
        kept = set(range(units)) - set(order[:left].tolist())
        assert float(rises[:left].sum()) == pytest.approx(least_error(weight, covariance, kept, 1), rel=1e-6)
        assert float(rises[:left].sum()) <= 1.02 * float(best[:left].sum())


@given(seed=st.integers(0, 2**32), units=st.integers(1, 40))
def test_scores_keep_the_order(seed: int, units: int) -> None:
    weight, covariance = problem(seed, units=units, width=1)
    order, rises = departures(weight, covariance, units=units)
    scores = departure_scores(weight, covariance, units=units)
    for removed in range(units):
        assert kept_units(scores.numpy(), units - removed).tolist() == sorted(order[removed:].tolist())
    highest = rises.float().cummax(0).values
    assert torch.allclose(scores[order], highest, rtol=1e-5)


def test_of_two_units_that_replace_each_other_one_stays() -> None:
    """Units 0 and 1 say the same: one is free to leave, then the other is the dearest."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(500, 4, generator=generator)
    x[:, 1] = x[:, 0]
    weight = torch.tensor([[3.0, 3.0, 1.0, 0.0], [0.0, 0.0, 0.0, 2.0]]).double()
    order, rises = departures(weight, torch.cov(x.T), units=4)
    assert {order[0].item(), order[-1].item()} == {0, 1}
    assert float(rises[0]) < 0.01 * float(rises[-1])
