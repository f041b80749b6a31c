"""Whispers of the shapes that a recipe asks for, built without `compression`."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from whisper.model import Linear, ModelDimensions, MultiHeadAttention, ResidualAttentionBlock, Whisper

from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import DecoderLayer, EncoderLayer, Recipe


def random_network(dimensions: Dimensions) -> Whisper:
    network = Whisper(ModelDimensions(**asdict(dimensions))).eval()
    nn.init.normal_(network.decoder.positional_embedding)  # whisper leaves it uninitialised
    return network


def save_checkpoint(network: Whisper, path: Path) -> None:
    """In float16 and openai-whisper's format."""
    state = {name: value.half() for name, value in network.state_dict().items()}
    torch.save({"dims": asdict(network.dims), "model_state_dict": state}, path)


def narrowed_attention(state: int, heads: int, head_width: int) -> MultiHeadAttention:
    attention, inner = MultiHeadAttention(state, heads), heads * head_width
    attention.query, attention.value = Linear(state, inner), Linear(state, inner)
    attention.key, attention.out = Linear(state, inner, bias=False), Linear(inner, state)
    return attention


def linear(inputs: int, outputs: int, rank: int) -> nn.Module:
    """Or two with `rank` values between them."""
    if not rank:
        return Linear(inputs, outputs)
    return nn.Sequential(Linear(inputs, rank, bias=False), Linear(rank, outputs))


def narrowed_block(state: int, head_width: int, layer: EncoderLayer) -> ResidualAttentionBlock:
    cross = isinstance(layer, DecoderLayer)
    block = ResidualAttentionBlock(state, 1, cross_attention=cross)
    block.attn = narrowed_attention(state, layer.heads, head_width)
    if cross:
        block.cross_attn = narrowed_attention(state, layer.cross_heads, head_width)
    channels, rank = layer.ffn_channels, layer.ffn_rank
    if rank * (state + channels) >= state * channels:
        rank = 0
    block.mlp = nn.Sequential(linear(state, channels, rank), nn.GELU(), linear(channels, state, rank))
    return block


def network_of_shape(dimensions: Dimensions, recipe: Recipe) -> Whisper:
    """Random weights in the shapes that are left by the recipe."""

    def blocks(state: int, head_width: int, layers: Iterable[EncoderLayer | None]) -> nn.ModuleList:
        return nn.ModuleList(narrowed_block(state, head_width, layer) for layer in layers if layer)

    network = random_network(dimensions)
    network.encoder.blocks = blocks(dimensions.n_audio_state, dimensions.audio_head_width, recipe.encoder)
    network.decoder.blocks = blocks(dimensions.n_text_state, dimensions.text_head_width, recipe.decoder)
    if recipe.vocabulary:
        rows = recipe.vocabulary + 108 + (dimensions.n_vocab == 51866)  # 99 languages, 8 others, the first timestamp
        network.decoder.token_embedding = nn.Embedding(rows, dimensions.n_text_state)
    return network.eval()
