"""encoder.onnx: a log-mel spectrogram to the keys and values that the decoder attends to."""

from dataclasses import replace

import numpy as np
import torch
from onnx import TensorProto
from torch import nn
from whisper.model import MultiHeadAttention, ResidualAttentionBlock, Whisper, sinusoids

from compression.export.onnx_runtime.graph import Graph
from compression.export.onnx_runtime.kernels import expanded
from compression.export.onnx_runtime.layers import Builder, head_width
from compression.export.onnx_runtime.weights import stacked
from compression.recipe.kernels import Precision
from compression.recipe.recipe import EncoderLayer, Recipe
from compression.techniques.compressed import Compressed

MAX_TIMESCALE = 10_000.0
"""Of Whisper's sinusoidal positions (`whisper.model.sinusoids`)."""


def encoder_graph(compressed: Compressed, recipe: Recipe) -> Graph:
    """Input `mel` (1, n_mels, frames), any even number of frames up to the model's own.

    Outputs `cross_key_i` and `cross_value_i` (1, heads, frames / 2, width) for every decoder layer i that is kept.
    """
    graph, network = Graph("encoder"), compressed.network
    build = Builder.of(graph, compressed, recipe, rows="many")
    mel = graph.input("mel", TensorProto.FLOAT, (1, network.dims.n_mels, "frames"))
    for index, names in enumerate(cross_keys_and_values(build, mel, network, recipe)):
        attention = network.decoder.blocks[index].cross_attn
        for name, kind in zip(names, ("key", "value"), strict=True):
            graph.output(name, f"cross_{kind}_{index}", (1, attention.n_head, "positions", head_width(attention)))
    return graph


def cross_keys_and_values(build: Builder, mel: str, network: Whisper, recipe: Recipe) -> list[tuple[str, str]]:
    """What each decoder layer that is kept attends to: its keys and values (1, heads, frames / 2, width).

    Projected in the encoder's graph, since they are needed once per window and not once per token.
    """
    graph = build.graph
    x = _convolution(build, mel, "encoder.conv1", network.encoder.conv1, recipe.convolution_bits)
    x = _convolution(build, x, "encoder.conv2", network.encoder.conv2, recipe.convolution_bits)
    x = graph.op("Transpose", x, perm=[0, 2, 1])
    x = build.add(x, _positions(graph, x, network.encoder.positional_embedding))
    layers = [layer for layer in recipe.encoder if layer]
    for index, (block, layer) in enumerate(zip(network.encoder.blocks, layers, strict=True)):
        x = _block(build, x, f"encoder.{index}", block, layer)
    x = build.layer_norm(x, "encoder.ln_post", network.encoder.ln_post)
    kept = [layer for layer in recipe.decoder if layer]
    return [
        _keys_and_values(build, x, f"decoder.{index}.cross_attn", block.cross_attn, decoder.attention_bits)
        for index, (block, decoder) in enumerate(zip(network.decoder.blocks, kept, strict=True))
    ]


def _convolution(build: Builder, x: str, name: str, module: nn.Conv1d, bits: int) -> str:
    one_group = replace(build.storage(bits), precision=Precision(weight_bits=bits))
    matrix = stacked(name, [module], one_group)
    weight = expanded(build.graph, matrix, tuple(module.weight.shape))
    bias = build.graph.floats(f"{name}.bias", build.vector(module.get_parameter("bias")))
    padding, stride = module.padding[0], module.stride[0]
    y = build.graph.op("Conv", x, weight, bias, name=name, pads=[padding, padding], strides=[stride])
    return build.graph.op("Gelu", y)


def _positions(graph: Graph, x: str, positions: torch.Tensor) -> str:
    """The first rows of Whisper's sinusoidal positions, as many as x (1, rows, width) has.

    They are computed when the artifact is loaded, so they take no room in it; in float64, which gives OpenAI's tables
    bit for bit, and rounded to float16 where the checkpoint's are. Cosines are sines of a quarter of a turn more, since
    ONNX Runtime 1.28, which sherpa-onnx holds, has no Cos in float64.
    """
    length, width = positions.shape
    if not torch.allclose(positions, sinusoids(length, width), atol=1e-3):
        raise ValueError("the encoder's positions are not Whisper's sinusoids")
    half = width // 2
    rates = np.exp(-np.log(MAX_TIMESCALE) / (half - 1) * np.arange(half))
    steps = graph.op("Range", graph.index(0), graph.index(length), graph.index(1))
    rows = graph.op("Unsqueeze", graph.cast(steps, TensorProto.DOUBLE), graph.integers(1))
    angles = graph.op("Mul", rows, graph.constant("position_rates", rates))
    quarter = graph.constant("quarter_turn", np.array(np.pi / 2))
    table = graph.op("Concat", graph.op("Sin", angles), graph.op("Sin", graph.op("Add", angles, quarter)), axis=1)
    if torch.equal(positions, positions.half().float()):
        table = graph.cast(table, TensorProto.FLOAT16)
    table = graph.cast(table, TensorProto.FLOAT)
    count = graph.op("Shape", x, start=1, end=2)
    return graph.op("Slice", table, graph.integers(0), count, graph.integers(0))


def _block(build: Builder, x: str, name: str, block: ResidualAttentionBlock, layer: EncoderLayer) -> str:
    normed = build.layer_norm(x, f"{name}.attn_ln", block.attn_ln)
    qkv = build.query_key_value(normed, f"{name}.attn", block.attn, layer.attention_bits)
    mixed = build.attend(*qkv, heads=block.attn.n_head)
    x = build.add(x, build.linear(mixed, f"{name}.attn.out", [block.attn.out], layer.attention_bits))
    normed = build.layer_norm(x, f"{name}.mlp_ln", block.mlp_ln)
    return build.add(x, build.feed_forward(normed, f"{name}.mlp", block.mlp, layer.ffn_bits))


def _keys_and_values(build: Builder, x: str, name: str, attention: MultiHeadAttention, bits: int) -> tuple[str, str]:
    projected = build.linear(x, f"{name}.key_value", [attention.key, attention.value], bits)
    key, value = build.split(projected, 2)
    heads, width = attention.n_head, head_width(attention)
    return build.by_head(key, heads=heads, width=width), build.by_head(value, heads=heads, width=width)
