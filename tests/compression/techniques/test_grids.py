from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compression.techniques.grids import Grid, quantise, round_to_grid
from evaluators.costs.tensor_bytes import tensor_bytes


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


GRIDS = [Grid(bits=b, group_size=g, symmetric=s) for b, g, s in product(range(2, 9), (0, 16, 32), (True, False))]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_values_lie_on_the_grid_of_their_group(grid: Grid) -> None:
    quantised = quantise(matrix(5, 48), grid)
    width = grid.group_size or 48
    for row, group in product(range(5), range(-(-48 // width))):
        scale = quantised.scales[row, group].item()
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
    scales = quantised.scales.float().repeat_interleave(width, 1)[:, :32]
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
    expected = tensor_bytes(6, 40, grid.bits, group_size=grid.group_size, symmetric=grid.symmetric)
    assert expected.float_values == quantised.scales.numel()
    zero_points = 0 if quantised.zero_points is None else -(-quantised.zero_points.shape[1] * grid.bits // 8)
    assert expected.packed_bytes == 6 * (-(-codes_per_row * grid.bits // 8) + zero_points)
