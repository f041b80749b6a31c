"""A model that says what a rule tells it to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.audio import Floats
from runtime.decoding import Ids
from runtime.tokens import SpecialTokens, Vocabulary

WORDS = (b"IGE=", b"IGI=", b"IGM=", b"IGQ=", b"IGU=", b"IGY=")
"""Tokens 0 to 5 say " a" to " f"; 6 begins, 7 ends, 8 means no speech, 9 no timestamps."""
START, END, NO_SPEECH, NO_TIMESTAMPS = 6, 7, 8, 9

SPECIAL = SpecialTokens(
    start=START,
    end=END,
    no_timestamps=NO_TIMESTAMPS,
    no_speech=NO_SPEECH,
    transcribe=None,
    translate=None,
    suppressed=(START, NO_SPEECH, NO_TIMESTAMPS),
    begin_suppressed=(END,),
    languages=None,
)
VOCABULARY = Vocabulary(SPECIAL, [*WORDS, b"", b"", b"", b""])

Rule = Callable[[tuple[int, ...]], Sequence[float]]
"""Logits by the tokens seen so far."""


@dataclass(frozen=True, kw_only=True)
class FakeText:
    rule: Rule
    seen: tuple[tuple[int, ...], ...] = ((),)

    def step(self, tokens: Ids) -> "tuple[Floats, FakeText]":
        seen = tuple((*before, *new) for before, new in zip(self.seen, tokens.tolist(), strict=True))
        return np.array([self.rule(row) for row in seen], np.float32), FakeText(rule=self.rule, seen=seen)

    def attention(self, tokens: Sequence[int]) -> Floats | None:
        """It does not say what it listens to."""
        return None

    def head_attention(self, tokens: Sequence[int]) -> Floats | None:
        """Nor by head."""
        return None

    def rows(self, rows: Sequence[int]) -> "FakeText":
        return FakeText(rule=self.rule, seen=tuple(self.seen[row] for row in rows))


@dataclass
class FakeModel:
    """Says in every window what the rule says; counts the windows and their frames."""

    rule: Rule

    def __post_init__(self) -> None:
        self.frames: list[int] = []

    def encode(self, mel: Floats) -> FakeText:
        self.frames.append(mel.shape[1])
        return FakeText(rule=self.rule)
