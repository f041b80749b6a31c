"""Quantisation-aware training: the forward pass sees what the artifact will store, the backward pass does not.

The parameters stay floating point. Wherever the network reads one, it gets the value that `compress` would store, from
the same functions; its gradient goes to the parameter unchanged. So what training saw is the artifact, bit for bit.
Layers that round their input (`compression.techniques.activations`) let gradients through by themselves.

Integer matrices keep the grids that they have when training begins: weights move on them (`round_while_training`), or
their scales do (`scale_while_training`).
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from whisper.model import Whisper

from compression.calibration.inputs import EMBEDDING
from compression.compress import grids, vectors
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.grids import (
    Grid,
    MixedGrid,
    MixedMatrix,
    QuantisedMatrix,
    Steps,
    as_quantised_matrix,
    in_groups,
    quantise,
    round_to_grid,
)
from compression.techniques.straight_through import straight_through
from compression.techniques.trained_weights import grid_of
from compression.training.checkpoint import trained_parameters

_INFIX = "parametrizations."
_SUFFIX = ".original"
FACTOR_SPEED = 10.0
"""A scale's factor changes by so many learning rates where a weight changes by one: what is good for weights is then
good for scales (docs/training.md)."""


class _Stored(nn.Module):
    """A parameter as it is after being stored in few bits of floating point."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, values: Tensor) -> Tensor:
        rounded, _ = round_to_grid(values.detach(), self.grid)
        return straight_through(values, rounded)


class _OnGrid(nn.Module):
    """A matrix (N, K, ...) that is read at the nearest points of the grid of a rounded one."""

    def __init__(self, matrix: QuantisedMatrix, grid: Grid) -> None:
        super().__init__()
        self.grid, self._parts = grid, [name for name in matrix.parts if name != "codes"]
        for name in self._parts:
            self.register_buffer(name, matrix.parts[name], persistent=False)

    @property
    def steps(self) -> Steps:
        return Steps.of({name: self.get_buffer(name) for name in self._parts}, self.grid)

    def stored(self, values: Tensor) -> QuantisedMatrix:
        return quantise(values.detach().flatten(1), self.grid, self.steps)

    def kept(self, values: Tensor) -> Tensor:
        """What of the parameter is kept, and rounds to what is stored."""
        return values.detach().clone()

    def forward(self, values: Tensor) -> Tensor:
        return straight_through(values, self.stored(values).dequantised().view_as(values))


class _Scaled(_OnGrid):
    """A matrix on the points of its grid whose scales are trained: times 1 + a row's + a group's factor.

    A row's factor moves scales of 8 bits by less than their step, since it moves the row's scale.
    """

    def __init__(self, matrix: QuantisedMatrix, grid: Grid) -> None:
        super().__init__(matrix, grid)
        outputs, groups = matrix.scales.shape
        self.rows = nn.Parameter(torch.zeros(outputs, 1, 1))
        self.groups = nn.Parameter(torch.zeros(outputs, groups, 1))

    @property
    def _factors(self) -> Tensor:
        return 1 + FACTOR_SPEED * (self.rows + self.groups)

    def stored(self, values: Tensor) -> QuantisedMatrix:
        matrix = values.detach().flatten(1)
        codes = self.steps.codes(in_groups(matrix, self.grid))
        steps = self.steps.scaled(self._factors.detach(), self.grid)
        return as_quantised_matrix(codes, steps, self.grid, columns=matrix.shape[1])

    def kept(self, values: Tensor) -> Tensor:
        return self.stored(values).dequantised().view_as(values)

    def forward(self, values: Tensor) -> Tensor:
        matrix = values.flatten(1)
        scaled = (in_groups(matrix, self.grid) * self._factors).flatten(1)[:, : matrix.shape[1]]
        return straight_through(scaled.view_as(values), self.kept(values))


