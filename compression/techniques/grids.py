"""Weights on integer grids: per channel or per group, symmetric or asymmetric, 2 to 8 bits.

The convention is that of ONNX Runtime's MatMulNBits: unsigned codes c in [0, 2^b - 1], float16 scales s,
and w = (c - z) * s. Symmetric grids have z = 2^(b-1) everywhere and store no zero points.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """How a matrix (N outputs, K inputs) is stored; `group_size` 0 means one group per output channel."""

    bits: int
    group_size: int = 0
    symmetric: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantisedMatrix:
    """A matrix (N, K) in groups of g along K, padded with zeros to G whole groups.

    `codes`: (N, G, g) uint8. `scales`: (N, G) float16. `zero_points`: (N, G) uint8, or None when symmetric.
    """

    codes: Tensor
    scales: Tensor
    zero_points: Tensor | None
    bits: int
    columns: int

    def dequantised(self) -> Tensor:
        """(N, K) float32, the values that the runtime computes with."""
        zero = 2 ** (self.bits - 1) if self.zero_points is None else self.zero_points.float().unsqueeze(-1)
        values = self.codes.float().sub_(zero).mul_(self.scales.float().unsqueeze(-1))
        return values.flatten(1)[:, : self.columns].contiguous()

    def of_rows(self, rows: Tensor) -> Self:
        """The matrix of some of its rows (kept,), in this order."""
        zero_points = None if self.zero_points is None else self.zero_points.index_select(0, rows)
        codes, scales = self.codes.index_select(0, rows), self.scales.index_select(0, rows)
        return replace(self, codes=codes, scales=scales, zero_points=zero_points)

    @property
    def parts(self) -> dict[str, Tensor]:
        """Its tensors, by name."""
        parts = {"codes": self.codes, "scales": self.scales, "zero_points": self.zero_points}
        return {name: part for name, part in parts.items() if part is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class MixedGrid:
    """A matrix whose first and last rows are on a finer grid than the `rest` between them.

    `first`: so many rows at the start, and after them so many of the `rest`.
    """

    finer: Grid
    coarser: Grid
    first: int
    rest: int

    def parts(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """The rows on the finer grid, in their order, and the rest."""
        start, coarser, end = matrix.tensor_split([self.first, self.first + self.rest])
        return torch.cat([start, end]), coarser

    def joined(self, finer: Tensor, coarser: Tensor) -> Tensor:
        """The matrix of such parts."""
        start, end = finer.tensor_split([self.first])
        return torch.cat([start, coarser, end])


@dataclass(frozen=True, kw_only=True, slots=True)
class MixedMatrix:
    """The parts of a matrix on a `MixedGrid`."""

    finer: QuantisedMatrix
    coarser: QuantisedMatrix
    grid: MixedGrid

    def dequantised(self) -> Tensor:
        """(N, K) float32, as `QuantisedMatrix` says."""
        return self.grid.joined(self.finer.dequantised(), self.coarser.dequantised())


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """The grid points of each group: (c - zero_points) x scales, for codes c from 0 to `highest_code`.

    `scales`: (N, G, 1) float16, `zero_points`: (N, G, 1) float32, whole.
    """

    scales: Tensor
    zero_points: Tensor
    highest_code: int

    @classmethod
    def spanning(cls, groups: Tensor, grid: Grid) -> Self:
        """Grids over the range of the groups (N, G, g).

        Symmetric scales follow llama.cpp's q4_0: the entry of largest magnitude m, sign included, maps to code 0,
        s = -m / 2^(b-1), so that no code is wasted. Asymmetric grids span [min(w, 0), max(w, 0)].
        """
        highest_code = 2**grid.bits - 1
        if grid.symmetric:
            extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
            scales = (-extreme / 2 ** (grid.bits - 1)).half()
            return cls(
                scales=scales,
                zero_points=torch.full_like(scales, 2 ** (grid.bits - 1), dtype=torch.float32),
                highest_code=highest_code,
            )
        low = groups.amin(-1, keepdim=True).clamp(max=0)
        high = groups.amax(-1, keepdim=True).clamp(min=0)
        scales = ((high - low) / highest_code).half()
        zero_points = _divide(-low, scales).round().clamp(0, highest_code)
        return cls(scales=scales, zero_points=zero_points, highest_code=highest_code)

    def codes(self, values: Tensor) -> Tensor:
        """The nearest codes (round half to even), float32, of values in groups."""
        return (_divide(values, self.scales) + self.zero_points).round().clamp(0, self.highest_code)

    def values(self, codes: Tensor) -> Tensor:
        return (codes - self.zero_points) * self.scales.float()

    def of_rows(self, rows: slice) -> Self:
        """Those of some rows."""
        return replace(self, scales=self.scales[rows], zero_points=self.zero_points[rows])


def in_groups(weight: Tensor, grid: Grid) -> Tensor:
    """A matrix (N, K) as (N, G, g), padded with zeros to whole groups."""
    group = grid.group_size or weight.shape[1]
    return functional.pad(weight, (0, -weight.shape[1] % group)).unflatten(1, (-1, group))


def as_quantised_matrix(codes: Tensor, steps: Steps, grid: Grid, *, columns: int) -> QuantisedMatrix:
    """The stored form of codes (N, G, g) of whole numbers."""
    return QuantisedMatrix(
        codes=codes.to(torch.uint8),
        scales=steps.scales.squeeze(-1),
        zero_points=None if grid.symmetric else steps.zero_points.squeeze(-1).to(torch.uint8),
        bits=grid.bits,
        columns=columns,
    )


def quantise(weight: Tensor, grid: Grid) -> QuantisedMatrix:
    """Round a matrix (N, K) to the nearest points of the grids that span its groups."""
    groups = in_groups(weight, grid)
    steps = Steps.spanning(groups, grid)
    return as_quantised_matrix(steps.codes(groups), steps, grid, columns=weight.shape[1])


def _divide(values: Tensor, scales: Tensor) -> Tensor:
    """values / scales, and 0 where a scale is 0 (a group of zeros, or one too small for float16)."""
    divisor = scales.float()
    return torch.where(divisor == 0, 0.0, values / torch.where(divisor == 0, 1.0, divisor))


Quantiser = Callable[[Tensor, Grid], QuantisedMatrix]
"""Rounds a matrix (N, K) to an integer grid."""


def round_to_grid(
    weight: Tensor, grid: Grid | MixedGrid, quantiser: Quantiser = quantise
) -> tuple[Tensor, QuantisedMatrix | MixedMatrix | None]:
    """The float32 values that a tensor has after being stored on a grid, and its codes where the grid is of integers.

    The first dimension is the output, the rest the input. 16 bits are float16 values, 32 bits change nothing, and
    neither needs the `quantiser`.
    """
    if isinstance(grid, MixedGrid):
        mixed = _mixed(weight, grid, quantiser)
        return mixed.dequantised(), mixed
    if grid.bits == 32:
        return weight.clone(), None
    if grid.bits == 16:
        return weight.half().float(), None
    quantised = quantiser(weight.flatten(1), grid)
    return quantised.dequantised().view_as(weight), quantised


def _mixed(weight: Tensor, grid: MixedGrid, quantiser: Quantiser) -> MixedMatrix:
    """Rows are rounded without regard to each other: the whole matrix is rounded on both grids."""
    finer, coarser = grid.parts(torch.arange(len(weight)))
    return MixedMatrix(
        finer=quantiser(weight, grid.finer).of_rows(finer),
        coarser=quantiser(weight, grid.coarser).of_rows(coarser),
        grid=grid,
    )
