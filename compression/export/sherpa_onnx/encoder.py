"""encoder.onnx: the frames that sherpa-onnx computed, to the keys and values of all decoder layers in two tensors."""

from collections.abc import Sequence
from math import log10

from onnx import TensorProto

from compression.export.onnx_runtime.encoder import cross_keys_and_values
from compression.export.onnx_runtime.graph import Graph
from compression.export.onnx_runtime.layers import Builder, head_width
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from runtime.mel import FLOOR
from runtime.window import FRAMES_PER_S, MARGIN_S, STEP_S, WINDOW_LIMIT_S

QUIETEST = (log10(FLOOR) + 4) / 4
"""Digital silence as a log-mel value, where the loudest frame does not raise it."""
DYNAMIC_RANGE = 2.0
"""Log-mel values are clamped to so much below the loudest one (8 in log10, before the division by 4)."""


def encoder_graph(compressed: Compressed, recipe: Recipe) -> Graph:
    """Input `mel` (1, n_mels, frames), any number of frames up to 3000, of which sherpa-onnx's padding is cut off.

    Outputs `cross_k` and `cross_v` (1, heads of all decoder layers, positions, width), layer after layer.
    """
    graph, network = Graph("encoder"), compressed.network
    build = Builder.of(graph, compressed, recipe, rows="many")
    mel = graph.input("mel", TensorProto.FLOAT, (1, network.dims.n_mels, "frames"))
    window = _window(graph, mel, recipe.window_s)
    layers = cross_keys_and_values(build, window, network, recipe)
    blocks = network.decoder.blocks
    heads, width = sum(block.cross_attn.n_head for block in blocks), head_width(blocks[0].cross_attn)
    joined_outputs(graph, layers, ("cross_k", "cross_v"), (1, heads, "positions", width))
    return graph


def joined_outputs(
    graph: Graph, layers: Sequence[tuple[str, str]], names: tuple[str, str], shape: tuple[int | str, ...]
) -> None:
    """Keys and values (1, heads, positions, width) of all layers as two outputs, by head one after the other."""
    for name, parts in zip(names, zip(*layers, strict=True), strict=True):
        graph.output(graph.op("Concat", *parts, axis=1), name, shape)


def _window(graph: Graph, mel: str, recipe_window_s: float) -> str:
    """The audio's frames, then silence up to the window that `runtime.window.encoder_window_s` gives it.

    sherpa-onnx appends frames of zeros (`tail_paddings`, 10 s of them by default). A zero is no silence, but noise of
    a middling level that Whisper was not trained with.
    """
    audio = _audio_frames(graph, mel)
    step, margin = round(STEP_S * FRAMES_PER_S), round(MARGIN_S * FRAMES_PER_S)
    least = graph.op("Add", audio, graph.integers(margin))
    least = graph.op("Max", least, graph.integers(round(recipe_window_s * FRAMES_PER_S)))
    steps = graph.op("Div", graph.op("Add", least, graph.integers(step - 1)), graph.integers(step))
    frames = graph.op("Mul", steps, graph.integers(step))
    frames = graph.op("Min", frames, graph.integers(round(WINDOW_LIMIT_S * FRAMES_PER_S)))
    silence = graph.op("Sub", graph.op("ReduceMax", mel, keepdims=0), graph.scalar(DYNAMIC_RANGE))
    silence = graph.op("Max", silence, graph.scalar(QUIETEST))
    sound = graph.op("Slice", mel, graph.integers(0), audio, graph.integers(2))
    missing = graph.op("Sub", frames, audio)
    pads = graph.op("Concat", graph.integers(0, 0, 0, 0, 0), missing, axis=0)
    return graph.op("Pad", sound, pads, silence)


def _audio_frames(graph: Graph, mel: str) -> str:
    """(1,): how many frames there are before the zeros at the end."""
    loudest = graph.op("ReduceMax", graph.op("Abs", mel), graph.integers(0, 1), keepdims=0)
    is_audio = graph.cast(graph.op("Greater", loudest, graph.scalar(0.0)), TensorProto.INT64)
    count = graph.op("Squeeze", graph.op("Shape", mel, start=2, end=3))
    numbers = graph.op("Range", graph.index(1), graph.op("Add", count, graph.index(1)), graph.index(1))
    return graph.op("ReduceMax", graph.op("Mul", is_audio, numbers), graph.integers(0), keepdims=1)
