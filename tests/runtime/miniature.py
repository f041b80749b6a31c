"""Artifacts in the exporter's format, float32, from any openai-whisper network: to test the runtime by itself.

The graphs are written down operation by operation, so that nothing is shared with the exporter.
"""

import gzip
import hashlib
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from whisper.model import MultiHeadAttention, ResidualAttentionBlock, Whisper
from whisper.tokenizer import LANGUAGES, Tokenizer, get_tokenizer

_OPSET = 20


def write_artifact(network: Whisper, folder: Path, *, window_s: float = 30.0) -> Path:
    """Write the folder and return it."""
    folder.mkdir(parents=True)
    for name, model in (("encoder", encoder_graph(network)), ("decoder", decoder_graph(network))):
        onnx.save(model, folder / f"{name}.onnx")
    config = {
        "format_version": 1,
        "model": "miniature",
        "recipe_id": "0123456789abcdef",
        "n_mels": network.dims.n_mels,
        "n_text_ctx": network.dims.n_text_ctx,
        "window_s": window_s,
        "tokens": special_tokens(network),
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokens.txt.gz").write_bytes(gzip.compress(token_lines(network)))
    write_manifest(folder)
    return folder


def write_manifest(folder: Path, **changes: object) -> None:
    """(Re)write the manifest over the files that are there."""
    files = {}
    for file in sorted(folder.iterdir()):
        if file.name != "manifest.json":
            content = file.read_bytes()
            files[file.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {"target": "onnxruntime", "format_version": 1, "files": files} | changes
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def tokenizer_of(network: Whisper) -> Tokenizer:
    return get_tokenizer(network.is_multilingual, num_languages=network.num_languages)


def special_tokens(network: Whisper) -> dict[str, Any]:
    """The configuration's `tokens`."""
    tokenizer = tokenizer_of(network)
    silent = [tokenizer.sot, tokenizer.sot_prev, tokenizer.sot_lm, tokenizer.transcribe, tokenizer.translate]
    languages = None
    if network.is_multilingual:
        languages = {code: tokenizer.to_language_token(code) for code in list(LANGUAGES)[: network.num_languages]}
    return {
        "start": tokenizer.sot,
        "end": tokenizer.eot,
        "start_of_previous": tokenizer.sot_prev,
        "no_speech": tokenizer.no_speech,
        "no_timestamps": tokenizer.no_timestamps,
        "transcribe": tokenizer.transcribe,
        "translate": tokenizer.translate,
        "begin_suppressed": [*tokenizer.encode(" "), tokenizer.eot],
        "suppressed": sorted({*tokenizer.non_speech_tokens, *silent, tokenizer.no_speech}),
        "languages": languages,
    }


def token_lines(network: Whisper) -> bytes:
    tokenizer = tokenizer_of(network)
    lines = (
        b64encode(tokenizer.encoding.decode_single_token_bytes(token)) if token < tokenizer.eot else b""
        for token in range(network.dims.n_vocab)
    )
    return b"".join(line + b"\n" for line in lines)


class _Graph:
    """Nodes and constants of a graph being written; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.outputs: list[Any] = []

    def constant(self, value: object) -> str:
        array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: object) -> str:
        result = name or f"result_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [result], **attributes))
        return result

    def linear(self, layer: nn.Linear, x: str) -> str:
        product = self.op("MatMul", x, self.constant(layer.weight.T))
        return product if layer.bias is None else self.op("Add", product, self.constant(layer.bias))

    def norm(self, layer: nn.LayerNorm, x: str) -> str:
        weights = self.constant(layer.weight), self.constant(layer.bias)
        return self.op("LayerNormalization", x, *weights, axis=-1, epsilon=layer.eps)

    def conv(self, layer: nn.Conv1d, x: str) -> str:
        weights = self.constant(layer.weight), self.constant(layer.bias)
        return self.op("Gelu", self.op("Conv", x, *weights, pads=[1, 1], strides=list(layer.stride)))

    def split(self, attention: MultiHeadAttention, x: str, *, name: str | None = None) -> str:
        """(batch, rows, heads * width) -> (batch, heads, rows, width)."""
        shaped = self.op("Reshape", x, self.constant(np.array([0, 0, attention.n_head, -1])))
        return self.op("Transpose", shaped, perm=[0, 2, 1, 3], name=name)

    def attend(self, attention: MultiHeadAttention, query: str, key: str, value: str, mask: str | None = None) -> str:
        scale = self.constant(np.float32((len(attention.query.weight) // attention.n_head) ** -0.5))
        scores = self.op("MatMul", self.op("Mul", query, scale), self.op("Transpose", key, perm=[0, 1, 3, 2]))
        weights = self.op("Softmax", self.op("Add", scores, mask) if mask else scores, axis=-1)
        mixed = self.op("Transpose", self.op("MatMul", weights, value), perm=[0, 2, 1, 3])
        return self.linear(attention.out, self.op("Reshape", mixed, self.constant(np.array([0, 0, -1]))))

    def feed_forward(self, block: ResidualAttentionBlock, x: str) -> str:
        hidden = self.op("Gelu", self.linear(block.mlp[0], self.norm(block.mlp_ln, x)))
        return self.op("Add", x, self.linear(block.mlp[2], hidden))

    def output(self, name: str, shape: list[int | str]) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def model(self, inputs: list[Any]) -> Any:
        graph = helper.make_graph(self.nodes, "graph", inputs, self.outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)


def _cross_shape(block: ResidualAttentionBlock) -> list[int | str]:
    heads = block.cross_attn.n_head
    return [1, heads, "positions", len(block.cross_attn.query.weight) // heads]


def encoder_graph(network: Whisper) -> Any:
    graph, encoder = _Graph(), network.encoder
    x = graph.op("Transpose", graph.conv(encoder.conv2, graph.conv(encoder.conv1, "mel")), perm=[0, 2, 1])
    length = graph.op("Shape", x, start=1, end=2)
    places = graph.op("Slice", graph.constant(encoder.positional_embedding), graph.constant(np.array([0])), length)
    x = graph.op("Add", x, places)
    for block in encoder.blocks:
        seen = graph.norm(block.attn_ln, x)
        parts = (graph.split(block.attn, graph.linear(p, seen)) for p in _projections(block.attn))
        x = graph.feed_forward(block, graph.op("Add", x, graph.attend(block.attn, *parts)))
    x = graph.norm(encoder.ln_post, x)
    for index, block in enumerate(network.decoder.blocks):
        cross = block.cross_attn
        for kind, layer in (("key", cross.key), ("value", cross.value)):
            graph.split(cross, graph.linear(layer, x), name=f"cross_{kind}_{index}")
            graph.output(f"cross_{kind}_{index}", _cross_shape(block))
    mel = helper.make_tensor_value_info("mel", TensorProto.FLOAT, [1, network.dims.n_mels, "frames"])
    return graph.model([mel])


def _projections(attention: MultiHeadAttention) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    return attention.query, attention.key, attention.value


def decoder_graph(network: Whisper) -> Any:
    graph, decoder = _Graph(), network.decoder
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "new"])]
    embedding = graph.constant(decoder.token_embedding.weight)
    seen = graph.op("Shape", "past_key_0", start=2, end=3)
    total = graph.op("Add", seen, graph.op("Shape", "tokens", start=1, end=2))
    places = graph.op("Slice", graph.constant(decoder.positional_embedding), seen, total)
    x = graph.op("Add", graph.op("Gather", embedding, "tokens"), places)
    whole_mask = np.triu(np.full((network.dims.n_text_ctx,) * 2, -np.inf, np.float32), 1)
    mask = graph.op("Slice", graph.op("Slice", graph.constant(whole_mask), seen, total), *_first(graph, total))
    for index, block in enumerate(decoder.blocks):
        x = graph.op("Add", x, _text_attention(graph, block, index, x, mask))
        for kind in ("key", "value"):
            name = f"cross_{kind}_{index}"
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, _cross_shape(block)))
            shape = ["batch", block.attn.n_head, "past", len(block.attn.query.weight) // block.attn.n_head]
            inputs.append(helper.make_tensor_value_info(f"past_{kind}_{index}", TensorProto.FLOAT, shape))
        asked = graph.linear(block.cross_attn.query, graph.norm(block.cross_attn_ln, x))
        if block is decoder.blocks[-1]:
            graph.op("Identity", asked, name="audio_query")
            graph.output("audio_query", ["batch", "new", len(block.cross_attn.query.weight)])
        query = graph.split(block.cross_attn, asked)
        attended = graph.attend(block.cross_attn, query, f"cross_key_{index}", f"cross_value_{index}")
        x = graph.feed_forward(block, graph.op("Add", x, attended))
    last = graph.norm(decoder.ln, graph.op("Gather", x, graph.constant(np.array(-1)), axis=1))
    graph.op("MatMul", last, graph.op("Transpose", embedding, perm=[1, 0]), name="logits")
    graph.output("logits", ["batch", network.dims.n_vocab])
    return graph.model(inputs)


def _first(graph: _Graph, count: str) -> tuple[str, str, str]:
    """Slice's inputs for the first `count` columns."""
    return graph.constant(np.array([0])), count, graph.constant(np.array([1]))


def _text_attention(graph: _Graph, block: ResidualAttentionBlock, index: int, x: str, mask: str) -> str:
    """Attention to the text so far; its keys and values become outputs."""
    normed = graph.norm(block.attn_ln, x)
    query, key, value = (graph.split(block.attn, graph.linear(p, normed)) for p in _projections(block.attn))
    width = len(block.attn.query.weight) // block.attn.n_head
    together = []
    for kind, new in (("key", key), ("value", value)):
        name = graph.op("Concat", f"past_{kind}_{index}", new, axis=2, name=f"{kind}_{index}")
        graph.output(name, ["batch", block.attn.n_head, "total", width])
        together.append(name)
    return graph.attend(block.attn, query, *together, mask)
