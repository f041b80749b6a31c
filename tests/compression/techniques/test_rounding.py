"""Rounding with regard to inputs: against brute force, the plain algorithm, and what each promises to minimise."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from compression.techniques.grids import Grid, QuantisedMatrix, Steps, in_groups, quantise
from compression.techniques.rounding import DAMPING, quantise_calibrated

GRIDS = [Grid(bits=b, group_size=g, symmetric=s) for b, g, s in product((2, 4, 8), (0, 16), (True, False))]


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def moment(columns: int, seed: int = 1) -> Tensor:
    """Of inputs that depend on each other and of which a few are much larger."""
    inputs = matrix(400, columns, seed) @ matrix(columns, columns, seed + 1)
    inputs *= torch.logspace(-1, 1, columns)[torch.randperm(columns, generator=torch.Generator().manual_seed(seed))]
    return (inputs.T @ inputs / 400).double()


def loss(weight: Tensor, rounded: QuantisedMatrix, of: Tensor) -> float:
    difference = (rounded.dequantised() - weight).double()
    return float(torch.einsum("nk,kl,nl->", difference, of, difference))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_calibrated_is_the_plain_algorithm(grid: Grid) -> None:
    """Optimal brain quantisation in a fixed order, the inverse brought up to date by Gauss's elimination
    (Frantar et al. 2023, equations 2 and 3), one row after the other in float64."""
    weight, of = matrix(3, 40), moment(40)
    groups = in_groups(weight, grid)
    width, group = groups.shape[1] * groups.shape[2], groups.shape[2]
    damped = torch.zeros(width, width, dtype=torch.float64)
    damped[:40, :40] = of
    damped += DAMPING * of.diagonal().mean() * torch.eye(width)
    steps = Steps.spanning(groups, grid)
    expected = torch.empty(3, width)
    for row in range(3):
        left, inverse = groups[row].flatten().double(), torch.linalg.inv(damped)
        for column in damped.diagonal().argsort(descending=True):
            scale, zero = (part[row, column // group].double() for part in (steps.scales, steps.zero_points))
            code = (left[column] / scale + zero).round().clamp(0, 2**grid.bits - 1)
            expected[row, column] = (code - zero) * scale
            left -= (left[column] - expected[row, column]) / inverse[column, column] * inverse[:, column]
            inverse -= torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    found = quantise_calibrated(weight, grid, of).dequantised()
    assert (found == expected[:, :40]).float().mean() > 0.97  # a tie may fall to the other side in float32
    assert torch.allclose(found, expected[:, :40], atol=1.5 * float(steps.scales.abs().max()))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_calibrated_disturbs_the_output_least(grid: Grid) -> None:
    weight, of = matrix(16, 64), moment(64)
    calibrated, nearest = quantise_calibrated(weight, grid, of), quantise(weight, grid)
    assert torch.equal(calibrated.scales, nearest.scales)
    assert loss(weight, calibrated, of) < 0.6 * loss(weight, nearest, of)


def test_independent_inputs_leave_nothing_to_make_up_for() -> None:
    weight, grid = matrix(5, 64), Grid(bits=4, group_size=16, symmetric=False)
    for of in (torch.eye(64).double(), torch.diag(torch.logspace(-2, 2, 64)).double()):
        assert torch.equal(quantise_calibrated(weight, grid, of).codes, quantise(weight, grid).codes)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    of = moment(32)
    of[:8], of[:, :8] = 0.0, 0.0
    found = quantise_calibrated(matrix(4, 32), Grid(bits=4, group_size=16), of).dequantised()
    assert found.isfinite().all()


def test_what_was_rounded_is_remembered_by_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, of, grid = matrix(7, 48, seed=5), moment(48, seed=6), Grid(bits=4, group_size=16)
    first = quantise_calibrated(weight, grid, of)
    others = (
        (matrix(7, 48, seed=7), grid, of),
        (weight.view(14, 24), grid, of[:24, :24]),
        (weight, replace(grid, symmetric=False), of),
        (weight, grid, moment(48, seed=8)),
    )
    assert all(not torch.equal(first.codes, quantise_calibrated(*other).codes) for other in others)
    monkeypatch.setattr("compression.techniques.rounding._round", None)
    assert torch.equal(first.codes, quantise_calibrated(weight.clone(), grid, of.clone()).codes)
    with pytest.raises(TypeError):
        quantise_calibrated(weight + 1, grid, of)
