"""Structural pruning: attention heads, FFN channels and layers really leave the tensors.

What removed units contributed on average goes into the bias of the projection behind them. In a
refitted recipe the remaining columns of that projection also take over what they can predict of the removed ones, in
closed form.
"""

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from threading import Lock

import torch
from cachetools import LRUCache, cached
from torch import Tensor
from torch.nn.utils import skip_init
from whisper.model import Linear, MultiHeadAttention, Whisper

from common.errors import CompressionError
from compression.calibration.calibration import Calibration
from compression.calibration.inputs import InputStatistics
from compression.calibration.removal_order import ridged
from compression.recipe.importance import kept_units
from compression.recipe.recipe import Recipe
from compression.whisper.compute import exact
from compression.whisper.sites import Site, output_projection, sites, unit_count

REMEMBERED_BYTES = 2**28
"""Of repaired projections."""


def _with_rows(linear: Linear, rows: Tensor) -> Linear:
    """A new layer with these output rows of another."""
    return linear_of(linear.weight.detach()[rows], None if linear.bias is None else linear.bias.detach()[rows])


def linear_of(weight: Tensor, bias: Tensor | None) -> Linear:
    """A layer with this weight (N, K) and bias (N,)."""
    layer = skip_init(Linear, weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = torch.nn.Parameter(weight)
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias)
    return layer


def repaired_projection(linear: Linear, columns: Tensor, inputs: InputStatistics, *, refit: bool) -> Linear:
    """The projection restricted to `columns` of its input (kept,), with what it loses folded back.

    Neighbours in a search want the same again: what was repaired lately is remembered.
    """
    weight, bias = _repaired(linear.weight.detach(), linear.bias.detach(), columns, inputs, refit)
    return linear_of(weight.clone(), bias.clone())


def _contents(weight: Tensor, bias: Tensor, columns: Tensor, inputs: InputStatistics, refit: bool) -> Hashable:
    digests = (hashlib.sha256(part.cpu().contiguous().numpy().data).digest() for part in (weight, bias, columns))
    return (weight.device, *digests, inputs.digest, refit)


def _bytes(repaired: tuple[Tensor, Tensor]) -> int:
    return sum(part.nbytes for part in repaired)


@cached(LRUCache(maxsize=REMEMBERED_BYTES, getsizeof=_bytes), key=_contents, lock=Lock())
def _repaired(
    weight: Tensor, bias: Tensor, columns: Tensor, inputs: InputStatistics, refit: bool
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the projection.

    Minimises E|W x - W' x_S - b'|^2 + ridge |W' - W_S|^2 over the calibration activations x with mean mu and
    covariance C: W' = W_S + W_R C_RS (C_SS + ridge I)^-1 and b' = b + W mu - W' mu_S (linear regression; S the
    kept and R the removed columns). Without `refit` W' = W_S, the limit of a large ridge.
    """
    device, weight, bias = weight.device, exact(weight), exact(bias)
    mean = torch.from_numpy(inputs.mean).to(weight)
    is_kept = torch.zeros(weight.shape[1], dtype=torch.bool)
    is_kept[columns] = True
    kept = weight[:, is_kept]
    if refit:
        hessian = ridged(torch.from_numpy(inputs.covariance).to(weight))
        within, across = hessian[is_kept][:, is_kept], hessian[~is_kept][:, is_kept]
        taken_over = (weight[:, ~is_kept] @ across).T
        kept = kept + torch.cholesky_solve(taken_over, torch.linalg.cholesky(within)).T
    bias = bias + weight @ mean - kept @ mean[is_kept]
    return kept.float().contiguous().to(device), bias.float().to(device)


def _prune_site(network: Whisper, site: Site, kept: int, calibration: Calibration, recipe: Recipe) -> Tensor:
    """Shrink one site of a network in place; what stays: columns of its projection, rows of the layers before it."""
    units = torch.from_numpy(kept_units(calibration.importances[site.key][recipe.importance], kept))
    block = getattr(network, site.stack).blocks[site.layer]
    projection = output_projection(network, site)
    width = projection.in_features // unit_count(network, site)
    columns = (units.unsqueeze(1) * width + torch.arange(width)).flatten()
    inputs = calibration.inputs[site.projection]
    repaired = repaired_projection(projection, columns, inputs, refit=recipe.is_refitted)
    for name in site.sources:
        network.set_submodule(name, _with_rows(network.get_submodule(name), columns))
    network.set_submodule(site.projection, repaired)
    if site.units != "ffn_channels":
        attention: MultiHeadAttention = block.attn if site.units == "heads" else block.cross_attn
        attention.n_head = kept
    return columns


@dataclass(frozen=True, kw_only=True, eq=False)
class Stayed:
    """What stayed of linear layers, by their names in the original network, where some left.

    `columns`: input columns of the projections behind the units, whose weights were repaired; `rows`: output rows of
    the layers before them, which are as they were.
    """

    columns: Mapping[str, Tensor]
    rows: Mapping[str, Tensor]


def prune(network: Whisper, recipe: Recipe, calibration: Calibration | None) -> Stayed:
    """Remove in place what the recipe does not keep.

    Raises CompressionError when heads or channels must leave and there is no calibration to choose them by.
    """
    columns: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    for site in sites(network):
        layer = getattr(recipe, site.stack)[site.layer]
        if layer is None or getattr(layer, site.units) == unit_count(network, site):
            continue
        if calibration is None:
            raise CompressionError("pruning needs calibration speech to choose heads and channels by")
        stay = _prune_site(network, site, getattr(layer, site.units), calibration, recipe)
        columns[site.projection] = stay
        rows |= dict.fromkeys(site.sources, stay)
    for stack in ("encoder", "decoder"):
        part = getattr(network, stack)
        layers = zip(part.blocks, getattr(recipe, stack), strict=True)
        part.blocks = torch.nn.ModuleList(block for block, layer in layers if layer is not None)
    return Stayed(columns=columns, rows=rows)
