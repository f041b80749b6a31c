"""FLOPs of a really compressed network, counted by fvcore's tracer: the check on the inventory's formulas."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from whisper.model import Whisper, disable_sdpa

from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.whisper.network import encode
from evaluators.costs.inventory import prompt_length
from runtime.window import encoder_frames

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

    @property
    def total(self) -> int:
        return self.encoder + self.decoder


class _Encoder(nn.Module):
    """The encoder at any window, as a module that can be traced."""

    def __init__(self, network: Whisper) -> None:
        super().__init__()
        self.network = network

    def forward(self, mel: Tensor) -> Tensor:
        return encode(self.network, mel)


def count_flops(
    network: Whisper, dimensions: Dimensions, recipe: Recipe, *, audio_s: float = 10.0, tokens: int = 30
) -> Flops:
    """Trace an utterance through a recipe's network: the audio frames and the tokens of `operations`, prompt included.

    Attention takes whisper's explicit path meanwhile: fvcore counts nothing for scaled_dot_product_attention, and the
    decoder cannot be traced with it.
    """
    frames = encoder_frames(recipe.window_s, audio_s)
    mel = torch.zeros(1, network.dims.n_mels, frames)
    features = torch.zeros(1, frames // 2, network.dims.n_audio_state)

    def decoder_flops(count: int) -> int:
        return _traced_flops(network.decoder, torch.zeros(1, count, dtype=torch.long), features)

    with disable_sdpa(), torch.no_grad(), _eval_mode(network):
        encoder = _traced_flops(_Encoder(network), mel)
        return Flops(encoder=encoder, decoder=_with_cache(decoder_flops, prompt_length(dimensions) + tokens))


def _with_cache(traced: Callable[[int], int], steps: int) -> int:
    """What `steps` >= 3 decoder steps with a cache cost; `traced`: so many tokens at once, without one.

    At once, each row of self-attention multiplies all S keys, masked or not: a S^2; step by step 1, 2, ..., S keys:
    a S (S + 1) / 2. All else is linear in S, so the second difference of what was traced is 2 a.
    """
    at_once = traced(steps)
    second_difference = at_once - 2 * traced(steps - 1) + traced(steps - 2)
    return at_once - second_difference * steps * (steps - 1) // 4


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
