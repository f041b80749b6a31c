"""Reconstruction: what each sub-layer writes to the residual stream is refitted, in closed form and in order.

A layer that lost heads or channels, or whose weights were rounded, gets other inputs and gives other outputs. Here the
last linear layer of each sub-layer (attention's `out`, the feed-forward's second) is fitted so that the stream behind
it is the original's again, on the inputs that the compressed network really gives it. What follows sees the refitted
and rounded layer, so errors do not add up.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812, torch's own abbreviation
from torch import Tensor, nn
from whisper.model import AudioEncoder, Linear, ResidualAttentionBlock, TextDecoder, Whisper

from compression.calibration.calibration import CalibrationSample
from compression.compress import grids, quantiser
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import STACKS
from compression.techniques.activations import RoundingLinear
from compression.techniques.grids import round_to_grid
from compression.training.spelling import Spelling
from compression.training.subject import Subject
from compression.training.whisper_student import Parts, absorbed_layers, changed_part
from compression.whisper.compute import exact
from compression.whisper.network import encoder_states

RIDGE = 0.01
"""Pull towards the weights as they were, as a share of the mean square of the inputs."""


@dataclass(kw_only=True)
class _Stream:
    """One clip on its way through both networks. `encoded`: what each decoder reads."""

    ours: Tensor
    theirs: Tensor
    encoded: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class _SubLayer:
    """`writes` adds to the stream x; `output` is its last linear layer."""

    output: Linear
    writes: Callable[[Tensor, Tensor | None], Tensor]


def reconstruct(
    subject: Subject, samples: Sequence[CalibrationSample], *, go_on: Callable[[str], bool] = lambda _: True
) -> dict[str, Tensor]:
    """The refitted parameters by name, before rounding.

    `go_on` is told each sub-layer's name before its turn and may end it there.
    """
    original = subject.model.network
    refit = _Refit(subject.before("reconstruct", STACKS))
    spelling = Spelling(refit.network, refit.vocabulary)
    samples = [replace(sample, tokens=spelling.of(sample.tokens)) for sample in samples]
    with torch.no_grad():
        encoder_is_whole = _compressed_part(subject) == "decoder"
        enter = _behind_encoder if encoder_is_whole else _enter_encoder
        streams = [enter(refit.network, original, sample) for sample in samples]
        done = encoder_is_whole or _stack(refit, "encoder", original, streams, go_on)
        for stream, sample in zip(streams, samples, strict=True):
            _enter_decoder(refit, original, stream, sample)
        if done:
            _stack(refit, "decoder", original, streams, go_on)
    return refit.weights


def _stack(
    refit: "_Refit", stack: str, original: Whisper, streams: list[_Stream], go_on: Callable[[str], bool]
) -> bool:
    """Refit a stack block by block; whether it came to its end."""
    blocks, originals = getattr(refit.network, stack).blocks, getattr(original, stack).blocks
    layers = getattr(refit.recipe, stack)
    mask = original.decoder.mask if stack == "decoder" else None
    kept = [index for index, layer in enumerate(layers) if layer is not None]
    passed = 0
    for position, (index, last) in enumerate(zip(kept, absorbed_layers(layers), strict=True)):
        _let_pass(streams, originals[passed:index], mask)
        ours, theirs = list(_sub_layers(blocks[position], mask)), list(_sub_layers(originals[index], mask))
        for number, (own, other) in enumerate(zip(ours, theirs, strict=True)):
            if not go_on(f"{stack} layer {index}, sub-layer {number + 1} of {len(ours)}"):
                return False
            for stream in streams:
                stream.theirs = stream.theirs + other.writes(stream.theirs, stream.encoded and stream.encoded[1])
            if own is ours[-1]:  # what the dropped layers behind it did is its task as well
                _let_pass(streams, originals[index + 1 : last + 1], mask)
            refit.fit(own, streams)
        passed = last + 1
    return True


def _let_pass(streams: list[_Stream], blocks: nn.ModuleList, mask: Tensor | None) -> None:
    """Let the original's streams pass layers that the compressed network does not have."""
    for stream in streams:
        for block in blocks:
            stream.theirs = block(stream.theirs, stream.encoded and stream.encoded[1], mask=mask)


def _sub_layers(block: ResidualAttentionBlock, mask: Tensor | None) -> Iterator[_SubLayer]:
    """In the order of the block's own forward pass."""
    yield _SubLayer(output=block.attn.out, writes=lambda x, _: block.attn(block.attn_ln(x), mask=mask)[0])
    if block.cross_attn is not None:
        yield _SubLayer(
            output=block.cross_attn.out, writes=lambda x, xa: block.cross_attn(block.cross_attn_ln(x), xa)[0]
        )
    second = block.mlp[2]
    last = second[1] if isinstance(second, nn.Sequential) else second
    yield _SubLayer(output=last, writes=lambda x, _: block.mlp(block.mlp_ln(x)))


