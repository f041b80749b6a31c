"""Quantisation-aware training: the forward pass sees what the artifact will store, the backward pass does not.

The parameters stay floating point. Wherever the network reads one, it gets the value that `compress` would store, from
the same functions; its gradient goes to the parameter unchanged. So what training saw is the artifact, bit for bit.
Layers that round their input (`compression.techniques.activations`) let gradients through by themselves.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from whisper.model import Whisper

from compression.compress import grids, vectors
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.grids import Grid, MixedGrid, QuantisedMatrix, in_groups, round_to_grid
from compression.techniques.straight_through import straight_through

_INFIX = "parametrizations."
_SUFFIX = ".original"


class _Stored(nn.Module):
    """A parameter as it is after being stored on a grid."""

    def __init__(self, grid: Grid | MixedGrid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, values: Tensor) -> Tensor:
        rounded, _ = round_to_grid(values.detach(), self.grid)
        return straight_through(values, rounded)


@torch.no_grad()
def begin_as_rounded(network: Whisper, recipe: Recipe, compressed: Compressed) -> None:
    """Put the weights with a gradient, in place, on the points that they are stored as in what was compressed.

    Calibrated rounding chooses other points than the nearest, which are far better; training begins there. In the
    middle of its cell a weight changes its code only where the gradient keeps its sign.
    """
    for name, module, grid in grids(network, recipe):
        weight = module.get_parameter("weight")
        if not weight.requires_grad:
            continue
        if isinstance(grid, MixedGrid):
            mixed = compressed.mixed_embedding
            if mixed:
                finer, coarser = grid.parts(weight)
                finer = on_its_points(finer, grid.finer, mixed.finer)
                weight.data = grid.joined(finer, on_its_points(coarser, grid.coarser, mixed.coarser))
        elif name in compressed.matrices:
            weight.data = on_its_points(weight.flatten(1), grid, compressed.matrices[name]).view_as(weight)


def on_its_points(weight: Tensor, grid: Grid, matrix: QuantisedMatrix) -> Tensor:
    """The points (N, K) of the codes of a matrix, which was made of the weight.

    A group's extremes, which make its grid, stay where they are, whatever their codes, and nothing lies beyond them.
    """
    groups = in_groups(weight, grid)
    moved = in_groups(matrix.dequantised(), grid).clamp(groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True))
    largest, ends = (
        groups.abs().argmax(-1, keepdim=True),
        (groups.argmin(-1, keepdim=True), groups.argmax(-1, keepdim=True)),
    )
    for extreme in (largest,) if grid.symmetric else ends:
        moved.scatter_(-1, extreme, groups.gather(-1, extreme))
    return moved.flatten(1)[:, : weight.shape[1]].contiguous()


def round_while_training(network: Whisper, recipe: Recipe) -> None:
    """Let parameters with a gradient be read as they will be stored, in place. The others must be rounded already."""
    for _, module, grid in list(grids(network, recipe)):
        _register(module, "weight", grid)
    if recipe.vector_bits < 32:
        for module, name in list(vectors(network)):
            _register(module, name, Grid(bits=recipe.vector_bits))


def _register(module: nn.Module, name: str, grid: Grid | MixedGrid) -> None:
    is_rounded = isinstance(grid, MixedGrid) or grid.bits < 32
    if module.get_parameter(name).requires_grad and is_rounded:
        parametrize.register_parametrization(module, name, _Stored(grid), unsafe=True)


def plain_name(name: str) -> str:
    """A parameter's name without what registering it to be rounded added."""
    return name.replace(_INFIX, "").removesuffix(_SUFFIX)