class _Mixed(nn.Module):
    """A matrix with rows on two grids."""

    def __init__(self, grid: MixedGrid, finer: _OnGrid, coarser: _OnGrid) -> None:
        super().__init__()
        self.grid, self.finer, self.coarser = grid, finer, coarser

    def stored(self, values: Tensor) -> MixedMatrix:
        finer, coarser = self.grid.parts(values)
        return MixedMatrix(finer=self.finer.stored(finer), coarser=self.coarser.stored(coarser), grid=self.grid)

    def kept(self, values: Tensor) -> Tensor:
        finer, coarser = self.grid.parts(values)
        return self.grid.joined(self.finer.kept(finer), self.coarser.kept(coarser))

    def forward(self, values: Tensor) -> Tensor:
        finer, coarser = self.grid.parts(values)
        return self.grid.joined(self.finer(finer), self.coarser(coarser))


def round_while_training(network: Whisper, recipe: Recipe, compressed: Compressed) -> None:
    """Let parameters with a gradient be read as they will be stored, in place. The others must be rounded already.

    `compressed`: the recipe's. Where its codes are not the nearest (calibrated rounding chooses better ones), a matrix
    begins on their points: in the middle of its cell a weight changes its code only where the gradient keeps its sign.
    """
    for name, module, grid in list(grids(network, recipe)):
        weight, matrix = module.get_parameter("weight"), _matrix(compressed, name)
        if not weight.requires_grad:
            continue
        if matrix is not None:
            stage, points = _stage(_OnGrid, matrix, grid), matrix.dequantised().view_as(weight)
            if not torch.equal(stage(weight.detach()), points):
                weight.data = points
            parametrize.register_parametrization(module, "weight", stage, unsafe=True)
        elif isinstance(grid, Grid):
            _store(module, "weight", grid)
    if recipe.vector_bits < 32:
        for module, name in list(vectors(network)):
            if module.get_parameter(name).requires_grad:
                _store(module, name, Grid(bits=recipe.vector_bits))


def scale_while_training(network: Whisper, recipe: Recipe, compressed: Compressed, stacks: Collection[str]) -> None:
    """Let the scales of these stacks' integer matrices be trained, in place; nothing else is, and codes stay.

    This is the second phase of EfficientQAT (Chen et al. 2024, arXiv:2407.11062). The network is that of `compressed`,
    the recipe's.
    """
    network.requires_grad_(False)
    for name, module, grid in list(grids(network, recipe)):
        matrix = _matrix(compressed, name)
        if matrix is not None and name.partition(".")[0] in stacks:
            parametrize.register_parametrization(module, "weight", _stage(_Scaled, matrix, grid), unsafe=True)


def trained_weights(network: Whisper) -> dict[str, Tensor]:
    """What was trained, before rounding, and its grids, as `compression.techniques.trained_weights` keeps them."""
    weights = {
        plain_name(name): parameter.detach().cpu().clone()
        for name, parameter in trained_parameters(network).items()
        if _INFIX not in name or name.endswith(_SUFFIX)
    }
    for name, module in network.named_modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], _OnGrid | _Mixed):
            stage, values, parameter = module[0], module.get_parameter("original"), plain_name(name + _SUFFIX)
            weights[parameter] = stage.kept(values).cpu()
            weights |= {part: found.cpu() for part, found in grid_of(stage.stored(values), parameter).items()}
    return weights


def _matrix(compressed: Compressed, name: str) -> QuantisedMatrix | MixedMatrix | None:
    """The codes of a module's matrix; None where it is not on integers."""
    found = compressed.matrices.get(name)
    return compressed.mixed_embedding if found is None and name == EMBEDDING else found


def _stage(kind: type[_OnGrid], matrix: QuantisedMatrix | MixedMatrix, grid: Grid | MixedGrid) -> _OnGrid | _Mixed:
    if isinstance(matrix, MixedMatrix) and isinstance(grid, MixedGrid):
        return _Mixed(grid, kind(matrix.finer, grid.finer), kind(matrix.coarser, grid.coarser))
    if isinstance(matrix, MixedMatrix) or isinstance(grid, MixedGrid):
        raise TypeError("a matrix on two grids needs a grid of two")
    return kind(matrix, grid)


def _store(module: nn.Module, name: str, grid: Grid) -> None:
    if grid.bits < 32:
        parametrize.register_parametrization(module, name, _Stored(grid), unsafe=True)


def plain_name(name: str) -> str:
    """A parameter's name without what registering it to be rounded added."""
    return name.replace(_INFIX, "").removesuffix(_SUFFIX)
