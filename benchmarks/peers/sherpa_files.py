"""sherpa-onnx's files as its own scripts make them (scripts/whisper/export-onnx.py), of our float32 graphs.

Theirs is `quantize_dynamic(op_types_to_quantize=["MatMul"], weight_type=QInt8)`, which leaves the embedding in
float32. The graphs here have our attention operator and caches that grow, so they are no slower than those that
torch exports there; without the rules and the window that our own target adds.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from peer_files import original

from compression.compress import compress
from compression.export.onnx_runtime.decoder import DecoderStep
from compression.export.onnx_runtime.embedding import NAME
from compression.export.onnx_runtime.encoder import cross_keys_and_values
from compression.export.onnx_runtime.graph import Graph
from compression.export.onnx_runtime.layers import Builder
from compression.export.sherpa_onnx.artifact import DECODER, ENCODER, metadata, write_tokens
from compression.export.sherpa_onnx.decoder import Caches
from compression.export.sherpa_onnx.encoder import joined_outputs
from compression.export.vocabulary import KeptTokens
from compression.recipe.recipe import MAX_WINDOW_S, Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel


def int8(model: LoadedModel, out: Path) -> None:
    """encoder.onnx, decoder.onnx and tokens.txt."""
    recipe = original(model, 32, window_s=MAX_WINDOW_S)
    network = compress(model, recipe)
    encoder = _encoder(network, recipe)
    encoder.metadata.update(metadata(model, network, KeptTokens.of(network)))
    write_tokens(KeptTokens.of(network), out)
    with TemporaryDirectory() as scratch:
        for graph, name in ((encoder, ENCODER), (_decoder(network, recipe), DECODER)):
            floats = Path(scratch) / name
            onnx.save(_with_stored_transposes(onnx.load_from_string(graph.to_bytes())), floats)
            quantize_dynamic(
                floats,
                out / name,
                op_types_to_quantize=["MatMul"],
                weight_type=QuantType.QInt8,
                extra_options={"DefaultTensorType": TensorProto.FLOAT},
            )


def _encoder(network: Compressed, recipe: Recipe) -> Graph:
    graph = Graph("encoder")
    build = Builder.of(graph, network, recipe, rows="many")
    mel = graph.input("mel", TensorProto.FLOAT, (1, network.network.dims.n_mels, "frames"))
    layers = cross_keys_and_values(build, mel, network.network, recipe)
    joined_outputs(graph, layers, ("cross_k", "cross_v"), (1, "heads", "positions", "width"))
    return graph


def _decoder(network: Compressed, recipe: Recipe) -> Graph:
    graph, dims = Graph("decoder"), network.network.dims
    build = Builder.of(graph, network, recipe, rows="one")
    tokens = graph.input("tokens", TensorProto.INT64, (1, "new"))
    caches = Caches(graph=graph, blocks=tuple(network.network.decoder.blocks))
    layers = caches.inputs()
    step = DecoderStep(build=build, compressed=network, recipe=recipe)
    x, texts = step.output(tokens, graph.op("Squeeze", caches.offset), layers)
    graph.output(step.logits(x), "logits", (1, "new", dims.n_vocab))
    joined_outputs(graph, texts, ("out_self_k", "out_self_v"), (1, "heads", "length", "width"))
    return graph


def _with_stored_transposes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights that are transposed before they are multiplied, stored as that; but not the embedding's, as in torch's
    graphs, so that it stays one table.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type == "Transpose" and node.input[0] in stored and not node.input[0].startswith(NAME):
            values = numpy_helper.to_array(stored[node.input[0]]).T
            stored[node.input[0]].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), node.output[0]))
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model
