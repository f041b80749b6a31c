"""How much rounding one group of matrices changes what the model predicts, without running the network again.

Measured by the divergence of the next token's distribution from the original's. To second order, a change D of a matrix
adds 1/2 E[(g^T D x)^2] to it, x its input and g the gradient at its output of a loss whose tokens the model draws.
With x and g independent, and g's components too, that is 1/2 sum_n E[g_n^2] d_n^T E[x x^T] d_n over the rows d_n of D:
Kronecker-factored curvature (Martens and Grosse 2015, "Optimizing neural networks with Kronecker-factored approximate
curvature"), its second factor reduced to the diagonal. Both moments come from calibration.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from compression.calibration.calibration import Calibration
from compression.calibration.inputs import EMBEDDING, KeptInputs
from compression.compress import grids, multiplied, original_quantiser
from compression.recipe.allocation import EMBEDDING_GROUP, Sensitivity
from compression.recipe.recipe import Recipe
from compression.techniques.grids import round_to_grid
from compression.whisper.compute import exact
from compression.whisper.load import LoadedModel


def sensitivity(model: LoadedModel, calibration: Calibration, grid: Recipe, *, bits: Collection[int]) -> Sensitivity:
    """By group and bits, the divergence in nats a token.

    `grid`: a recipe that removes nothing; its group size, zero points and rounding are those of every group.
    """
    inputs = KeptInputs(
        calibration.inputs,
        kept_layers={"encoder": range(len(grid.encoder)), "decoder": range(len(grid.decoder))},
        columns={},
    )
    profile: dict[str, dict[int, float]] = {}
    for width in sorted(bits):
        all_at = replace(grid.with_each_layer(attention_bits=width, ffn_bits=width), embedding_bits=width)
        for name, change, moment in _changes(model, all_at, inputs):
            divergence = _divergence(change, moment, torch.from_numpy(calibration.gradient_squares[name]).to(change))
            group = profile.setdefault(_group(name), {})
            group[width] = group.get(width, 0.0) + divergence
    return profile


def _changes(model: LoadedModel, recipe: Recipe, inputs: KeptInputs) -> Iterator[tuple[str, Tensor, Tensor]]:
    """By name, what rounding adds to each matrix (N, K), and the second moment (K, K) of what it multiplies."""
    for name, module, grid in grids(model.network, recipe):
        if ".blocks." in name or name == EMBEDDING:
            weight = module.get_parameter("weight").detach()
            rounded, _ = round_to_grid(weight, grid, original_quantiser(model, recipe, inputs, name, rows={}))
            change = exact(rounded - weight)
            yield name, change, inputs.of(multiplied(name)).moment.to(change)


def _divergence(change: Tensor, moment: Tensor, squares: Tensor) -> float:
    return 0.5 * float(((change @ moment) * change).sum(1) @ squares)


def _group(name: str) -> str:
    """The group of a matrix of an original network."""
    if name == EMBEDDING:
        return EMBEDDING_GROUP
    stack, _, layer, part, *_ = name.split(".")
    return f"{stack}.{layer}.{'ffn' if part == 'mlp' else 'attention'}"
