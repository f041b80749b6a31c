"""Rounding weights with regard to the inputs that they multiply, not one by one.

A linear layer's output changes by (W - Q) x when its weights W become Q. Over calibration inputs x the mean square of
that is the sum over the rows d of W - Q of d^T M d, with the second moment M = E[x x^T]. Rounding to the nearest point
minimises |d|^2 instead, as if all inputs were equally large and independent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numba
import numpy as np
import torch
from torch import Tensor

from compression.techniques.grids import Grid, QuantisedMatrix, Steps, as_quantised_matrix, divide, in_groups
from compression.whisper.compute import CPU, exact_device

DAMPING = 0.01
"""Added to the diagonal of M, as a share of its mean: Frantar et al.'s own value."""
ROWS = 512
"""Rows that are rounded together: so many stay in the processor's caches."""
BLOCK = 64
"""Columns whose errors are passed on together, as in Frantar et al., section 3.3; it changes nothing but the time."""
Kernel = Callable[..., None]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Feedback:
    """How columns make up for each other's errors: all that rounding needs to know of a moment.

    `order` (width,): in which the columns are rounded. `shares` (width, width) float32, in that order: what column i
    gets of column j's error, j < i; what is not above the diagonal means nothing.
    """

    order: Tensor
    shares: Tensor

    @classmethod
    def of(cls, moment: Tensor, width: int, compute: torch.device = CPU) -> Self:
        """Of a moment (K, K) of any positive scale; columns from K to `width` have no input.

        `compute`: where the matrices lie that are to be rounded.
        """
        moment = moment.to(exact_device(compute))
        damped = moment.new_zeros(width, width, dtype=torch.float64)
        damped[: len(moment), : len(moment)] = moment
        damped.diagonal().add_(DAMPING * moment.diagonal().mean() + torch.finfo(torch.float32).tiny)
        order = damped.diagonal().argsort(descending=True)
        backwards = order.flip(0)
        upper = torch.linalg.cholesky(damped[backwards][:, backwards]).flip(0, 1)
        return cls(order=order.to(compute), shares=(upper / upper.diagonal()).float().to(compute))


def quantise_calibrated(weight: Tensor, grid: Grid, moment: Tensor) -> QuantisedMatrix:
    """Round column by column; the columns that are left make up for each one's error.

    GPTQ (Frantar, Ashkboos, Hoefler, Alistarh 2023, "GPTQ: Accurate post-training quantization for generative
    pre-trained transformers", algorithm 1) in the form of LDLQ, which needs no inverse (Chee et al. 2023, "QuIP: 2-bit
    quantization of large language models with guarantees", theorem 6). With M (damped) = V V^T, V upper triangular,
    d^T M d is the sum over the columns i of V_ii^2 (d_i + sum_(j < i) d_j V_ji / V_ii)^2, so column i is best
    rounded after adding what the bracket has of the errors before it. Columns go by falling M_ii ("act-order"), on
    grids that span the original groups, since a group's columns must stay together in memory.

    `weight`: (N, K), whose rows do not change each other's codes. `moment`: (K, K), any positive scale.
    """
    return round_columns(weight, grid, Feedback.of(moment, padded_columns(weight, grid), weight.device))


def padded_columns(weight: Tensor, grid: Grid) -> int:
    """Columns of a matrix (N, K) with those that fill its last group."""
    columns = weight.shape[1]
    return columns + -columns % (grid.group_size or columns)


def round_columns(weight: Tensor, grid: Grid, feedback: Feedback) -> QuantisedMatrix:
    """`quantise_calibrated`, its moment's feedback known."""
    groups = in_groups(weight, grid)
    steps = Steps.spanning(groups, grid)
    codes = torch.empty_like(groups, dtype=torch.uint8)
    together = ROWS if weight.device == CPU else len(weight)
    for first in range(0, len(weight), together):
        rows = slice(first, first + together)
        codes[rows].flatten(1)[:] = _round(groups[rows], steps.of_rows(rows), feedback).T
    return as_quantised_matrix(codes, steps, grid, columns=weight.shape[1])


