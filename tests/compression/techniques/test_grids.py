from dataclasses import asdict, replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compression.techniques.grids import Grid, QuantisedMatrix, quantise, round_to_grid
from evaluators.costs.tensor_bytes import tensor_bytes


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


GRIDS = [Grid(bits=b, group_size=g, symmetric=s) for b, g, s in product(range(2, 9), (0, 16, 32), (True, False))]
GRIDS += [replace(grid, scale_bits=8) for grid in GRIDS if grid.bits in {4, 8}]


def sizes(quantised: QuantisedMatrix) -> torch.Tensor:
    """(N, G), what the scales stand for."""
    return quantised.scales.float() * (1 if quantised.row_scales is None else quantised.row_scales.float() / 128)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_values_lie_on_the_grid_of_their_group(grid: Grid) -> None:
    quantised = quantise(matrix(5, 48), grid)
    width = grid.group_size or 48
    for row, group in product(range(5), range(-(-48 // width))):
        scale = sizes(quantised)[row, group].item()
        zero = 2 ** (grid.bits - 1) if grid.symmetric else quantised.zero_points[row, group].item()
        allowed = torch.tensor([(code - zero) * scale for code in range(2**grid.bits)])
        values = quantised.dequantised()[row, group * width : (group + 1) * width]
        assert torch.isin(values, allowed).all()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_rounding_is_to_the_nearest_point(grid: Grid) -> None:
    """Against a search over every code: no grid point is nearer than the chosen one."""
    weight = matrix(4, 32, seed=1)
    quantised = quantise(weight, grid)
    width = grid.group_size or 32
    scales = sizes(quantised).repeat_interleave(width, 1)[:, :32]
    zeros: torch.Tensor | float = 2.0 ** (grid.bits - 1)
    if quantised.zero_points is not None:
        zeros = quantised.zero_points.float().repeat_interleave(width, 1)[:, :32]
    every = torch.stack([(code - zeros) * scales for code in range(2**grid.bits)])
    nearest = (every - weight).abs().min(0).values
    assert torch.allclose((quantised.dequantised() - weight).abs(), nearest, atol=1e-6)


@given(st.integers(2, 8), st.integers(0, 3), st.booleans())
def test_zeros_stay_zeros(bits: int, seed: int, symmetric: bool) -> None:
    weight = matrix(3, 32, seed)
    weight[0], weight[:, 5] = 0.0, 0.0
    values, _ = round_to_grid(weight, Grid(bits=bits, group_size=16, symmetric=symmetric))
    assert (values[weight == 0] == 0).all()
    assert values.isfinite().all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_of_8_bits_are_parts_of_their_rows(symmetric: bool) -> None:
    weight = matrix(5, 64) * torch.tensor([1.0, 0.01, 3.0, 1e-4]).repeat_interleave(16)
    weight[4] = 0
    grid = Grid(bits=4, group_size=16, symmetric=symmetric)
    wanted, found = sizes(quantise(weight, grid)), quantise(weight, replace(grid, scale_bits=8))
    assert (found.scales.dtype, found.scales.shape, found.row_scales.shape) == (torch.int8, (5, 4), (5, 1))
    assert found.scales.abs().amax(1).tolist() == [127, 127, 127, 127, 0]
    assert (found.scales[:4] != 0).all()  # the smallest group is still there
    error = (sizes(found) - wanted).abs() / wanted.abs().amax(1, keepdim=True).clamp(min=1e-9)
    assert error.max() < 1 / 127
    assert error[:, 2].max() < 2**-10  # the largest scale of a row is exact up to float16
    assert torch.equal(sizes(found).sign(), wanted.sign())


def test_a_single_scale_of_a_row_is_float16() -> None:
    weight = matrix(3, 16)
    for group_size in (0, 16, 32):
        found = quantise(weight, Grid(bits=4, group_size=group_size, scale_bits=8))
        assert found.row_scales is None
        assert torch.equal(found.dequantised(), quantise(weight, Grid(bits=4, group_size=group_size)).dequantised())


def test_symmetric_scale_spends_no_code() -> None:
    """The largest magnitude maps to code 0, whose value is exact up to float16."""
    values, _ = round_to_grid(torch.tensor([[1.0, -2.0, 0.5, 0.25], [2.0, -1.0, 0.5, 0.25]]), Grid(bits=4))
    assert values.tolist() == [[1.0, -2.0, 0.5, 0.25], [2.0, -1.0, 0.5, 0.25]]


def test_float_storage() -> None:
    weight = matrix(3, 8)
    assert torch.equal(round_to_grid(weight, Grid(bits=32))[0], weight)
    assert torch.equal(round_to_grid(weight, Grid(bits=16))[0], weight.half().float())


def test_convolutions_are_quantised_per_output_channel() -> None:
    weight = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(2))
    values, _ = round_to_grid(weight, Grid(bits=3))
    assert values.shape == weight.shape
    assert all(len(channel.unique()) <= 8 for channel in values)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_tensors_hold_what_the_inventory_prices(grid: Grid) -> None:
    quantised = quantise(matrix(6, 40), grid)
    codes_per_row = quantised.codes[0].numel()
    expected = tensor_bytes(6, 40, **asdict(grid))
    assert expected.float_values == quantised.scales.numel()
    zero_points = 0 if quantised.zero_points is None else -(-quantised.zero_points.shape[1] * grid.bits // 8)
    assert expected.packed_bytes == 6 * (-(-codes_per_row * grid.bits // 8) + zero_points)
