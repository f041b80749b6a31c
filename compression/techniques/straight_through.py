"""Rounding that gradients pass through."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(_: FunctionCtx, __: Tensor, rounded: Tensor) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def backward(_: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_through(values: Tensor, rounded: Tensor) -> Tensor:
    """Exactly `rounded`, whose gradient goes to `values` unchanged (Bengio et al. 2013, arXiv:1308.3432)."""
    if not values.requires_grad:
        return rounded
    result: Tensor = _StraightThrough.apply(values, rounded.detach())  # type: ignore[no-untyped-call]
    return result
