"""Rounding with regard to inputs: against brute force, the plain algorithm, and what each promises to minimise."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from compression.techniques import rounding
from compression.techniques.grids import Grid, QuantisedMatrix, Steps, as_quantised_matrix, in_groups, quantise
from compression.techniques.rounding import BLOCK, DAMPING, ROWS, quantise_calibrated

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


def with_the_inverse(weight: Tensor, grid: Grid, of: Tensor) -> QuantisedMatrix:
    """Frantar et al.'s own way, column by column: the errors go by the Cholesky factor of the inverse."""
    groups = in_groups(weight, grid)
    width, group = groups.shape[1] * groups.shape[2], groups.shape[2]
    damped = torch.zeros(width, width, dtype=torch.float64)
    damped[: len(of), : len(of)] = of
    damped.diagonal().add_(DAMPING * of.diagonal().mean())
    order = damped.diagonal().argsort(descending=True)
    factor = torch.linalg.cholesky(torch.linalg.inv(damped[order][:, order]), upper=True).float()
    steps = Steps.spanning(groups, grid)
    left, codes = groups.flatten(1)[:, order], torch.empty(len(weight), width)
    for index, column in enumerate(order):
        of_group = replace(
            steps,
            scales=steps.scales[:, column // group, 0],
            zero_points=steps.zero_points[:, column // group, 0],
        )
        codes[:, column] = of_group.codes(left[:, index])
        errors = (left[:, index] - of_group.values(codes[:, column])) / factor[index, index]
        left[:, index:] -= errors[:, None] * factor[index, index:]
    return as_quantised_matrix(codes.unflatten(1, (-1, group)), steps, grid, columns=weight.shape[1])


@pytest.mark.parametrize(
    "grid",
    [Grid(bits=b, group_size=g, symmetric=s) for b, g, s in product((3, 8), (0, 16, 24), (True, False))],
    ids=str,
)
@pytest.mark.parametrize("shape", [(3, 37), (ROWS + 5, 2 * BLOCK), (70, 3 * BLOCK + 17)], ids=str)
def test_no_inverse_and_whole_blocks_give_the_same_codes(grid: Grid, shape: tuple[int, int]) -> None:
    weight, of = matrix(*shape, seed=2), moment(shape[1], seed=3)
    found, expected = quantise_calibrated(weight, grid, of), with_the_inverse(weight, grid, of)
    assert torch.equal(found.scales, expected.scales)
    assert grid.symmetric or torch.equal(found.zero_points, expected.zero_points)
    assert (found.codes == expected.codes).float().mean() > 0.998
    assert loss(weight, found, of) == pytest.approx(loss(weight, expected, of), rel=1e-3)


def test_a_group_of_zeros_stays_zero() -> None:
    weight = matrix(4, 48)
    weight[:, 16:32] = 0.0
    for symmetric in (True, False):
        found = quantise_calibrated(weight, Grid(bits=4, group_size=16, symmetric=symmetric), moment(48)).dequantised()
        assert not found[:, 16:32].any()


def test_rows_do_not_change_each_other() -> None:
    weight, of, rows = matrix(600, 64), moment(64), torch.tensor([3, 511, 512, 599])
    whole = quantise_calibrated(weight, Grid(bits=4, group_size=16), of)
    part = quantise_calibrated(weight[rows], Grid(bits=4, group_size=16), of)
    assert (whole.of_rows(rows).codes == part.codes).float().mean() > 0.99  # ties: sums in another order
    assert torch.equal(whole.of_rows(rows).scales, part.scales)


def test_the_kernel_is_compiled_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither beside the source nor in a home folder: once a process then."""
    compiled = rounding.numba.njit

    def unwritable(*args: object, cache: bool = False, **options: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compiled(*args, **options)

    weight, of, grid = matrix(5, 32), moment(32), Grid(bits=4)
    before = quantise_calibrated(weight, grid, of)
    monkeypatch.setattr(rounding.numba, "njit", unwritable)
    rounding._kernel.cache_clear()
    try:
        assert torch.equal(quantise_calibrated(weight, grid, of).codes, before.codes)
    finally:
        rounding._kernel.cache_clear()
