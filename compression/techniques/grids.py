"""Weights on integer grids: per channel or per group, symmetric or asymmetric, 2 to 8 bits.

The convention is that of ONNX Runtime's MatMulNBits: unsigned codes c in [0, 2^b - 1], scales s, and w = (c - z) * s.
Symmetric grids have z = 2^(b-1) everywhere and store no zero points. Scales are float16 or, where a row has several,
8-bit codes on a scale of the row ("double quantisation": Dettmers et al. 2023, "QLoRA", section 3).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

SCALE_CODES = 128
"""A scale of 8 bits is so many parts of its row's scale, at most all but one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """How a matrix (N outputs, K inputs) is stored; `group_size` 0 means one group per output channel.

    `scale_bits`: of each group's scale, where a row has several.
    """

    bits: int
    group_size: int = 0
    symmetric: bool = True
    scale_bits: int = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantisedMatrix:
    """A matrix (N, K) in groups of g along K, padded with zeros to G whole groups.

    `codes`: (N, G, g) uint8. `scales`: (N, G) float16, or int8 where `row_scales`, (N, 1) float16, are not None.
    `zero_points`: (N, G) uint8, or None when symmetric.
    """

    codes: Tensor
    scales: Tensor
    zero_points: Tensor | None
    bits: int
    columns: int
    row_scales: Tensor | None = None

    def dequantised(self) -> Tensor:
        """(N, K) float32, the values that the runtime computes with."""
        return self.padded()[:, : self.columns].contiguous()

    def padded(self) -> Tensor:
        """(N, G * g) float32: the same with the zeros that fill the last group."""
        zero = 2 ** (self.bits - 1) if self.zero_points is None else self.zero_points.float().unsqueeze(-1)
        values = self.codes.float().sub_(zero).mul_(_values_of_scales(self.scales, self.row_scales).unsqueeze(-1))
        return values.flatten(1)

    def of_rows(self, rows: Tensor) -> Self:
        """The matrix of some of its rows (kept,), in this order."""
        parts: dict[str, Any] = {name: part.index_select(0, rows.to(part.device)) for name, part in self.parts.items()}
        return replace(self, **parts)

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        parts: dict[str, Any] = {name: part.to(device) for name, part in self.parts.items()}
        return replace(self, **parts)

    @property
    def parts(self) -> dict[str, Tensor]:
        """Its tensors, by name."""
        parts = {name: getattr(self, name) for name in ("codes", "scales", "row_scales", "zero_points")}
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

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return replace(self, finer=self.finer.to(device), coarser=self.coarser.to(device))


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """The grid points of each group: (c - zero_points) x scales, for codes c from 0 to `highest_code`.

    `scales`: (N, G, 1), `row_scales`: (N, 1, 1), as a `QuantisedMatrix` has them. `zero_points`: (N, G, 1) float32,
    whole.
    """

    scales: Tensor
    row_scales: Tensor | None = None
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
            scales, row_scales = _stored_scales(-extreme / 2 ** (grid.bits - 1), grid)
            return cls(
                scales=scales,
                row_scales=row_scales,
                zero_points=torch.full_like(extreme, 2 ** (grid.bits - 1)),
                highest_code=highest_code,
            )
        low = groups.amin(-1, keepdim=True).clamp(max=0)
        high = groups.amax(-1, keepdim=True).clamp(min=0)
        scales, row_scales = _stored_scales((high - low) / highest_code, grid)
        zero_points = divide(-low, _values_of_scales(scales, row_scales)).round().clamp(0, highest_code)
        return cls(scales=scales, row_scales=row_scales, zero_points=zero_points, highest_code=highest_code)

    @classmethod
    def of(cls, parts: Mapping[str, Tensor], grid: Grid) -> Self:
        """Those of a `QuantisedMatrix`, from its `parts`; the codes are not needed."""
        scales, zero_points = parts["scales"], parts.get("zero_points")
        if zero_points is None:
            zero_points = torch.full(scales.shape, 2 ** (grid.bits - 1), device=scales.device)
        return cls(
            scales=scales.unsqueeze(-1),
            row_scales=parts["row_scales"].unsqueeze(-1) if "row_scales" in parts else None,
            zero_points=zero_points.float().unsqueeze(-1),
            highest_code=2**grid.bits - 1,
        )

    def scaled(self, factors: Tensor, grid: Grid) -> Self:
        """With scales times `factors` (N, G, 1), stored as the grid's are."""
        scales, row_scales = _stored_scales(self.sizes * factors, grid)
        return replace(self, scales=scales, row_scales=row_scales)

    @property
    def sizes(self) -> Tensor:
        """(N, G, 1) float32, the values of the scales."""
        return _values_of_scales(self.scales, self.row_scales)

    def codes(self, values: Tensor) -> Tensor:
        """The nearest codes (round half to even), float32, of values in groups."""
        return (divide(values, self.sizes) + self.zero_points).round().clamp(0, self.highest_code)

    def values(self, codes: Tensor) -> Tensor:
        return (codes - self.zero_points) * self.sizes

    def of_rows(self, rows: slice) -> Self:
        """Those of some rows."""
        row_scales = None if self.row_scales is None else self.row_scales[rows]
        return replace(self, scales=self.scales[rows], row_scales=row_scales, zero_points=self.zero_points[rows])


