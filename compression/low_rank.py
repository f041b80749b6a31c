"""Feed-forward matrices as products of two smaller ones, with regard to the inputs that they multiply.

W x + b becomes A (B x) + b', with r columns in A and r rows in B. Over calibration inputs x with mean mu and covariance
C, the output changes least in mean square when the columns of A are the r first principal axes of the output:

    W L = U S V^T with L L^T = C    A = U_r    B = U_r^T W    b' = b + (W - A B) mu

(Yu and Wu 2023, "Compressing transformers: features are low-rank, but weights are not!", algorithm 1). What changes is
then the sum of the squares of the singular values that are left out. With E[x x^T] in the place of C and the bias as it
was, A B is SVD-LLM's (Wang et al. 2024, arXiv:2403.07378); with I in its place, the plain truncated decomposition of W.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from whisper.model import Linear, Whisper

from compression.inputs import Array, InputStatistics, KeptInputs
from compression.pruning import linear_of
from compression.recipe import Recipe

DAMPING = 0.01
"""Added to the diagonal of C, as a share of its mean: as much as in `compression.rounding`."""
PLACES = (0, 2)
"""Of the two matrices in openai-whisper's `mlp`."""


def factors(linear: Linear, inputs: InputStatistics, rank: int) -> nn.Sequential:
    """Two layers in the place of one (N, K): B (rank, K) without a bias, then A (N, rank) with b'."""
    weight, mean = linear.weight.detach().double(), torch.from_numpy(inputs.mean).double()
    axes = torch.linalg.svd(weight @ _square_root(inputs.covariance), full_matrices=False).U[:, :rank]
    first = axes.T @ weight
    bias = linear.bias.detach().double() + (weight - axes @ first) @ mean
    return nn.Sequential(linear_of(first.float(), None), linear_of(axes.float().contiguous(), bias.float()))


def _square_root(covariance: Array) -> Tensor:
    """L (K, K) float64, lower triangular, with L L^T = C, which is damped."""
    damped = torch.from_numpy(covariance).double()
    damped.diagonal().add_(DAMPING * damped.diagonal().mean() + torch.finfo(torch.float32).tiny)
    return torch.linalg.cholesky(damped)


def factorise(network: Whisper, recipe: Recipe, inputs: KeptInputs) -> None:
    """Replace, in place, the feed-forward matrices of a pruned network's layers by factors of the rank that they have.

    Raises CompressionError when there is no calibration.
    """
    for stack in ("encoder", "decoder"):
        layers = [layer for layer in getattr(recipe, stack) if layer]
        for index, (block, layer) in enumerate(zip(getattr(network, stack).blocks, layers, strict=True)):
            rank = layer.factor_rank(block.mlp[0].in_features)
            for place in PLACES if rank else ():
                block.mlp[place] = factors(block.mlp[place], inputs.of(f"{stack}.blocks.{index}.mlp.{place}"), rank)


def factored(network: Whisper) -> Iterator[tuple[str, nn.Sequential]]:
    """The pairs of factors in a network, by the name of the layer that each stands for."""
    for name, module in network.named_modules():
        if ".mlp." in name and isinstance(module, nn.Sequential):
            yield name, module
