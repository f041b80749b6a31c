"""decoder.onnx: one step of the decoder, from new tokens and caches to logits and longer caches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnx import TensorProto
from whisper.model import ResidualAttentionBlock

from compression.export.onnx_runtime.embedding import MixedTable, TokenTable, token_table
from compression.export.onnx_runtime.graph import CONTRIB, Graph
from compression.export.onnx_runtime.layers import Builder, head_width
from compression.recipe.recipe import DecoderLayer, Recipe
from compression.techniques.compressed import Compressed


def decoder_graph(compressed: Compressed, recipe: Recipe) -> Graph:
    """The inputs and outputs are listed in docs/artifacts.md."""
    graph, network = Graph("decoder"), compressed.network
    build = Builder.of(graph, compressed, recipe, rows="one")
    tokens = graph.input("tokens", TensorProto.INT64, ("batch", "new"))
    caches = [_cache_inputs(graph, index, block) for index, block in enumerate(network.decoder.blocks)]
    start = graph.op("Squeeze", graph.op("Shape", caches[0].past_key, start=2, end=3))
    step = DecoderStep(build=build, compressed=compressed, recipe=recipe, query_output="audio_query")
    x, texts = step.output(tokens, start, caches)
    for index, (names, block) in enumerate(zip(texts, network.decoder.blocks, strict=True)):
        for name, kind in zip(names, ("key", "value"), strict=True):
            graph.output(name, f"{kind}_{index}", ("batch", block.attn.n_head, "length", head_width(block.attn)))
    last = graph.op("Gather", x, graph.index(-1), axis=1)
    graph.output(step.logits(last), "logits", ("batch", network.decoder.token_embedding.num_embeddings))
    return graph


@dataclass(frozen=True, kw_only=True)
class LayerCaches:
    """Names of what one layer attends to.

    `past_key`, `past_value`: of the text so far, (batch, heads, past, width). `cross_key`, `cross_value`: of the
    audio, (1, heads, positions, width).
    """

    past_key: str
    past_value: str
    cross_key: str
    cross_value: str


def _cache_inputs(graph: Graph, index: int, block: ResidualAttentionBlock) -> LayerCaches:
    past = ("batch", block.attn.n_head, "past", head_width(block.attn))
    cross = (1, block.cross_attn.n_head, "positions", head_width(block.cross_attn))
    return LayerCaches(
        past_key=graph.input(f"past_key_{index}", TensorProto.FLOAT, past),
        past_value=graph.input(f"past_value_{index}", TensorProto.FLOAT, past),
        cross_key=graph.input(f"cross_key_{index}", TensorProto.FLOAT, cross),
        cross_value=graph.input(f"cross_value_{index}", TensorProto.FLOAT, cross),
    )


@dataclass(frozen=True, kw_only=True)
class DecoderStep:
    """One step of a compressed decoder. `query_output`: as in `_Layer`, of the last layer."""

    build: Builder
    compressed: Compressed
    recipe: Recipe
    query_output: str = ""

    @cached_property
    def _embedding(self) -> TokenTable | MixedTable:
        return token_table(self.build, self.compressed, self.recipe)

    def output(self, tokens: str, start: str, caches: Sequence[LayerCaches]) -> tuple[str, list[tuple[str, str]]]:
        """The last layer's output (batch, new, n_text_state) for new tokens (batch, new), the first at position
        `start`; and each layer's keys and values of the text with them, (batch, heads, past + new, width).
        """
        build, graph, network = self.build, self.build.graph, self.compressed.network
        shape = graph.op("Shape", tokens)
        ids = graph.op("Reshape", tokens, graph.integers(-1))
        x = _reshaped(graph, self._embedding.rows(ids), shape, network.dims.n_text_state)
        x = build.add(x, self._positions(start, shape))
        texts = []
        for layer in self._layers(shape, caches):
            x, text = layer.output(x)
            texts.append(text)
        return x, texts

    def logits(self, x: str) -> str:
        """Those of rows of `output` (rows, n_text_state): (rows, vocabulary)."""
        return self._embedding.logits(self.build.layer_norm(x, "decoder.ln", self.compressed.network.decoder.ln))

    def _positions(self, start: str, shape: str) -> str:
        """The learned positions (new, n_text_state) of the new tokens."""
        graph, positions = self.build.graph, self.compressed.network.decoder.positional_embedding
        new = graph.op("Gather", shape, graph.index(1))
        steps = graph.op("Range", start, graph.op("Add", start, new), graph.index(1))
        table = graph.constant("decoder.positional_embedding", self.build.vector(positions))
        return graph.cast(graph.op("Gather", table, steps), TensorProto.FLOAT)

    def _layers(self, shape: str, caches: Sequence[LayerCaches]) -> "Iterator[_Layer]":
        blocks, genes = self.compressed.network.decoder.blocks, [layer for layer in self.recipe.decoder if layer]
        for index, (block, layer) in enumerate(zip(blocks, genes, strict=True)):
            yield _Layer(
                build=self.build,
                name=f"decoder.{index}",
                block=block,
                genes=layer,
                caches=caches[index],
                shape=shape,
                query_output=self.query_output if index == len(blocks) - 1 else "",
            )


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """`shape`: (batch, new), of the tokens. `query_output`: a name for its queries to the audio, as an output of the
    graph; "" where they are none.
    """

    build: Builder
    name: str
    block: ResidualAttentionBlock
    genes: DecoderLayer
    caches: LayerCaches
    shape: str
    query_output: str

    def output(self, x: str) -> tuple[str, tuple[str, str]]:
        """The layer on x (batch, new, n_text_state), and its keys and values of the text."""
        build, block, name = self.build, self.block, self.name
        mixed, text = self._text_attention(build.layer_norm(x, f"{name}.attn_ln", block.attn_ln))
        x = build.add(x, mixed)
        x = build.add(x, self._audio_attention(build.layer_norm(x, f"{name}.cross_attn_ln", block.cross_attn_ln)))
        normed = build.layer_norm(x, f"{name}.mlp_ln", block.mlp_ln)
        return build.add(x, build.feed_forward(normed, f"{name}.mlp", block.mlp, self.genes.ffn_bits)), text

    def _text_attention(self, x: str) -> tuple[str, tuple[str, str]]:
        """Each new token sees the cached ones, those before it and itself."""
        build, attention, bits = self.build, self.block.attn, self.genes.attention_bits
        query, key, value = build.query_key_value(x, f"{self.name}.attn", attention, bits)
        mixed, keys, values = build.graph.ops(
            "MultiHeadAttention",
            *(query, key, value, "", "", "", self.caches.past_key, self.caches.past_value),
            outputs=3,
            domain=CONTRIB,
            num_heads=attention.n_head,
            unidirectional=1,
        )
        return build.linear(mixed, f"{self.name}.attn.out", [attention.out], bits), (keys, values)

    def _audio_attention(self, x: str) -> str:
        """The new tokens of the whole batch are so many queries to one audio, whose keys are thus never repeated."""
        build, graph, attention = self.build, self.build.graph, self.block.cross_attn
        name, bits, width = f"{self.name}.cross_attn", self.genes.attention_bits, len(attention.query.weight)
        query = build.linear(x, f"{name}.query", [attention.query], bits)
        flat = graph.op("Reshape", query, graph.integers(1, -1, width))
        if self.query_output:
            flat = graph.shared_output(self.query_output, (1, "queries", width))
        mixed = build.attend(flat, self.caches.cross_key, self.caches.cross_value, heads=attention.n_head)
        return build.linear(_reshaped(graph, mixed, self.shape, width), f"{name}.out", [attention.out], bits)


def _reshaped(graph: Graph, x: str, shape: str, width: int) -> str:
    """(batch, new, width), where `shape` is (batch, new)."""
    return graph.op("Reshape", x, graph.op("Concat", shape, graph.integers(width), axis=0))