class _Refit:
    """Refits layers of a compressed network in place, and keeps their weights before rounding."""

    def __init__(self, subject: Subject) -> None:
        compressed, unrounded, self.recipe = subject.compressed(), subject.unrounded(), subject.recipe
        self.network, self.vocabulary = compressed.network, compressed.vocabulary
        self.weights: dict[str, Tensor] = {}
        self._floats, self._inputs = unrounded.network, unrounded.inputs
        self._names = {module: name for name, module in self.network.named_modules()}
        self._grids = {module: grid for _, module, grid in grids(self.network, self.recipe)}

    def fit(self, sub_layer: _SubLayer, streams: list[_Stream]) -> None:
        """Fit the sub-layer's output to what the streams lack, round it, and let the streams pass."""
        layer = sub_layer.output
        name = self._names[layer]
        weight, bias = (exact(self._floats.get_parameter(f"{name}.{part}")) for part in ("weight", "bias"))
        normal = _NormalEquations(layer)
        for stream in streams:
            with _inputs_of(layer) as seen:
                sub_layer.writes(stream.ours, stream.encoded and stream.encoded[0])
            multiplied = layer.rounded(seen[0]) if isinstance(layer, RoundingLinear) else seen[0]
            normal.add(multiplied, stream.theirs - stream.ours)
        weight, bias = normal.solve(weight, bias)
        here = layer.weight.device
        self._take(layer, name, weight.float().to(here), bias.float().to(here))
        for stream in streams:
            stream.ours = stream.ours + sub_layer.writes(stream.ours, stream.encoded and stream.encoded[0])

    def _take(self, layer: Linear, name: str, weight: Tensor, bias: Tensor) -> None:
        self.weights |= {f"{name}.weight": weight, f"{name}.bias": bias}
        layer.weight.data = round_to_grid(weight, self._grids[layer], quantiser(self.recipe, self._inputs, name))[0]
        layer.bias.data = bias.half().float() if self.recipe.vector_bits == 16 else bias


class _inputs_of:  # noqa: N801 - a context manager
    """Collects what a layer is given."""

    def __init__(self, layer: Linear) -> None:
        self._layer = layer
        self._seen: list[Tensor] = []

    def __enter__(self) -> list[Tensor]:
        self._handle = self._layer.register_forward_pre_hook(lambda _, inputs: self._seen.append(inputs[0]))
        return self._seen

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


class _NormalEquations:
    """Sums over calibration rows of x x^T and y x^T, x with a 1 behind it for the bias."""

    def __init__(self, layer: Linear) -> None:
        weight = exact(layer.weight.detach())
        self.gram = weight.new_zeros(layer.in_features + 1, layer.in_features + 1)
        self.cross = weight.new_zeros(layer.out_features, layer.in_features + 1)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Inputs (..., K) and the outputs (..., N) that they should give."""
        rows = F.pad(x.flatten(0, -2), (0, 1), value=1.0)
        self.gram += exact(rows.T @ rows)
        self.cross += exact(y.flatten(0, -2).T @ rows)

    def solve(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """argmin over W', b' of sum |y - W' x - b'|^2 + lambda |W' - W|^2, lambda = RIDGE times the mean of sum x^2.

        With D = [W' - W, b' - b]: D = (Y X^T - [W, b] X X^T) (X X^T + lambda I)^-1 (ridge regression). The bias is not
        pulled.
        """
        before = torch.cat([weight, bias.unsqueeze(1)], dim=1)
        ridge = self.gram.new_full((len(self.gram),), float(RIDGE * self.gram.diagonal()[:-1].mean()))
        ridge[-1] = 0
        change = torch.linalg.solve(self.gram + ridge.diag(), (self.cross - before @ self.gram).T).T
        after = before + change
        return after[:, :-1], after[:, -1]


def _enter_encoder(network: Whisper, original: Whisper, sample: CalibrationSample) -> _Stream:
    ours, theirs = (_convolved(whisper.encoder, sample.mel.unsqueeze(0)) for whisper in (network, original))
    return _Stream(ours=ours, theirs=theirs)


def _behind_encoder(network: Whisper, original: Whisper, sample: CalibrationSample) -> _Stream:
    """Behind the encoders' last blocks."""
    ours, theirs = (encoder_states(whisper, sample.mel.unsqueeze(0))[-2] for whisper in (network, original))
    return _Stream(ours=ours, theirs=theirs)


def _compressed_part(subject: Subject) -> Parts:
    model = subject.model
    original = Recipe.original(model.dimensions, stored_bits=model.stored_bits)
    return changed_part(subject.recipe, original, "auto")


def _convolved(encoder: AudioEncoder, mel: Tensor) -> Tensor:
    """What the first encoder block sees (see `compression.whisper.network.encode`)."""
    here = mel.to(encoder.positional_embedding.device)
    x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(here)))).permute(0, 2, 1)
    return x + encoder.positional_embedding[: x.shape[1]]


def _enter_decoder(refit: _Refit, original: Whisper, stream: _Stream, sample: CalibrationSample) -> None:
    """From the encoder's end to the decoder's beginning."""
    stream.encoded = (refit.network.encoder.ln_post(stream.ours), original.encoder.ln_post(stream.theirs))
    tokens = sample.tokens[:-1].unsqueeze(0)
    stream.ours = _embedded(refit.network.decoder, refit.vocabulary.rows[tokens])
    stream.theirs = _embedded(original.decoder, tokens)


def _embedded(decoder: TextDecoder, rows: Tensor) -> Tensor:
    """What the first decoder block sees."""
    positions = decoder.positional_embedding[: rows.shape[1]]
    embedded: Tensor = decoder.token_embedding(rows.to(positions.device)) + positions
    return embedded
