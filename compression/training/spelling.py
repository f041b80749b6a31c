"""Training a network with fewer tokens than the original: what both see is written in the tokens that it has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from whisper.model import Whisper

from compression.techniques.compressed import Vocabulary
from compression.training.batches import Batch, Batches, batch_of
from compression.whisper.tokenizer import text_tokens, tokenizer_of
from runtime.byte_pairs import byte_pair_pieces


class Spelling:
    """How a network with a shorter vocabulary writes what the original would.

    A text token that is gone is spelled with those that stayed, by the original's own byte pair encoding without the
    merges that lead to others; a token that is gone and no text, such as a timestamp, is left out. Where nothing is
    gone, all stays as it is. Tokens are ids of the original.
    """

    def __init__(self, network: Whisper, vocabulary: Vocabulary) -> None:
        texts, self._gone = text_tokens(tokenizer_of(network)), vocabulary.rows < 0
        ranks = {texts[token]: token for token in vocabulary.ids.tolist() if token < len(texts)}
        self._spelled = {
            token: [ranks[p] for p in byte_pair_pieces(texts[token], ranks)] if token < len(texts) else []
            for token in self._gone.nonzero().flatten().tolist()
        }
        respelled = [
            token for token, spelled in self._spelled.items() if spelled
        ]  # multilingual ones have an empty one
        self._respelled = torch.tensor(respelled, dtype=torch.int64)
        self._first = torch.tensor([self._spelled[token][0] for token in respelled], dtype=torch.int64)
        self._most = network.dims.n_text_ctx

    def of(self, tokens: Tensor) -> Tensor:
        """The same text in the tokens that stayed: (T,) int64 to (T',), at most as many as the decoder reads."""
        spelled = (self._spelled.get(token, [token]) for token in tokens.tolist())
        return torch.tensor([token for spelling in spelled for token in spelling], dtype=torch.int64)[: self._most]

    def folded(self, logits: Tensor) -> Tensor:
        """The original's logits (R, n_vocab) as those of a speaker who spells so: -inf for what is gone.

        A token that is gone gives its probability to the first one of its spelling, since a text that goes on with
        the one goes on with the other.
        """
        highest = logits.amax(-1, keepdim=True)
        given = (logits[:, self._respelled] - highest).exp()
        taken = torch.zeros_like(logits).index_add_(1, self._first.to(logits.device), given)
        return torch.logaddexp(logits, taken.log() + highest).masked_fill(self._gone.to(logits.device), -torch.inf)


@dataclass(frozen=True, kw_only=True)
class SpelledBatches:
    """Training data (see `Batches`) with its transcripts spelled so."""

    batches: Batches
    spelling: Spelling

    def plan(self, epoch: int) -> Sequence[tuple[int, ...]]:
        return self.batches.plan(epoch)

    def load(self, epoch: int, indices: tuple[int, ...]) -> Batch:
        return self._spelled(self.batches.load(epoch, indices))

    def held_out(self) -> Sequence[Batch]:
        return [self._spelled(batch) for batch in self.batches.held_out()]

    def _spelled(self, batch: Batch) -> Batch:
        return batch_of([replace(clip, tokens=self.spelling.of(clip.tokens)) for clip in batch.clips])
