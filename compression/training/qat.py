"""Quantisation-aware training: the forward pass sees what the artifact will store, the backward pass does not.

The parameters stay floating point. Wherever the network reads one, it gets the value that `compress` would store, from
the same functions; its gradient goes to the parameter unchanged. So what training saw is the artifact, bit for bit.
Layers that round their input (`compression.techniques.activations`) let gradients through by themselves.
"""

from torch import Tensor, nn
from torch.nn.utils import parametrize
from whisper.model import Whisper

from compression.compress import grids, vectors
from compression.recipe.recipe import Recipe
from compression.techniques.grids import Grid, MixedGrid, round_to_grid
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
