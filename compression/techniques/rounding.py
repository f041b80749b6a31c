"""Rounding weights with regard to the inputs that they multiply, not one by one.

A linear layer's output changes by (W - Q) x when its weights W become Q. Over calibration inputs x the mean square of
that is the sum over the rows d of W - Q of d^T M d, with the second moment M = E[x x^T]. Rounding to the nearest point
minimises |d|^2 instead, as if all inputs were equally large and independent.
"""

import hashlib
from collections.abc import Hashable

import torch
from cachetools import LRUCache, cached
from torch import Tensor

from compression.techniques.grids import Grid, QuantisedMatrix, Steps, as_quantised_matrix, in_groups

DAMPING = 0.01
"""Added to the diagonal of M, as a share of its mean: Frantar et al.'s own value."""
ROWS = 1024
"""Rows that are rounded together: so many stay in the processor's caches."""
BLOCK = 128
"""Columns whose errors are passed on together, as in Frantar et al., section 3.3; it changes nothing but the time."""
REMEMBERED_BYTES = 2**29
"""Of roundings: some twenty of tiny's or base's embedding."""


def _contents(weight: Tensor, grid: Grid, moment: Tensor) -> Hashable:
    """What tells calls apart: the numbers, not the tensors that hold them."""
    digests = (hashlib.sha256(part.detach().contiguous().numpy().data).digest() for part in (weight, moment))
    return (weight.shape, grid, *digests)


def _bytes(matrix: QuantisedMatrix) -> int:
    parts = (matrix.codes, matrix.scales, matrix.zero_points)
    return sum(part.nbytes for part in parts if part is not None)


@cached(LRUCache(maxsize=REMEMBERED_BYTES, getsizeof=_bytes), key=_contents)
def quantise_calibrated(weight: Tensor, grid: Grid, moment: Tensor) -> QuantisedMatrix:
    """Round column by column; the columns that are left make up for each one's error.

    GPTQ (Frantar, Ashkboos, Hoefler, Alistarh 2023, "GPTQ: Accurate post-training quantization for generative
    pre-trained transformers", equations 2 and 3, algorithm 1), which rests on optimal brain surgeon (Hassibi and Stork
    1993): with column i rounded with the error e = w_i - q_i, the sum d^T M d is least when the columns after it change
    by -e U_ij / U_ii, where U is the upper Cholesky factor of M^-1 (M damped). Columns go by falling M_ii
    ("act-order"), on grids that span the original groups, since a group's columns must stay together in memory.

    `weight`: (N, K). `moment`: (K, K), any positive scale. Most recipes of a search round most matrices as others did:
    what was rounded lately is remembered.
    """
    columns = weight.shape[1]
    groups = in_groups(weight, grid)
    width, group = groups.shape[1] * groups.shape[2], groups.shape[2]
    factor, order = _inverse_factor(moment, width)
    fixed = Steps.spanning(groups, grid)
    steps = fixed.by_column(group, order)
    left = groups.flatten(1)[:, order]
    codes = torch.empty_like(left)
    for first in range(0, len(left), ROWS):
        rows = slice(first, first + ROWS)
        codes[rows, order] = _round(left[rows], steps.of_rows(rows), factor)
    return as_quantised_matrix(codes.unflatten(1, (-1, group)), fixed, grid, columns=columns)


def _round(left: Tensor, steps: Steps, factor: Tensor) -> Tensor:
    """The codes of rows (R, columns) that do not change each other."""
    left, codes = left.clone(), torch.empty_like(left)
    width = left.shape[1]
    for start in range(0, width, BLOCK):
        end = min(start + BLOCK, width)
        errors = _round_block(left[:, start:end], codes[:, start:end], steps, start, factor[start:end, start:end])
        left[:, end:] -= errors @ factor[start:end, end:]
    return codes


def _inverse_factor(moment: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """U (width, width) float32 for the columns in their order (width,); columns beyond the moment's have no input."""
    damped = torch.zeros(width, width, dtype=torch.float64)
    damped[: len(moment), : len(moment)] = moment
    damped.diagonal().add_(DAMPING * moment.diagonal().mean() + torch.finfo(torch.float32).tiny)
    order = damped.diagonal().argsort(descending=True)
    lower = torch.linalg.cholesky(damped[order][:, order])
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True).float(), order


def _round_block(left: Tensor, codes: Tensor, steps: Steps, start: int, factor: Tensor) -> Tensor:
    """Fill the codes of a block of columns, from what is left of its weights; their errors (N, columns) by U_ii."""
    errors = torch.empty_like(left)
    for index in range(left.shape[1]):
        grid = steps.column(start + index)
        codes[:, index] = grid.codes(left[:, index])
        errors[:, index] = (left[:, index] - grid.values(codes[:, index])) / factor[index, index]
        left[:, index + 1 :] -= errors[:, index, None] * factor[index, index + 1 :]
    return errors
