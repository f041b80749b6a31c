"""A clip being heard, part by part: the rule of `runtime.unheard` for what scores, in torch and on artifacts."""

from dataclasses import replace

from torch import Tensor

from evaluators.accuracy.decoding import Clip, Hypothesis
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import Utterance
from runtime.audio import SAMPLE_RATE, Floats
from runtime.pieces import HOP_S
from runtime.unheard import unheard


class Hearing:
    """`parts`: what was said so far. `start`: the sample that the next part begins with.

    `is_whole`: nothing is left to be heard. The limit of tokens is that of all parts together.
    """

    def __init__(self, utterance: Utterance, max_tokens: int, draft: tuple[int, ...] = ()) -> None:
        self.utterance = utterance
        self.parts: list[Hypothesis] = []
        self.start = 0
        self.is_whole = False
        self._max_tokens = max_tokens
        self._draft = draft

    @property
    def tokens_left(self) -> int:
        return self._max_tokens - sum(len(part.tokens) for part in self.parts)

    def clip(self, features: Tensor) -> Clip:
        """The next part, for `evaluators.accuracy.decoding.decode`."""
        return Clip(
            features=features,
            language=language_of(self.utterance),
            max_tokens=self.tokens_left,
            audio_s=self.utterance.duration_s - self.start / SAMPLE_RATE,
            draft=self._draft[self._max_tokens - self.tokens_left :],
        )

    def take(self, said: Hypothesis, energy: Floats) -> None:
        """Add a part, without what comes behind a sound that it leaves out. A loop or the limit ends a hearing.

        `energy`: of the whole clip (`runtime.pieces.energies`).
        """
        first = round(self.start / SAMPLE_RATE / HOP_S)
        rest = None if said.listening is None else unheard(energy[first:], said.listening)
        if rest is None or said.ending == "loop" or len(said.tokens) >= self.tokens_left:
            self.parts.append(said)
            self.is_whole = True
            return
        self.parts.append(replace(said, text=rest.text, tokens=said.tokens[: rest.tokens]))
        self.start += round(rest.start_s * SAMPLE_RATE)
