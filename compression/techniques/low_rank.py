"""Feed-forward matrices as products of two smaller ones, with regard to the inputs that they multiply.

W x + b becomes A (B x) + b', with r columns in A and r rows in B. Over calibration inputs x with mean mu and covariance
C, the output changes least in mean square when the columns of A are the output's r first principal axes, eigenvectors
of W C W^T:

    A = U_r    B = U_r^T W    b' = b + (W - A B) mu

(Yu and Wu 2023, "Compressing transformers: features are low-rank, but weights are not!", algorithm 1). The change is
then the sum of the eigenvalues left out. With E[x x^T] in the place of C and the bias as it was, A B is SVD-LLM's (Wang
et al. 2024, arXiv:2403.07378); with I, the truncated singular value decomposition of W.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from whisper.model import Linear, Whisper

from compression.calibration.inputs import InputStatistics, KeptInputs
from compression.recipe.recipe import Recipe
from compression.techniques.pruning import linear_of
from compression.whisper.compute import exact

PLACES = (0, 2)
"""Of the two matrices in openai-whisper's `mlp`."""


def factors(linear: Linear, inputs: InputStatistics, rank: int) -> nn.Sequential:
    """Two layers in the place of one (N, K): B (rank, K) without a bias, then A (N, rank) with b'."""
    weight, old_bias = exact(linear.weight.detach()), exact(linear.bias.detach())
    mean, covariance = (torch.from_numpy(part).to(weight) for part in (inputs.mean, inputs.covariance))
    axes = _principal_axes(weight, covariance, rank)
    first = axes.T @ weight
    bias = old_bias + (weight - axes @ first) @ mean
    first, axes, bias = (part.float().to(linear.weight.device) for part in (first, axes, bias))
    return nn.Sequential(linear_of(first, None), linear_of(axes, bias))


def _principal_axes(weight: Tensor, covariance: Tensor, rank: int) -> Tensor:
    """(N, rank), of W x. They lie in the column space of W (N, K), which is the smaller problem where N > K."""
    basis, within = torch.linalg.qr(weight)
    eigenvectors = torch.linalg.eigh(within @ covariance @ within.T).eigenvectors
    return basis @ eigenvectors[:, -rank:]


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
