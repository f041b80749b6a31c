"""decoder.onnx: one step of the decoder, from new tokens and caches to logits and longer caches."""

from dataclasses import dataclass

from onnx import TensorProto
from whisper.model import ResidualAttentionBlock, Whisper

from compression.export.onnx_runtime.embedding import token_table
from compression.export.onnx_runtime.graph import CONTRIB, Graph
from compression.export.onnx_runtime.layers import Builder, head_width
from compression.recipe.recipe import DecoderLayer, Recipe
from compression.techniques.compressed import Compressed


def decoder_graph(compressed: Compressed, recipe: Recipe) -> Graph:
    """The inputs and outputs are listed in docs/artifacts.md."""
    graph, network = Graph("decoder"), compressed.network
    build = Builder.of(graph, compressed, recipe, rows="one")
    decoder, vocabulary = network.decoder, network.decoder.token_embedding.num_embeddings
    tokens = graph.input("tokens", TensorProto.INT64, ("batch", "new"))
    embedding = token_table(build, compressed, recipe)
    step = _Step(build=build, shape=graph.op("Shape", tokens))
    ids = graph.op("Reshape", tokens, graph.integers(-1))
    x = step.reshaped(embedding.rows(ids), network.dims.n_text_state)
    layers = [layer for layer in recipe.decoder if layer]
    depth = len(decoder.blocks)
    caches = [step.caches(index, block, is_last=index == depth - 1) for index, block in enumerate(decoder.blocks)]
    x = build.add(x, step.positions(network, caches[0].past_key))
    for index, (block, layer) in enumerate(zip(decoder.blocks, layers, strict=True)):
        x = step.block(x, f"decoder.{index}", block, layer, caches[index])
    last = graph.op("Gather", x, graph.index(-1), axis=1)
    last = build.layer_norm(last, "decoder.ln", decoder.ln)
    graph.output(embedding.logits(last), "logits", ("batch", vocabulary))
    return graph


@dataclass(frozen=True, kw_only=True)
class _Caches:
    """Names of one layer's cached keys and values: of the text so far, and of the audio."""

    index: int
    is_last: bool
    past_key: str
    past_value: str
    cross_key: str
    cross_value: str


@dataclass(frozen=True, kw_only=True)
class _Step:
    """`shape`: (batch, new), the shape of the tokens."""

    build: Builder
    shape: str

    def caches(self, index: int, block: ResidualAttentionBlock, *, is_last: bool) -> _Caches:
        """The inputs of layer `index`."""
        heads, width = block.attn.n_head, head_width(block.attn)
        cross_heads, cross_width = block.cross_attn.n_head, head_width(block.cross_attn)
        past, cross = ("batch", heads, "past", width), (1, cross_heads, "positions", cross_width)
        graph = self.build.graph
        return _Caches(
            index=index,
            is_last=is_last,
            past_key=graph.input(f"past_key_{index}", TensorProto.FLOAT, past),
            past_value=graph.input(f"past_value_{index}", TensorProto.FLOAT, past),
            cross_key=graph.input(f"cross_key_{index}", TensorProto.FLOAT, cross),
            cross_value=graph.input(f"cross_value_{index}", TensorProto.FLOAT, cross),
        )

    def reshaped(self, x: str, width: int) -> str:
        """(batch, new, width)."""
        graph = self.build.graph
        return graph.op("Reshape", x, graph.op("Concat", self.shape, graph.integers(width), axis=0))

    def positions(self, network: Whisper, past_key: str) -> str:
        """The learned positions (new, n_text_state) of the new tokens."""
        graph = self.build.graph
        table = self.build.vector(network.decoder.positional_embedding)
        start = graph.op("Squeeze", graph.op("Shape", past_key, start=2, end=3))
        new = graph.op("Gather", self.shape, graph.index(1))
        steps = graph.op("Range", start, graph.op("Add", start, new), graph.index(1))
        rows = graph.op("Gather", graph.constant("decoder.positional_embedding", table), steps)
        return graph.cast(rows, TensorProto.FLOAT)

    def block(self, x: str, name: str, block: ResidualAttentionBlock, layer: DecoderLayer, caches: _Caches) -> str:
        """A decoder layer on x (batch, new, n_text_state)."""
        build = self.build
        x = build.add(x, self._text_attention(x, name, block, layer.attention_bits, caches))
        x = build.add(x, self._audio_attention(x, name, block, layer.attention_bits, caches))
        normed = build.layer_norm(x, f"{name}.mlp_ln", block.mlp_ln)
        return build.add(x, build.feed_forward(normed, f"{name}.mlp", block.mlp, layer.ffn_bits))

    def _text_attention(self, x: str, name: str, block: ResidualAttentionBlock, bits: int, caches: _Caches) -> str:
        """Each new token sees the cached ones, those before it and itself."""
        build, graph, attention = self.build, self.build.graph, block.attn
        normed = build.layer_norm(x, f"{name}.attn_ln", block.attn_ln)
        query, key, value = build.query_key_value(normed, f"{name}.attn", attention, bits)
        mixed, keys, values = graph.ops(
            "MultiHeadAttention",
            *(query, key, value, "", "", "", caches.past_key, caches.past_value),
            outputs=3,
            domain=CONTRIB,
            num_heads=attention.n_head,
            unidirectional=1,
        )
        shape = ("batch", attention.n_head, "length", head_width(attention))
        graph.output(keys, f"key_{caches.index}", shape)
        graph.output(values, f"value_{caches.index}", shape)
        return build.linear(mixed, f"{name}.attn.out", [attention.out], bits)

    def _audio_attention(self, x: str, name: str, block: ResidualAttentionBlock, bits: int, caches: _Caches) -> str:
        """The new tokens of the whole batch are so many queries to one audio, whose keys are thus never repeated."""
        build, graph, attention = self.build, self.build.graph, block.cross_attn
        width = attention.n_head * head_width(attention)
        normed = build.layer_norm(x, f"{name}.cross_attn_ln", block.cross_attn_ln)
        query = build.linear(normed, f"{name}.cross_attn.query", [attention.query], bits)
        flat = graph.op("Reshape", query, graph.integers(1, -1, width))
        if caches.is_last:
            flat = graph.shared_output("audio_query", (1, "queries", width))
        mixed = build.attend(flat, caches.cross_key, caches.cross_value, heads=attention.n_head)
        return build.linear(self.reshaped(mixed, width), f"{name}.cross_attn.out", [attention.out], bits)