def _round(groups: Tensor, steps: Steps, feedback: Feedback) -> Tensor:
    """The codes (columns, R) uint8 of rows (R, G, g): transposed, so that a column lies together in memory."""
    wanted = groups.flatten(1)[:, feedback.order].T.contiguous()
    errors, codes = wanted.clone(), torch.empty_like(wanted, dtype=torch.uint8)
    scales, zero_points = (part.squeeze(-1).T.contiguous() for part in (steps.sizes, steps.zero_points))
    round_block = _round_block_compiled if wanted.device == CPU else _round_block_on_device
    for start in range(0, len(wanted), BLOCK):
        block = slice(start, start + BLOCK)
        shares = feedback.shares[block]
        round_block(
            *(wanted[block], errors[block], codes, scales, zero_points, feedback.order[block], shares[:, block]),
            groups.shape[2],
            steps.highest_code,
        )
        wanted[block.stop :].addmm_(shares[:, block.stop :].T, errors[block])
    return codes


def _round_block_compiled(*parts: Any) -> None:
    """`_round_block` of tensors on the CPU."""
    _kernel()(*(part.numpy() if isinstance(part, Tensor) else part for part in parts))


def _round_block_on_device(  # noqa: PLR0913, PLR0917 - those of `_round_block`
    wanted: Tensor,
    errors: Tensor,
    codes: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    columns: Tensor,
    shares: Tensor,
    group: int,
    highest_code: int,
) -> None:
    """`_round_block` of tensors elsewhere: all rows of a column at once."""
    for i, column in enumerate(columns.tolist()):
        scale, zero_point = scales[column // group], zero_points[column // group]
        code = (divide(wanted[i], scale) + zero_point).round().clamp(0, highest_code)
        codes[column] = code.to(torch.uint8)
        errors[i] -= (code - zero_point) * scale
        wanted[i + 1 :] += shares[i, i + 1 :, None] * errors[i]


@cache
def _kernel() -> Kernel:
    """`_round_block`, compiled once a machine; once a process where nothing can be written."""
    matrix, bytes_, strided = numba.float32[:, ::1], numba.uint8[:, ::1], numba.float32[:, :]
    signature = numba.void(matrix, matrix, bytes_, matrix, matrix, numba.int64[::1], strided, numba.int64, numba.int64)
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return numba.njit(signature, cache=True, **options)(_round_block)
    except (OSError, RuntimeError):
        return numba.njit(signature, **options)(_round_block)


def _round_block(  # noqa: PLR0913, PLR0917 - numba compiles it, and knows no dataclass
    wanted: Any,
    errors: Any,
    codes: Any,
    scales: Any,
    zero_points: Any,
    columns: Any,
    shares: Any,
    group: int,
    highest_code: int,
) -> None:
    """Fill the codes of a block of columns and their errors.

    `wanted` (columns, R): weights and what was passed on to them. `errors` (columns, R): the weights, of which the
    errors are left. `codes` (all columns, R), `scales` and `zero_points` (G, R): of every row. `columns`: the block's.
    """
    highest = np.float32(highest_code)
    for i in range(len(columns)):
        of_group, column = columns[i] // group, columns[i]
        for row in range(wanted.shape[1]):
            scale, zero_point = scales[of_group, row], zero_points[of_group, row]
            steps = wanted[i, row] / scale if scale != 0 else np.float32(0)
            code = min(max(np.rint(steps + zero_point), np.float32(0)), highest)
            codes[column, row] = np.uint8(code)
            errors[i, row] -= (code - zero_point) * scale
        for later in range(i + 1, len(columns)):
            share = shares[i, later]
            for row in range(wanted.shape[1]):
                wanted[later, row] += share * errors[i, row]
