"""Outlier channels of activations, moved into the weights that multiply them.

SmoothQuant (Xiao et al. 2023, "SmoothQuant: Accurate and efficient post-training quantization for large language
models", equations 3 and 4): X W = (X / s) (s W) with s_j = max|X_j|^a / max|W_j|^(1 - a) for input channel j. The
division goes into the layer before, so that nothing is added to what runs: into a layer normalisation, or into the rows
of the values behind attention, whose mixing works channel by channel, or of the first of two low-rank factors. GELU is
not linear, so the second FFN layer stays as it is.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from whisper.model import Linear, Whisper

from compression.calibration.inputs import InputStatistics, KeptInputs
from compression.techniques.low_rank import factored

LEAST = 1e-5
"""Below this, activations and weights of a channel count as this large."""


def smooth(network: Whisper, inputs: KeptInputs, share: float) -> None:
    """Move outliers in place, and tell the inputs; `share` is a, the activations' part of the burden."""
    for source, readers in _smoothable(network):
        first = next(iter(readers))
        scales = divisors(inputs.of(first), [reader.weight for reader in readers.values()], share)
        _move(source, list(readers.values()), scales)
        for name in readers:
            inputs.divide(name, scales)


def divisors(inputs: InputStatistics, weights: Sequence[Tensor], share: float) -> Tensor:
    """s (K,) for inputs that all the weights (N, K) multiply."""
    heaviest = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0).clamp(min=LEAST)
    high, low = (torch.from_numpy(extreme).to(heaviest) for extreme in (inputs.high, inputs.low))
    largest = torch.maximum(high.abs(), low.abs()).clamp(min=LEAST)
    scales: Tensor = largest**share / heaviest ** (1 - share)
    return scales.clamp(min=LEAST)


def _move(source: nn.Module, readers: Sequence[Linear], scales: Tensor) -> None:
    """Divide what `source`, a layer normalisation or a linear layer, puts out; its readers make up for it."""
    for name, parameter in list(source.named_parameters()):
        divided = parameter.detach() / (scales[:, None] if parameter.dim() == 2 else scales)
        source.register_parameter(name, nn.Parameter(divided))
    for reader in readers:
        reader.weight = nn.Parameter(reader.weight.detach() * scales)


def _smoothable(network: Whisper) -> Iterator[tuple[nn.Module, dict[str, Linear]]]:
    """What a division can go into, and the linear layers that read it, by name in this network."""
    named = dict(network.named_modules())

    def readers(*names: str) -> dict[str, Linear]:
        return {name: named[name] for name in names}

    for stack in ("encoder", "decoder"):
        for index, block in enumerate(getattr(network, stack).blocks):
            prefix = f"{stack}.blocks.{index}"
            self_attention = [f"{prefix}.attn.{name}" for name in ("query", "key", "value")]
            yield block.attn_ln, readers(*self_attention)
            yield block.attn.value, readers(f"{prefix}.attn.out")
            is_factored = isinstance(block.mlp[0], nn.Sequential)
            yield block.mlp_ln, readers(f"{prefix}.mlp.0.0" if is_factored else f"{prefix}.mlp.0")
            if block.cross_attn is not None:
                yield block.cross_attn_ln, readers(f"{prefix}.cross_attn.query")
                yield block.cross_attn.value, readers(f"{prefix}.cross_attn.out")
    for name, (first, _) in factored(network):
        yield first, readers(f"{name}.1")
    crosses = [
        f"decoder.blocks.{index}.cross_attn.{name}"
        for index in range(len(network.decoder.blocks))
        for name in ("key", "value")
    ]
    yield network.encoder.ln_post, readers(*crosses)