def _stored_scales(sizes: Tensor, grid: Grid) -> tuple[Tensor, Tensor | None]:
    """Scales (N, G, 1) as they are stored, and their rows' (N, 1, 1) where they have 8 bits.

    The largest scale of a row has code 127, none but a 0 has code 0, and a negative scale a negative code.
    """
    if grid.scale_bits == 16 or sizes.shape[1] == 1:
        return sizes.half(), None
    row_scales = (sizes.abs().amax(1, keepdim=True) * (SCALE_CODES / (SCALE_CODES - 1))).half()
    parts = divide(sizes.abs() * SCALE_CODES, row_scales.float()).round().clamp(1, SCALE_CODES - 1)
    return (parts * sizes.sign()).to(torch.int8), row_scales


def _values_of_scales(scales: Tensor, row_scales: Tensor | None) -> Tensor:
    """float32; exact, since the code has 7 bits and the row's scale 11."""
    return scales.float() if row_scales is None else scales.float() * (row_scales.float() / SCALE_CODES)


def in_groups(weight: Tensor, grid: Grid) -> Tensor:
    """A matrix (N, K) as (N, G, g), padded with zeros to whole groups."""
    group = grid.group_size or weight.shape[1]
    return functional.pad(weight, (0, -weight.shape[1] % group)).unflatten(1, (-1, group))


def as_quantised_matrix(codes: Tensor, steps: Steps, grid: Grid, *, columns: int) -> QuantisedMatrix:
    """The stored form of codes (N, G, g) of whole numbers."""
    return QuantisedMatrix(
        codes=codes.to(torch.uint8),
        scales=steps.scales.squeeze(-1),
        row_scales=None if steps.row_scales is None else steps.row_scales.squeeze(-1),
        zero_points=None if grid.symmetric else steps.zero_points.squeeze(-1).to(torch.uint8),
        bits=grid.bits,
        columns=columns,
    )


def quantise(weight: Tensor, grid: Grid, steps: Steps | None = None) -> QuantisedMatrix:
    """Round a matrix (N, K) to the nearest points of `steps`, or of the grids that span its groups."""
    groups = in_groups(weight, grid)
    steps = steps or Steps.spanning(groups, grid)
    return as_quantised_matrix(steps.codes(groups), steps, grid, columns=weight.shape[1])


def divide(values: Tensor, scales: Tensor) -> Tensor:
    """values / scales, and 0 where a scale is 0 (a group of zeros, or one too small for float16)."""
    return torch.where(scales == 0, 0.0, values / torch.where(scales == 0, 1.0, scales))


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
