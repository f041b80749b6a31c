"""Whisper's sub-layers as ONNX operators, in the order in which openai-whisper computes them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy.typing as npt
import torch
from torch import nn
from whisper.model import MultiHeadAttention

from compression.export.onnx_runtime.graph import CONTRIB, Graph
from compression.export.onnx_runtime.kernels import Rows
from compression.export.onnx_runtime.rounded import linear
from compression.export.onnx_runtime.weights import Storage
from compression.recipe.kernels import FLOAT_BITS, Precision
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.grids import QuantisedMatrix


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Adds the sub-layers of one stack, whose linear layers see `rows` at a time.

    `precision`: of its linear layers, which have weight bits of their own. `half_vectors`, `codes`: as in `Storage`.
    """

    graph: Graph
    rows: Rows
    precision: Precision
    half_vectors: bool
    codes: Mapping[nn.Module, QuantisedMatrix]

    @classmethod
    def of(cls, graph: Graph, compressed: Compressed, recipe: Recipe, *, rows: Rows) -> Self:
        """For what was compressed by the recipe."""
        return cls(
            graph=graph,
            rows=rows,
            precision=recipe.precision(FLOAT_BITS),
            half_vectors=recipe.vector_bits < FLOAT_BITS,
            codes=compressed.codes,
        )

    def storage(self, bits: int) -> Storage:
        precision = replace(self.precision, weight_bits=bits)
        return Storage(precision=precision, half_vectors=self.half_vectors, codes=self.codes)

    def linear(self, x: str, name: str, modules: list[nn.Module], bits: int) -> str:
        """Linear layers with the same input as one; see `rounded.linear`."""
        return linear(self.graph, x, name, modules, self.storage(bits), rows=self.rows)

    def vector(self, values: torch.Tensor) -> npt.NDArray[Any]:
        """A bias, normalisation or table of positions as it is stored."""
        return values.detach().numpy().astype(self.storage(FLOAT_BITS).vector_type)

    def layer_norm(self, x: str, name: str, module: nn.LayerNorm) -> str:
        weight = self.graph.floats(f"{name}.weight", self.vector(module.weight))
        bias = self.graph.floats(f"{name}.bias", self.vector(module.bias))
        return self.graph.op("LayerNormalization", x, weight, bias, name=name, epsilon=module.eps)

    def add(self, x: str, y: str) -> str:
        return self.graph.op("Add", x, y)

    def split(self, x: str, parts: int) -> tuple[str, ...]:
        """Equal parts of the last axis."""
        return self.graph.ops("Split", x, outputs=parts, axis=-1, num_outputs=parts)

    def by_head(self, x: str, *, heads: int, width: int) -> str:
        """(1, rows, heads * width) -> (1, heads, rows, width)."""
        rows = self.graph.op("Reshape", x, self.graph.integers(1, -1, heads, width))
        return self.graph.op("Transpose", rows, perm=[0, 2, 1, 3])

    def query_key_value(self, x: str, name: str, attention: MultiHeadAttention, bits: int) -> tuple[str, ...]:
        """All three projections in one multiplication: each (batch, rows, heads * width)."""
        modules = [attention.query, attention.key, attention.value]
        return self.split(self.linear(x, f"{name}.query_key_value", modules, bits), 3)

    def feed_forward(self, x: str, name: str, mlp: nn.Sequential, bits: int) -> str:
        hidden = self.factors(x, f"{name}.0", mlp[0], bits)
        return self.factors(self.graph.op("Gelu", hidden), f"{name}.2", mlp[2], bits)

    def factors(self, x: str, name: str, layer: nn.Module, bits: int) -> str:
        """A linear layer, or its two low-rank factors one after the other."""
        if not isinstance(layer, nn.Sequential):
            return self.linear(x, name, [layer], bits)
        for place, factor in layer.named_children():
            x = self.linear(x, f"{name}.{place}", [factor], bits)
        return x

    def attend(self, query: str, key: str, value: str, *, heads: int) -> str:
        """softmax(q k^T / sqrt(width)) v: (batch, rows, heads * width).

        Keys and values are shaped like the query, or (batch, heads, rows, width). ONNX Runtime's operator works in
        blocks: the whole matrix of scores, 54 MB for a window of 30 s of tiny, is never in memory.
        """
        return self.graph.op("MultiHeadAttention", query, key, value, domain=CONTRIB, num_heads=heads)


def head_width(attention: MultiHeadAttention) -> int:
    """Columns of the query, key and value of one head."""
    return len(attention.query.weight) // attention.n_head
