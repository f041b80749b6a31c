"""decoder.onnx: one step of the decoder in the form that sherpa-onnx calls, which binds inputs by their position."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto
from whisper.model import ResidualAttentionBlock

from compression.export.onnx_runtime.decoder import DecoderStep, LayerCaches
from compression.export.onnx_runtime.graph import Graph
from compression.export.onnx_runtime.layers import Builder, head_width
from compression.export.sherpa_onnx.encoder import joined_outputs
from compression.export.vocabulary import KeptTokens
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed

NO_SPEECH = 0.6
"""openai-whisper's `no_speech_threshold`; it asks besides for a mean log-probability, which is unknown at the start."""
END = 2**31 - 1


def decoder_graph(compressed: Compressed, recipe: Recipe, kept: KeptTokens) -> Graph:
    """Tokens, caches and `offset` (tokens that the decoder has seen) to logits (1, 1, vocabulary) and longer caches.

    The caches (1, heads of all layers, seen, width) grow with the text; sherpa-onnx passes them on as they are. At the
    start they are its zeros (n_text_layer, 1, n_text_ctx, n_text_state), of which none is read. sherpa-onnx takes the
    largest logit, without rules of its own, so the rules of `whisper.decode` are here.
    """
    graph, network = Graph("decoder"), compressed.network
    build = Builder.of(graph, compressed, recipe, rows="one")
    tokens = graph.input("tokens", TensorProto.INT64, (1, "new"))
    caches = Caches(graph=graph, blocks=tuple(network.decoder.blocks))
    layers = caches.inputs()
    start = graph.op("Squeeze", caches.offset)
    step = DecoderStep(build=build, compressed=compressed, recipe=recipe)
    x, texts = step.output(tokens, start, layers)
    logits = _Rules(graph=graph, step=step, kept=kept).logits(x, start)
    vocabulary = network.decoder.token_embedding.num_embeddings
    graph.output(graph.op("Unsqueeze", logits, graph.integers(1)), "logits", (1, 1, vocabulary))
    joined_outputs(graph, texts, ("out_self_k", "out_self_v"), (1, "heads", "length", "width"))
    return graph


@dataclass(frozen=True, kw_only=True)
class Caches:
    """Those of all layers in four inputs."""

    graph: Graph
    blocks: tuple[ResidualAttentionBlock, ...]

    offset: str = "offset"

    def inputs(self) -> list[LayerCaches]:
        """By layer."""
        graph, width = self.graph, head_width(self.blocks[0].attn)
        own = [block.attn.n_head for block in self.blocks]
        cross = [block.cross_attn.n_head for block in self.blocks]
        selves = [graph.input(f"self_{kind}", TensorProto.FLOAT, ("a", "b", "seen", "c")) for kind in "kv"]
        audio = (1, sum(cross), "positions", width)
        crosses = [graph.input(f"cross_{kind}", TensorProto.FLOAT, audio) for kind in "kv"]
        graph.input(self.offset, TensorProto.INT64, (1,))
        texts = [self._split(self._seen(name, sum(own), width), own) for name in selves]
        audios = [self._split(name, cross) for name in crosses]
        return [
            LayerCaches(past_key=key, past_value=value, cross_key=cross_key, cross_value=cross_value)
            for key, value, cross_key, cross_value in zip(*texts, *audios, strict=True)
        ]

    def _seen(self, cache: str, heads: int, width: int) -> str:
        """(1, heads, offset, width), also of sherpa-onnx's zeros, whose shape is another one."""
        graph = self.graph
        seen = graph.op("Slice", cache, graph.integers(0), self.offset, graph.integers(2))
        shape = graph.op("Concat", graph.integers(1, heads), self.offset, graph.integers(width), axis=0)
        return graph.op("Reshape", seen, shape, allowzero=1)

    def _split(self, cache: str, heads: Sequence[int]) -> tuple[str, ...]:
        if len(heads) == 1:
            return (cache,)
        return self.graph.ops("Split", cache, self.graph.integers(*heads), outputs=len(heads), axis=1)


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """Tokens that are never decoded, or not first; and no text where the prompt's first token foresees no speech."""

    graph: Graph
    step: DecoderStep
    kept: KeptTokens

    def logits(self, x: str, start: str) -> str:
        """(1, vocabulary) after the last of x (1, new, n_text_state), with -inf for what must not be decoded there."""
        graph = self.graph
        is_start = graph.op("Equal", start, graph.index(0))
        all_logits = self.step.logits(graph.op("Squeeze", self._rows(x, is_start), graph.integers(0)))
        logits = graph.op("Slice", all_logits, graph.integers(-1), graph.integers(END), graph.integers(0))
        is_silent = graph.op("And", is_start, self._foresees_no_speech(all_logits))
        logits = self._without(logits, self.kept.suppressed)
        is_speech = graph.op("And", is_start, graph.op("Not", is_silent))
        logits = self._without(logits, self.kept.begin_suppressed, where=is_speech)
        raised = graph.op("Where", is_silent, graph.scalar(np.inf), self._gathered(logits, [self._end]))
        return graph.op("ScatterElements", logits, self._ids([self._end]), raised, axis=1)

    @property
    def _end(self) -> int:
        return self.kept.row(self.kept.tokenizer.eot)

    def _rows(self, x: str, is_start: str) -> str:
        """The last row of x; of a whole prompt every one."""
        first = self.graph.op("Where", is_start, self.graph.integers(0), self.graph.integers(-1))
        return self.graph.op("Slice", x, first, self.graph.integers(END), self.graph.integers(1))

    def _foresees_no_speech(self, logits: str) -> str:
        """Whether the probability of the no-speech token after the start token, the first row, is above its limit."""
        graph, row = self.graph, self.kept.row(self.kept.tokenizer.no_speech)
        probabilities = graph.op("Softmax", graph.op("Gather", logits, graph.index(0)))
        return graph.op("Greater", graph.op("Gather", probabilities, graph.index(row)), graph.scalar(NO_SPEECH))

    def _without(self, logits: str, tokens: Sequence[int], *, where: str = "") -> str:
        """-inf for the tokens, only if `where`, a truth value, holds where it is given."""
        if not tokens:
            return logits
        ids = self._ids(tokens)
        never = self.graph.op("Expand", self.graph.scalar(-np.inf), self.graph.op("Shape", ids))
        if where:
            never = self.graph.op("Where", where, never, self._gathered(logits, tokens))
        return self.graph.op("ScatterElements", logits, ids, never, axis=1)

    def _gathered(self, logits: str, tokens: Sequence[int]) -> str:
        return self.graph.op("GatherElements", logits, self._ids(tokens), axis=1)

    def _ids(self, tokens: Sequence[int]) -> str:
        """(1, n)."""
        return self.graph.op("Unsqueeze", self.graph.integers(*tokens), self.graph.integers(0))
