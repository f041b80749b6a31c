"""The token embedding as ONNX operators: rows of tokens, and logits of all tokens."""

from dataclasses import dataclass, replace
from typing import Self

from compression.export.onnx_runtime.graph import Graph
from compression.export.onnx_runtime.kernels import look_up, multiply
from compression.export.onnx_runtime.layers import Builder
from compression.export.onnx_runtime.weights import Matrix, codes_of, stacked
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.grids import MixedMatrix

NAME = "decoder.token_embedding"


@dataclass(frozen=True, kw_only=True)
class TokenTable:
    """The rows of all tokens as one matrix."""

    graph: Graph
    matrix: Matrix

    def rows(self, ids: str) -> str:
        """Those of int64 ids (n,): float32 (n, K)."""
        return look_up(self.graph, ids, self.matrix)

    def logits(self, x: str) -> str:
        """x (batch, K) times the table's transpose: (batch, tokens)."""
        return multiply(self.graph, x, self.matrix, rows="one")


@dataclass(frozen=True, kw_only=True)
class MixedTable:
    """Two matrices: `finer` holds the `first` tokens and the `last` ones, `coarser` the `rest` between them."""

    graph: Graph
    finer: TokenTable
    coarser: TokenTable
    first: int
    rest: int
    last: int

    @classmethod
    def of(cls, build: Builder, mixed: MixedMatrix, bits: int) -> Self:
        """`bits`: of the coarser rows."""

        def table(name: str, part: str) -> TokenTable:
            quantised = getattr(mixed, part)
            codes = codes_of(quantised, replace(build.storage(bits).precision, weight_bits=quantised.bits))
            return TokenTable(graph=build.graph, matrix=Matrix(name=name, values=None, codes=codes, bias=None))

        return cls(
            graph=build.graph,
            finer=table(f"{NAME}.frequent", "finer"),
            coarser=table(NAME, "coarser"),
            first=mixed.grid.first,
            rest=mixed.grid.rest,
            last=len(mixed.finer.codes) - mixed.grid.first,
        )

    def rows(self, ids: str) -> str:
        """As of a `TokenTable`. Both tables are read, at some row of theirs where the token is in the other one."""
        graph, end = self.graph, self.graph.index(self.first + self.rest)
        is_last = graph.op("GreaterOrEqual", ids, end)
        behind = graph.op("Sub", ids, graph.index(self.rest))
        finer = graph.op("Where", is_last, behind, graph.op("Min", ids, graph.index(self.first - 1)))
        within = graph.op("Sub", ids, graph.index(self.first))
        coarser = graph.op("Clip", within, graph.index(0), graph.index(self.rest - 1))
        is_coarser = graph.op("Equal", within, coarser)
        chosen = graph.op("Unsqueeze", is_coarser, graph.integers(1))
        return graph.op("Where", chosen, self.coarser.rows(coarser), self.finer.rows(finer))

    def logits(self, x: str) -> str:
        """As of a `TokenTable`."""
        graph = self.graph
        finer, coarser = self.finer.logits(x), self.coarser.logits(x)
        sizes = graph.integers(self.first, self.last)
        start, end = graph.ops("Split", finer, sizes, outputs=2, axis=-1)
        return graph.op("Concat", start, coarser, end, axis=-1)


def token_table(build: Builder, compressed: Compressed, recipe: Recipe) -> TokenTable | MixedTable:
    """The table of a compressed network, stored once for look-up and logits."""
    bits = recipe.embedding_bits
    if compressed.mixed_embedding:
        return MixedTable.of(build, compressed.mixed_embedding, bits)
    module = compressed.network.decoder.token_embedding
    return TokenTable(graph=build.graph, matrix=stacked(NAME, [module], build.storage(bits)))
