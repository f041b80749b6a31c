"""Stored matrices, in the bits of the recipe and in the blocks of the kernels that multiply by them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from compression.recipe.kernels import Precision
from compression.techniques.grids import QuantisedMatrix

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Codes:
    """An integer matrix (N, K) in B blocks of a power of two, as MatMulNBits wants it.

    `codes`: (N, B, block) uint8, not packed; columns from K on decode to 0. `scales`: (N, G) float16, or int8 where
    `row_scales`, (N, 1) float16, are not None (`grids.QuantisedMatrix`). `zero_points`: (N, G) uint8 or None when
    symmetric. Each of the G groups is B / G blocks long.
    """

    codes: Array
    scales: Array
    zero_points: Array | None
    bits: int
    columns: int
    row_scales: Array | None = None

    @property
    def block(self) -> int:
        return int(self.codes.shape[2])

    @property
    def blocks(self) -> int:
        return int(self.codes.shape[1])


@dataclass(frozen=True, kw_only=True)
class Storage:
    """`precision`: of the matrix. `half_vectors`: biases, normalisations and positions are float16, else float32.

    `codes`: of the weights on integer grids, by module.
    """

    precision: Precision
    half_vectors: bool
    codes: Mapping[nn.Module, QuantisedMatrix]

    @property
    def vector_type(self) -> type[np.floating[Any]]:
        return np.float16 if self.half_vectors else np.float32


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A matrix (N, K) with its bias (N,): `codes` where it is on an integer grid, else `values`, float16 or float32."""

    name: str
    values: Array | None
    codes: Codes | None
    bias: Array | None


def codes_of(quantised: QuantisedMatrix, precision: Precision) -> Codes:
    """The same matrix in MatMulNBits' blocks; its group size must have a block (`kernels.block_of`)."""
    codes, block, rows = quantised.codes.flatten(1), precision.block(quantised.columns), len(quantised.codes)
    padding = -codes.shape[1] % block
    if padding:  # a short single group: what is added must decode to 0
        zero = (
            torch.full((rows, 1), 2 ** (quantised.bits - 1)) if quantised.zero_points is None else quantised.zero_points
        )
        codes = torch.cat([codes, zero.to(torch.uint8).expand(rows, padding)], dim=1)
    return Codes(
        codes=codes.unflatten(1, (-1, block)).numpy(),
        scales=quantised.scales.numpy(),
        row_scales=None if quantised.row_scales is None else quantised.row_scales.numpy(),
        zero_points=None if quantised.zero_points is None else quantised.zero_points.numpy(),
        bits=quantised.bits,
        columns=quantised.columns,
    )


def stacked(name: str, modules: Sequence[nn.Module], storage: Storage) -> Matrix:
    """The rows of several linear layers (or of one embedding) with the same input, as one matrix (N, K).

    Raises ValueError when they are not all stored alike.
    """
    biases = [_bias(module) for module in modules]
    bias = np.concatenate(biases).astype(storage.vector_type) if any(b.any() for b in biases) else None
    quantised = [storage.codes[module] for module in modules if module in storage.codes]
    kinds = {(q.bits, q.codes.shape[1:], *q.parts) for q in quantised}
    if quantised and (len(quantised) < len(modules) or len(kinds) > 1):
        raise ValueError(f"{name}: layers that are stored differently cannot be one matrix")
    if not quantised:
        weights = [module.get_parameter("weight").detach().flatten(1).numpy() for module in modules]
        values = np.concatenate(weights).astype(np.float16 if storage.precision.weight_bits == 16 else np.float32)
        return Matrix(name=name, values=values, codes=None, bias=bias)
    parts = [codes_of(q, storage.precision) for q in quantised]
    rows: dict[str, Any] = {
        part: np.concatenate([getattr(codes, part) for codes in parts]) for part in quantised[0].parts
    }
    return Matrix(name=name, values=None, codes=replace(parts[0], **rows), bias=bias)


def _bias(module: nn.Module) -> Array:
    bias = getattr(module, "bias", None)
    return np.zeros(len(module.get_parameter("weight")), np.float32) if bias is None else bias.detach().numpy()


def packed(codes: Array, bits: int) -> Array:
    """uint8 codes (..., n), 8 / bits of them to a byte along the last axis, the first in the lowest bits."""
    per_byte = 8 // bits
    padded = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % per_byte)])
    lanes = padded.reshape(*padded.shape[:-1], -1, per_byte).astype(np.uint8)
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    return np.bitwise_or.reduce(lanes << shifts, axis=-1)
