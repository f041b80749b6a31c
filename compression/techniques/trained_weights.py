"""Weights that training made: a file beside the recipe that names them by their digest."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from whisper.model import Whisper

from common.errors import CompressionError, InputError
from common.files import whole_file
from compression.recipe.recipe import Recipe
from compression.techniques.grids import (
    Grid,
    MixedGrid,
    MixedMatrix,
    QuantisedMatrix,
    Steps,
    quantise,
    round_to_grid,
)
from compression.whisper.torch_files import TORCH_LOAD_ERRORS, save_tensors

Weights = Mapping[str, Tensor]
"""Float32 parameters by their names in the pruned network, before rounding; those that were not trained are missing.

And the scales and zero points of matrices that were trained on their grids: see `grid_of`.
"""
WEIGHTS_FILE, RECIPE_FILE = "weights.pt", "recipe.json"


_OF_A_GRID = re.compile(r"(?P<parameter>.+\.weight)(\.finer|\.coarser)?\.(scales|row_scales|zero_points)")


def grid_of(matrix: QuantisedMatrix | MixedMatrix, parameter: str) -> dict[str, Tensor]:
    """All of a matrix but its codes, by names that begin with the parameter's."""
    if isinstance(matrix, MixedMatrix):
        return grid_of(matrix.finer, f"{parameter}.finer") | grid_of(matrix.coarser, f"{parameter}.coarser")
    return {f"{parameter}.{part}": values for part, values in matrix.parts.items() if part != "codes"}


def parameter_of(name: str) -> str:
    """The parameter to which an entry of `Weights` belongs."""
    found = _OF_A_GRID.fullmatch(name)
    return found["parameter"] if found else name


def has_grid(weights: Weights, parameter: str) -> bool:
    """Whether a parameter was trained on a grid that is kept with it."""
    return any(f"{parameter}{part}.scales" in weights for part in ("", ".coarser"))


def on_trained_grid(
    values: Tensor, grid: Grid | MixedGrid, weights: Weights, parameter: str
) -> tuple[Tensor, QuantisedMatrix | MixedMatrix | None]:
    """As `round_to_grid`, to the nearest points of the grid that a parameter was trained on.

    Where none is kept with it, that is the grid that spans its groups. Raises CompressionError when it does not fit.
    """
    if not has_grid(weights, parameter):
        return round_to_grid(values, grid)
    matrix: QuantisedMatrix | MixedMatrix
    if isinstance(grid, MixedGrid):
        finer, coarser = grid.parts(values)
        matrix = MixedMatrix(
            finer=_on_kept_grid(finer, grid.finer, weights, f"{parameter}.finer"),
            coarser=_on_kept_grid(coarser, grid.coarser, weights, f"{parameter}.coarser"),
            grid=grid,
        )
    else:
        matrix = _on_kept_grid(values.flatten(1), grid, weights, parameter)
    return matrix.dequantised().view_as(values), matrix


def _on_kept_grid(matrix: Tensor, grid: Grid, weights: Weights, name: str) -> QuantisedMatrix:
    wanted = grid_of(quantise(matrix, grid), name) if grid.bits <= 8 else {}
    kept = {part: values.to(matrix.device) for part, values in weights.items() if part.rpartition(".")[0] == name}
    if _kinds(kept) != _kinds(wanted):
        raise CompressionError(f"the scales or zero points that were trained with {name} do not fit")
    parts = {part.rpartition(".")[2]: values for part, values in kept.items()}
    return quantise(matrix, grid, Steps.of(parts, grid))


def _kinds(tensors: Weights) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (values.shape, values.dtype) for name, values in tensors.items()}


def weights_digest(weights: Weights) -> str:
    """SHA-256 over the names, shapes and values, whatever file they lie in."""
    digest = hashlib.sha256()
    for name, values in sorted(weights.items()):
        digest.update(f"{name} {list(values.shape)}\n".encode())
        digest.update(values.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_recovered(folder: Path, recipe: Recipe, weights: Weights) -> None:
    """Write a recovered recipe and its weights. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / WEIGHTS_FILE) as handle:
        save_tensors({name: values.detach().cpu().clone() for name, values in weights.items()}, handle)
    with whole_file(folder / RECIPE_FILE) as handle:
        handle.write(recipe.to_json().encode() + b"\n")


def load_recovered(recipe: Recipe, folder: Path | None) -> Weights | None:
    """The weights that the recipe's recovery names, from `folder`; None when it names none.

    Raises InputError when they are missing, damaged or others.
    """
    if recipe.recovery is None:
        return None
    file = (folder or Path()) / WEIGHTS_FILE
    if folder is None or not file.is_file():
        raise InputError(
            f"recipe {recipe.id} has trained weights, which are not in {file}: put them there, "
            "or make them again with whisperfit recover"
        )
    try:
        weights: Weights = torch.load(file, map_location="cpu", weights_only=True)
        found = weights_digest(weights)
    except (OSError, AttributeError, *TORCH_LOAD_ERRORS) as error:
        raise InputError(f"{file} is damaged: make it again with whisperfit recover") from error
    if found != recipe.recovery.weights_sha256:
        raise InputError(
            f"{file} holds other weights than recipe {recipe.id} names (SHA-256 {found[:12]}... against "
            f"{recipe.recovery.weights_sha256[:12]}...)"
        )
    return weights


def take_weights(network: Whisper, recipe: Recipe, weights: Weights | None) -> None:
    """Put trained weights in the place of a pruned network's own. Raises CompressionError when they do not fit."""
    if weights is None:
        raise CompressionError(f"recipe {recipe.id} needs the weights that its training made")
    parameters = dict(network.named_parameters())
    for name, values in weights.items():
        if name != parameter_of(name) and parameter_of(name) in weights:
            continue
        if name not in parameters or parameters[name].shape != values.shape:
            raise CompressionError(f"recipe {recipe.id}: its trained weights do not fit at {name}")
        module, _, leaf = name.rpartition(".")
        here = values.to(parameters[name].device, copy=True)
        network.get_submodule(module).register_parameter(leaf, nn.Parameter(here))
