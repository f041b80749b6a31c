"""A student of another architecture: a bidirectional LSTM that listens, and one that attends and spells.

After Chan et al. 2016, "Listen, attend and spell", with Whisper's tokens as its letters. It learns from a Whisper by
the same trainer and losses as a compressed one: its logits and its encoder's output, 50 positions a second as
Whisper's, are compared with the teacher's.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from compression.training.batches import Batch
from compression.training.whisper_student import StudentOutput

STACKED_FRAMES = 2
"""Mel frames to a position of the encoder: 20 ms, as behind Whisper's second convolution."""


class LstmStudent(nn.Module):
    """`width`: of the embedding, the states of the speller and, both directions together, of the listener."""

    def __init__(self, *, n_mels: int, n_vocab: int, width: int, layers: int) -> None:
        super().__init__()
        self.listener = nn.LSTM(
            STACKED_FRAMES * n_mels, width // 2, num_layers=layers, bidirectional=True, batch_first=True
        )
        self.listener_ln = nn.LayerNorm(width)
        self.token_embedding = nn.Embedding(n_vocab, width)
        nn.init.normal_(self.token_embedding.weight, std=width**-0.5)
        self.speller = nn.LSTM(width, width, batch_first=True)
        self.gist = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.mixed = nn.Linear(2 * width, width)

    def encode(self, mel: Tensor) -> Tensor:
        """(batch, n_mels, frames) -> (batch, frames // 2, width)."""
        frames = mel.transpose(1, 2)
        stacked = frames.unflatten(1, (-1, STACKED_FRAMES)).flatten(2)
        encoded: Tensor = self.listener_ln(self.listener(stacked)[0])
        return encoded

    def spell(self, tokens: Tensor, encoded: Tensor) -> Tensor:
        """Tokens (batch, length) -> states (batch, length, width) that times the embedding are logits of the next."""
        embedded = self.token_embedding(tokens) * self.query.in_features**0.5  # its weights are of the outputs' size
        gist = torch.tanh(self.gist(encoded.mean(1))).unsqueeze(0)  # the speller's first state: what was heard in all
        states = self.speller(embedded, (gist, torch.zeros_like(gist)))[0]
        seen = functional.scaled_dot_product_attention(self.query(states), encoded, encoded)
        return torch.tanh(self.mixed(torch.cat([states, seen], dim=-1)))

    def logits(self, states: Tensor) -> Tensor:
        """(..., width) -> (..., n_vocab)."""
        return states @ self.token_embedding.weight.T

    def forward(self, batch: Batch) -> StudentOutput:
        encoded = self.encode(batch.mel)
        states = self.spell(batch.inputs, encoded)[batch.rows]
        return StudentOutput(encoded=encoded, logits=self.logits(states))
