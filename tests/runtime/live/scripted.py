"""A transcriber whose decoder says, after the words that are final, what a script tells it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.artifact import Artifact
from runtime.audio import SAMPLE_RATE, Floats
from runtime.decoding import Ids, PromptedWindow, open_window
from runtime.transcribe import Transcriber
from tests.runtime.fakes import END, VOCABULARY, FakeModel

Script = Sequence[Sequence[int]]
"""For each pass the tokens that follow the final ones; 0 to 5 say " a" to " f"."""


@dataclass(frozen=True, kw_only=True)
class ScriptedText:
    """Says `rest` after the prompt, one word each tenth of a second."""

    rest: tuple[int, ...]
    begun: int
    seen: tuple[int, ...] = ()

    def step(self, tokens: Ids) -> "tuple[Floats, ScriptedText]":
        seen = (*self.seen, *tokens[0].tolist())
        place = len(seen) - 2 - self.begun
        token = self.rest[place] if 0 <= place < len(self.rest) else END
        logits = np.zeros((1, VOCABULARY.size), np.float32)
        logits[0, token] = 50
        return logits, ScriptedText(rest=self.rest, begun=self.begun, seen=seen)

    def rows(self, rows: Sequence[int]) -> "ScriptedText":
        return self

    def head_attention(self, tokens: Sequence[int]) -> Floats:
        attention = np.full((1, len(tokens), 1500), 1e-3, np.float32)
        for row in range(1, len(tokens)):
            attention[0, row, 5 * (row - 1) : 5 * row if row < len(tokens) - 1 else None] = 1
        return attention

    def attention(self, tokens: Sequence[int]) -> Floats | None:
        return None


class ScriptedTranscriber(Transcriber):
    """Counts its passes; `prefixes`: with which final tokens each began, `heard_s`: how much audio it heard."""

    def __init__(self, script: Script) -> None:
        artifact = Artifact(
            folder=Path(), model="scripted", recipe_id="0", n_mels=80, n_text_ctx=448, window_s=5, vocabulary=VOCABULARY
        )
        super().__init__(FakeModel(lambda _: [0.0]), artifact)
        self._script = list(script)
        self.prefixes: list[tuple[int, ...]] = []
        self.heard_s: list[float] = []

    def hear(
        self,
        samples: Floats,
        *,
        language: str | None,
        task: str,
        said: Sequence[int] = (),
        previous: Sequence[int] = (),
    ) -> PromptedWindow | None:
        rest = self._script[min(len(self.prefixes), len(self._script) - 1)]
        self.prefixes.append(tuple(said))
        self.heard_s.append(len(samples) / SAMPLE_RATE)
        text = ScriptedText(rest=tuple(rest), begun=len(said))
        return open_window(text, VOCABULARY, language="en", task="transcribe", said=said)
