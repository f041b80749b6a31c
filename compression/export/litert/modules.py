"""A compressed network as two torch modules of fixed shapes, which `litert_torch` converts."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from whisper import model as whisper_model
from whisper.model import MultiHeadAttention, ResidualAttentionBlock, Whisper

from compression.calibration.inputs import EMBEDDING
from compression.techniques.compressed import Compressed

NEVER = -1e9
"""Added to the score of a position that holds no text yet; a finite number, which every kernel takes."""
LONGEST_PROMPT = 4
"""Tokens: start, language, task, no timestamps."""


class Linear(nn.Module):
    """y = W x + b, where W may have more columns than x: a runtime's blocks are whole."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, inputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), None if bias is None else nn.Parameter(bias)
        self.missing = weight.shape[1] - inputs

    def forward(self, x: Tensor) -> Tensor:
        padded = functional.pad(x, (0, self.missing)) if self.missing else x
        return functional.linear(padded, self.weight, self.bias)


class EncoderWindow(nn.Module):
    """A window of so many mel frames to what the decoder attends to."""

    def __init__(self, network: Whisper, frames: int) -> None:
        super().__init__()
        self.encoder, self.decoder = network.encoder, network.decoder
        self.frames = frames
        self.positions = nn.Parameter(network.encoder.positional_embedding[: frames // 2].clone())

    def silence(self) -> Tensor:
        """An input."""
        return torch.zeros(1, self.encoder.conv1.in_channels, self.frames)

    def forward(self, mel: Tensor) -> dict[str, Tensor]:
        """`mel` (1, n_mels, frames) to `cross_key_i`, `cross_value_i` (1, heads, frames / 2, width) of each layer."""
        encoder = self.encoder
        x = functional.gelu(encoder.conv1(mel))
        x = functional.gelu(encoder.conv2(x))
        x = x.permute(0, 2, 1) + self.positions
        for block in encoder.blocks:
            x = x + _attention(block.attn, _normed(block.attn_ln, x))
            x = x + block.mlp(_normed(block.mlp_ln, x))
        x = _normed(encoder.ln_post, x)
        outputs = {}
        for index, block in enumerate(self.decoder.blocks):
            attention = block.cross_attn
            outputs[f"cross_key_{index}"] = _by_head(attention.key(x), attention)
            outputs[f"cross_value_{index}"] = _by_head(attention.value(x), attention)
        return outputs


class DecoderStep(nn.Module):
    """One token, its position and the caches to logits and what the caches gain."""

    def __init__(self, network: Whisper, embedding: Linear, length: int) -> None:
        """`embedding`: the token embedding, as the layer that makes logits. `length`: positions of the caches."""
        super().__init__()
        self.decoder, self.embedding, self.length = network.decoder, embedding, length
        self.positions = nn.Parameter(network.decoder.positional_embedding[:length].clone())

    def caches(self) -> dict[str, Tensor]:
        """Zeros (1, heads, length, width): `key_i` and `value_i` before the first token."""
        shapes = [
            (1, block.attn.n_head, self.length, _width(block.attn)) for block in self.decoder.blocks for _ in range(2)
        ]
        names = [f"{kind}_{index}" for index in range(len(self.decoder.blocks)) for kind in ("key", "value")]
        return {name: torch.zeros(shape) for name, shape in zip(names, shapes, strict=True)}

    def forward(
        self, token: Tensor, position: Tensor, past: Mapping[str, Tensor], audio: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """`token`, `position` (1,) int32; `past`: `caches`, zero from `position` on; `audio`: `EncoderWindow`'s.

        `logits` (1, vocabulary), `new_key_i` and `new_value_i` (1, heads, 1, width), which belong at `position`.
        """
        places = torch.arange(self.length, dtype=torch.int32)
        here = (places == position).float().view(1, 1, -1, 1)
        mask = (places > position).float().view(1, 1, 1, -1) * NEVER
        x = functional.embedding(token, self.embedding.weight)[:, : self.positions.shape[1]]
        x = (x + functional.embedding(position, self.positions)).unsqueeze(0)
        outputs = {}
        for index, block in enumerate(self.decoder.blocks):
            normed = _normed(block.attn_ln, x)
            key, value = (_by_head(layer(normed), block.attn) for layer in (block.attn.key, block.attn.value))
            outputs[f"new_key_{index}"], outputs[f"new_value_{index}"] = key, value
            keys, values = past[f"key_{index}"] + here * key, past[f"value_{index}"] + here * value
            x = x + _mixed(block.attn, normed, keys, values, mask)
            x = x + self._listened(block, x, audio[f"cross_key_{index}"], audio[f"cross_value_{index}"])
            x = x + block.mlp(_normed(block.mlp_ln, x))
        return {"logits": self.embedding(_normed(self.decoder.ln, x)[:, 0]), **outputs}

    @staticmethod
    def _listened(block: ResidualAttentionBlock, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return _mixed(block.cross_attn, _normed(block.cross_attn_ln, x), keys, values)


def converted(compressed: Compressed, length: int, windows: Sequence[int]) -> tuple[list[EncoderWindow], DecoderStep]:
    """The encoder for windows of so many mel frames, and the decoder; without rounding of activations."""
    source = compressed.on(torch.device("cpu"))
    network = copy.deepcopy(source.network, {id(parameter): parameter for parameter in source.network.parameters()})
    for name, module in list(network.named_modules()):
        if isinstance(module, whisper_model.Linear):
            network.set_submodule(name, _linear(source, name, module.weight, module.bias))
    embedding = _linear(source, EMBEDDING, network.decoder.token_embedding.weight, None)
    encoders = [EncoderWindow(network, frames).eval() for frames in windows]
    return encoders, DecoderStep(network, embedding, length).eval()


def _linear(compressed: Compressed, name: str, weight: Tensor, bias: Tensor | None) -> Linear:
    """The layer with its matrix as wide as its whole groups."""
    matrix = compressed.matrices.get(name)
    stored = weight.detach() if matrix is None else matrix.padded()
    return Linear(stored, None if bias is None else bias.detach(), inputs=weight.shape[1])


def _attention(attention: MultiHeadAttention, x: Tensor) -> Tensor:
    """Self-attention without a mask."""
    keys, values = (_by_head(layer(x), attention) for layer in (attention.key, attention.value))
    return _mixed(attention, x, keys, values)


def _mixed(
    attention: MultiHeadAttention, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
) -> Tensor:
    """What x (1, n, state) takes from keys and values (1, heads, positions, width).

    The scores are scaled, not the queries: a converter folds factors of these into their weights, which then are on no
    grid.
    """
    scores = _by_head(attention.query(x), attention) @ keys.transpose(-1, -2) * _width(attention) ** -0.5
    weights = functional.softmax(scores if mask is None else scores + mask, dim=-1)
    return attention.out((weights @ values).transpose(1, 2).flatten(2))


def _normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """In two steps, for the same reason: in one, the converter multiplies the next layer's weights by the norm's."""
    return functional.layer_norm(x, x.shape[-1:], eps=norm.eps) * norm.weight + norm.bias


def _by_head(x: Tensor, attention: MultiHeadAttention) -> Tensor:
    """(1, n, heads * width) to (1, heads, n, width)."""
    return x.view(1, -1, attention.n_head, _width(attention)).transpose(1, 2)


def _width(attention: MultiHeadAttention) -> int:
    """Of a head."""
    return int(attention.query.weight.shape[0] // attention.n_head)
