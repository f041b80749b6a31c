"""What a training step sees."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

IGNORED = 0
"""Fills short token sequences up; its places take no part in any loss."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip: `mel` (n_mels, frames), `tokens` (T,) int64 with the prompt, whose length is `prompt_length`.

    `key` names clip and copy: the same key always means the same values.
    """

    key: str
    mel: Tensor
    tokens: Tensor
    prompt_length: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B clips of one window. `mel` (B, n_mels, frames); `tokens` (B, L) int64, short ones filled up with IGNORED.

    `rows` (B, L - 1) is true where the next token is to be predicted; `targets` (R,) are those tokens.
    """

    clips: tuple[Clip, ...]
    mel: Tensor
    tokens: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def inputs(self) -> Tensor:
        """(B, L - 1): what the decoder sees."""
        return self.tokens[:, :-1]

    @property
    def targets(self) -> Tensor:
        return self.tokens[:, 1:][self.rows]

    def to(self, device: torch.device) -> "Batch":
        return replace(self, mel=self.mel.to(device), tokens=self.tokens.to(device), rows=self.rows.to(device))


def batch_of(clips: Sequence[Clip]) -> Batch:
    """Clips of equal windows as one batch."""
    tokens = torch.nn.utils.rnn.pad_sequence([c.tokens for c in clips], batch_first=True, padding_value=IGNORED)
    positions = torch.arange(1, tokens.shape[1])
    rows = torch.stack([(positions >= c.prompt_length) & (positions < len(c.tokens)) for c in clips])
    return Batch(clips=tuple(clips), mel=torch.stack([c.mel for c in clips]), tokens=tokens, rows=rows)


class Batches(Protocol):
    """Training data: which clips come together in an epoch, and what they are.

    Both follow from their arguments and a seed alone, so that a training that goes on sees what it would have seen.
    """

    def plan(self, epoch: int) -> Sequence[tuple[int, ...]]:
        """The epoch's batches, each as indices of clips."""

    def load(self, epoch: int, indices: tuple[int, ...]) -> Batch:
        """The clips in the epoch's copy."""

    def held_out(self) -> Sequence[Batch]:
        """Batches that training never sees, as recorded."""
