"""A stretch of speech that grows: decoded again and again, its words final where two decodings agree."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from runtime.audio import SAMPLE_RATE, Floats
from runtime.decoding import Decoded, DecodingOptions, PromptedWindow, decode, timed_words
from runtime.errors import ArtifactError
from runtime.live.local_agreement import LocalAgreement
from runtime.pieces import HOP_S, energies, quietest
from runtime.transcribe import INVENTED_AVG_LOGPROB, Transcriber, is_invented, is_poor
from runtime.unheard import Unheard
from runtime.words import UNSPACED_LANGUAGES, Word, is_said, word_slices

TOKENS_PER_S, FEWEST_TOKENS = 10, 10
"""More tokens than that for each second without final words, and for the first, are a loop."""
BEHIND_S = 0.2
"""A hypothesis has heard all that was spoken when it heard so much behind it."""
CUT_SEARCHED_S = 1.0


@dataclass(frozen=True, kw_only=True)
class _FinalWord:
    """`tokens`: how the decoder spelled it. Times are those of the stream."""

    tokens: tuple[int, ...]
    word: Word


@dataclass(frozen=True, kw_only=True)
class _Hypothesis:
    """What follows the words that were final before. `spans`: of `tokens`, those of each word that is not final yet."""

    opening: PromptedWindow
    said: Decoded
    tokens: tuple[int, ...]
    spans: tuple[slice, ...]

    def after(self, token: int, words: int) -> "_Hypothesis":
        """The same, when so many words are final, and all before the token: signs left over go to the next word."""
        spans = list(self.spans[words:])
        if spans:
            spans[0] = slice(token, spans[0].stop)
        elif token < len(self.tokens):
            spans = [slice(token, len(self.tokens))]
        return replace(self, spans=tuple(spans))


class GrowingWindow:
    """One segment of a stream, from the first sound of speech to a pause.

    The decoder begins each text with the words that are final: none is ever revised, and they cost one step together.
    """

    def __init__(  # noqa: PLR0913 - as `Transcriber.transcribe`
        self,
        transcriber: Transcriber,
        samples: Floats,
        *,
        start: int,
        language: str | None,
        task: str,
        previous: Sequence[int] = (),
    ) -> None:
        """`start`: where in the stream the 16 kHz audio (samples,) begins. Others as `Transcriber.hear`."""
        self.start, self.samples, self.language = start, samples, language
        self.decoded_s = 0.0
        self._transcriber, self._task, self._previous = transcriber, task, previous
        self._vocabulary = transcriber.artifact.vocabulary
        self._final: list[_FinalWord] = []
        self._latest: _Hypothesis | None = None
        self._agreement = LocalAgreement()
        self._ended_s = start / SAMPLE_RATE

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    @property
    def tentative(self) -> str:
        """What may follow the final words."""
        return "".join(self._text(span) for span in self._latest.spans) if self._latest else ""

    def grow(self, samples: Floats) -> None:
        """Take in what follows (samples,)."""
        self.samples = np.concatenate([self.samples, samples])

    def decode_again(self, *, spoken_s: float, max_lag_s: float | None = None) -> tuple[Word, ...]:
        """Decode all of the window: the words that become final.

        `spoken_s`: where in the window the last sound ends. `max_lag_s`: a word that ended so long ago is final too.
        """
        self._latest = self._hypothesis(self.samples, at_last=False)
        self.decoded_s = self.duration_s
        if self._latest is None:
            return ()
        count = self._agreement.agreed([self._text(span) for span in self._latest.spans])
        is_late = max_lag_s is not None and self.start / SAMPLE_RATE + self.duration_s - self._ended_s > max_lag_s
        if is_late and max_lag_s is not None:
            late = [word for word in self._timed(self._latest, spoken_s) if word.end_s <= self._now_s - max_lag_s]
            count = max(count, len(late))
        self._agreement.made_final(count)
        return self._made_final(self._latest, count, spoken_s=spoken_s)

    def finish(self, *, spoken_s: float) -> tuple[Word, ...]:
        """The rest of the words: of the last hypothesis if it heard all that was spoken, else of one more."""
        if self._latest is None or self.decoded_s < min(self.duration_s, spoken_s + BEHIND_S):
            self._latest = self._hypothesis(self.samples, at_last=True)
        words: tuple[Word, ...] = ()
        while self._latest and (rest := self._rest(self._latest)):
            spans = self._latest.spans
            kept = sum(span.stop <= rest.tokens - self._latest.opening.begun for span in spans)
            words += self._made_final(self._latest, kept, spoken_s=rest.start_s, whole=True)
            self._let_go(round(rest.start_s * SAMPLE_RATE))
            spoken_s = max(0.0, spoken_s - rest.start_s)
            self._latest = self._hypothesis(self.samples, at_last=True)
        if self._latest is None:
            return words
        return words + self._made_final(self._latest, len(self._latest.spans), spoken_s=spoken_s, whole=True)

    def cut(self) -> tuple[Word, ...]:
        """Let the first part go, to the quietest moment of the second half that final words reach; the words that
        become final by that.
        """
        half, hop = self.duration_s / 2, round(HOP_S * SAMPLE_RATE)
        latest_s = self._ended_s - self.start / SAMPLE_RATE
        if latest_s < half + CUT_SEARCHED_S:
            latest_s = self.duration_s - CUT_SEARCHED_S
        first = round(half / HOP_S)
        energy = energies(self.samples[first * hop : round(latest_s / HOP_S) * hop])
        cut = (first + quietest(energy)) * hop
        words: tuple[Word, ...] = ()
        if self._ended_s < (self.start + cut) / SAMPLE_RATE:
            found = self._hypothesis(self.samples[:cut], at_last=True)
            if found:
                words = self._made_final(found, len(found.spans), spoken_s=cut / SAMPLE_RATE, whole=True)
            self._final.clear()
        self._let_go(cut)
        return words

    def _let_go(self, samples: int) -> None:
        """The window begins so many samples later, with the final words that were said there."""
        self.start, self.samples = self.start + samples, self.samples[samples:]
        start_s = self.start / SAMPLE_RATE
        self._final = [final for final in self._final if final.word.start_s + final.word.end_s >= 2 * start_s]
        self._latest, self.decoded_s = None, 0.0
        self._agreement.forget()

    def _rest(self, found: _Hypothesis) -> Unheard | None:
        """What the text leaves out, behind all final words: `runtime.unheard`."""
        rest = self._transcriber.rest(self.samples, found.opening, found.said)
        return rest if rest and self.start / SAMPLE_RATE + rest.start_s >= self._ended_s else None

    @property
    def _now_s(self) -> float:
        return self.start / SAMPLE_RATE + self.duration_s

    def _hypothesis(self, samples: Floats, *, at_last: bool) -> _Hypothesis | None:
        """Decode (samples,) behind the final words; None where nothing that can be believed was said.

        Greedily, without the fallback to higher temperatures: it would take up to 26 texts, just where one is behind.
        """
        prefix = [token for final in self._final for token in final.tokens]
        opening = self._transcriber.hear(
            samples, language=self.language, task=self._task, said=prefix, previous=self._previous
        )
        if opening is None:
            return None
        said = decode(opening, self._vocabulary, DecodingOptions(max_tokens=self._most_tokens(len(prefix))))
        if not self._is_believed(opening, said, at_last=at_last):
            return None
        tokens = self._unglued(said.tokens, prefix, opening.language)
        spellings = [self._vocabulary.spelling(token) for token in tokens]
        return _Hypothesis(
            opening=opening,
            said=replace(said, tokens=tokens),
            tokens=tokens,
            spans=tuple(word_slices(spellings, language=opening.language)),
        )

    def _most_tokens(self, prefix: int) -> int:
        most = round(FEWEST_TOKENS + TOKENS_PER_S * (self._now_s - self._ended_s))
        return max(1, min(most, self._transcriber.artifact.n_text_ctx // 2 - prefix))

    def _is_believed(self, opening: PromptedWindow, said: Decoded, *, at_last: bool) -> bool:
        """As files are judged at temperature 0; at last, what ends a text of final words need not be probable."""
        if said.ending == "limit":
            return False
        if opening.begun and at_last and said.ending == "complete":
            return said.avg_logprob >= INVENTED_AVG_LOGPROB
        return not is_poor(said) and not is_invented(opening, said)

    def _unglued(self, tokens: tuple[int, ...], prefix: list[int], language: str) -> tuple[int, ...]:
        """Without letters that would lengthen the last final word; signs may follow it."""
        if not prefix or language in UNSPACED_LANGUAGES:
            return tokens
        for index, token in enumerate(tokens):
            spelling = self._vocabulary.spelling(token)
            if spelling.startswith(b" "):
                break
            if is_said(spelling):
                rest = tokens[index:]
                spaced = (place for place, later in enumerate(rest) if self._vocabulary.spelling(later)[:1] == b" ")
                return rest[next(spaced, len(rest)) :]
        return tokens

    def _made_final(self, found: _Hypothesis, count: int, *, spoken_s: float, whole: bool = False) -> tuple[Word, ...]:
        """The first words of a hypothesis become final. Signs behind the last one wait, unless it is the whole."""
        if not count:
            return ()
        timed = self._timed(found, spoken_s)[:count]
        words = []
        for index, (span, word) in enumerate(zip(found.spans, timed, strict=False)):
            tokens = found.tokens[span]
            if index == count - 1 and not whole:
                tokens = self._without_last_signs(tokens)
            start_s = max(word.start_s, self._ended_s)
            self._ended_s = max(word.end_s, start_s)
            spelled = self._vocabulary.text(tokens)
            self._final.append(_FinalWord(tokens=tokens, word=Word(text=spelled, start_s=start_s, end_s=self._ended_s)))
            words.append(self._final[-1].word)
            end = span.start + len(tokens)
        self._latest = found.after(end, count)
        self.language = found.opening.language
        return tuple(words)

    def _without_last_signs(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        said = [index for index, token in enumerate(tokens) if is_said(self._vocabulary.spelling(token))]
        return tokens[: said[-1] + 1] if said else tokens

    def _timed(self, found: _Hypothesis, spoken_s: float) -> list[Word]:
        """The hypothesis' words with their times in the stream."""
        begun = found.opening.begun
        spans = [slice(begun + span.start, begun + span.stop) for span in found.spans]
        words = timed_words(
            found.opening,
            self._vocabulary,
            found.tokens,
            spans,
            audio_s=min(self.duration_s, spoken_s + BEHIND_S),
            heads=self._transcriber.artifact.alignment_heads,
        )
        if words is None:
            raise ArtifactError("this artifact does not tell when words were said: export it again")
        start_s = self.start / SAMPLE_RATE
        return [replace(word, start_s=start_s + word.start_s, end_s=start_s + word.end_s) for word in words]

    def _text(self, span: slice) -> str:
        return self._vocabulary.text(self._latest.tokens[span]) if self._latest else ""
