"""FLOPs of a really compressed network, counted by fvcore's tracer: the check on the inventory's formulas."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from whisper.model import Whisper, disable_sdpa

from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.whisper.network import encode
from evaluators.costs.inventory import operations, prompt_length

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # fvcore still uses torch.jit, on import and when tracing
    from fvcore.nn import FlopCountAnalysis

COUNTED = ("conv", "linear", "matmul", "mm", "bmm", "addmm", "einsum")
"""fvcore's names of the operators that multiply and accumulate; its guesses about others are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flops:
    """Two per multiply-accumulate, by module of the network.

    Cross-attention's keys and values are the decoder's here; in an artifact the encoder's graph projects them.
    """

    encoder: int
    decoder: int


class _Encoder(nn.Module):
    """The encoder at any window, as a module that can be traced."""

    def __init__(self, network: Whisper) -> None:
        super().__init__()
        self.network = network

    def forward(self, mel: Tensor) -> Tensor:
        return encode(self.network, mel)


def count_flops(network: Whisper, mel_frames: int, tokens: int) -> Flops:
    """Trace one clip of `mel_frames` (even) through the encoder and `tokens` tokens, at once, through the decoder.

    Attention takes whisper's explicit path meanwhile: fvcore counts nothing for scaled_dot_product_attention,
    and the decoder cannot be traced with it. The explicit path multiplies the whole tokens x tokens square in
    the decoder's self-attention, masked or not: `teacher_forced_flops` says the same of the inventory.
    """
    mel = torch.zeros(1, network.dims.n_mels, mel_frames)
    features = torch.zeros(1, mel_frames // 2, network.dims.n_audio_state)
    token_ids = torch.zeros(1, tokens, dtype=torch.long)
    with disable_sdpa(), torch.no_grad(), _eval_mode(network):
        return Flops(
            encoder=_traced_flops(_Encoder(network), mel),
            decoder=_traced_flops(network.decoder, token_ids, features),
        )


def teacher_forced_flops(dimensions: Dimensions, recipe: Recipe, *, audio_s: float = 10.0, tokens: int = 30) -> Flops:
    """The inventory's FLOPs in `count_flops`'s mode, for the same window and all S decoder steps as tokens.

    With a cache self-attention sees 1, 2, ..., S keys; without one each of the S rows sees S keys. Per layer of
    h heads of width d this adds 2 x 2 h d (S^2 - S (S + 1) / 2) = 2 h d S (S - 1).
    """
    flops = {"encoder": 0, "decoder": 0}
    for item in operations(dimensions, recipe, audio_s=audio_s, tokens=tokens):
        module = item.name.split(".", 1)[0]
        flops[module] += item.flops
    steps = prompt_length(dimensions) + tokens
    heads = sum(layer.heads for layer in recipe.decoder if layer)
    uncached = 2 * heads * dimensions.text_head_width * steps * (steps - 1)
    return Flops(encoder=flops["encoder"], decoder=flops["decoder"] + uncached)


def _traced_flops(module: nn.Module, *inputs: Tensor) -> int:
    analysis = FlopCountAnalysis(module, inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        by_operator = analysis.by_operator()
    return 2 * int(sum(by_operator[name] for name in COUNTED))


@contextmanager
def _eval_mode(network: Whisper) -> Iterator[None]:
    """Without warnings about modes from the tracer; the network's own mode comes back."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
