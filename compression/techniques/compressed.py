"""What compressing gives, as a value: the network, the codes of its matrices, the tokens that it has."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from whisper.model import Whisper

from compression.techniques.grids import MixedMatrix, QuantisedMatrix


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """The tokens that a network has, which still speaks in the ids of the original.

    `ids` (rows,) int64: the original's id of each row of the token embedding, ascending. `rows` (n_vocab,) int64: the
    row of each of the original's ids; -1 where it has none. Both on the CPU.
    """

    ids: Tensor
    rows: Tensor

    @classmethod
    def of(cls, ids: Tensor, *, size: int) -> Self:
        """Those of an original vocabulary of `size` tokens."""
        rows = torch.full((size,), -1)
        rows[ids] = torch.arange(len(ids))
        return cls(ids=ids, rows=rows)

    @classmethod
    def whole(cls, size: int) -> Self:
        return cls.of(torch.arange(size), size=size)

    def kept_rows(self, ids: Sequence[int]) -> Tensor:
        """The rows of those ids that have one."""
        rows = self.rows[list(ids)]
        return rows[rows >= 0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Compressed:
    """A network as `compress` makes it; its weights are float32 values on the grids that an artifact stores.

    `matrices`: the codes of each weight on an integer grid, (outputs, everything else), by its module's name.
    `mixed_embedding`: those of the token embedding, which is then not among them, where some tokens have more bits.
    """

    network: Whisper
    matrices: Mapping[str, QuantisedMatrix]
    vocabulary: Vocabulary
    mixed_embedding: MixedMatrix | None = None

    @classmethod
    def original(cls, network: Whisper) -> Self:
        """A network as it is: all tokens, no integers."""
        return cls(network=network, matrices={}, vocabulary=Vocabulary.whole(network.dims.n_vocab))

    def on(self, compute: torch.device) -> Self:
        """The same on a device; a network of its own if it is elsewhere now."""
        if self.network.device == compute:
            return self
        matrices = {name: matrix.to(compute) for name, matrix in self.matrices.items()}
        mixed = self.mixed_embedding and self.mixed_embedding.to(compute)
        network = copy.deepcopy(self.network).to(compute)
        return replace(self, network=network, matrices=matrices, mixed_embedding=mixed)

    @property
    def codes(self) -> dict[nn.Module, QuantisedMatrix]:
        """The same as `matrices`, by module."""
        return {self.network.get_submodule(name): matrix for name, matrix in self.matrices.items()}
