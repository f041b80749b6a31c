"""How far a network's next-token distributions are from the original's, as a value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """Kullback-Leibler divergences from the original, teacher-forced on its own transcripts of some clips.

    `nats`: of each clip, the sum over its tokens; `tokens`: how many those are. At least one clip.
    """

    nats: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Nats a token, all clips together."""
        return sum(self.nats) / sum(self.tokens)

    @property
    def clips(self) -> int:
        return len(self.nats)

    def of_first(self, clips: int) -> Self:
        """That of the first so many clips."""
        return type(self)(nats=self.nats[:clips], tokens=self.tokens[:clips])

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, int]]) -> Self:
        """Of (nats, tokens) by clip."""
        nats, tokens = zip(*pairs, strict=True)
        return cls(nats=nats, tokens=tokens)
