"""What a model says about one window: greedily, by beam search or by sampling, with the rules of `whisper.decode`.

Without timestamps. Unlike `whisper.decode`, decoding ends where a transcript
has become a loop (runtime/repetition.py).
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from runtime.alignment import aligned
from runtime.audio import Floats
from runtime.errors import ArtifactError
from runtime.repetition import is_loop, without_repeats
from runtime.tokens import SpecialTokens, Vocabulary
from runtime.unheard import Listening
from runtime.words import Word

Ids = npt.NDArray[np.int64]
Ending = Literal["complete", "limit", "loop"]

BEST_OF = 5
"""Transcripts sampled at a temperature, of which the likeliest is kept."""


class Text(Protocol):
    """One window of audio and, for each row of a batch, the text that the decoder has seen (runtime/model.py)."""

    def step(self, tokens: Ids) -> "tuple[Floats, Text]":
        """Show every row its next tokens (batch, new): logits (batch, vocabulary) after the last, and what is seen."""

    def rows(self, rows: Sequence[int]) -> "Text":
        """The given rows of the batch, in that order."""

    def attention(self, tokens: Sequence[int]) -> Floats | None:
        """Where each of the tokens of a whole text listens (tokens, positions); None where the model does not say."""

    def head_attention(self, tokens: Sequence[int]) -> Floats | None:
        """The same by head (heads, tokens, positions)."""


@dataclass(frozen=True, kw_only=True)
class PromptedWindow:
    """A window whose prompt the decoder has seen.

    `logits`: (1, vocabulary), for the first token. `prompt`: all tokens seen, of which the last `begun` are the
    beginning of the text that the window is to have, final already. `language`: as given, else as detected.
    `detected`: the likeliest one; None when the model knows but one. `no_speech_prob`: the probability of the no-speech
    token after the start token; None when the model has none.
    """

    text: Text
    logits: Floats
    language: str
    detected: str | None
    no_speech_prob: float | None
    prompt: tuple[int, ...] = ()
    begun: int = 0


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A transcript of a window, or of it what follows the words that are final already.

    `tokens`: without prompt and end. `text`: of them, a loop's unit once. `avg_logprob`: mean natural logarithm of the
    tokens' probabilities, the end included. `compression_ratio`: bytes of the text of all tokens by its bytes in zlib's
    format; high means repetitive.
    """

    text: str
    tokens: tuple[int, ...]
    ending: Ending
    temperature: float
    avg_logprob: float
    compression_ratio: float


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How to look for the transcript: at temperature 0 greedily or with several beams, above by sampling from `rng`.

    `max_tokens`: where a transcript ends at the latest; Whisper's own limit is half of its text positions.
    """

    max_tokens: int
    beams: int = 1
    temperature: float = 0.0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A transcript being made. `logprob`: of its tokens and, once complete, of the end token."""

    tokens: tuple[int, ...] = ()
    logprob: float = 0.0
    ending: Ending | None = None

    @property
    def score(self) -> float:
        """Log-probability by number of tokens."""
        return self.logprob / max(1, len(self.tokens))

    def extended(self, token: int, logprob: float, *, end: int, max_tokens: int) -> "_Row":
        """With one more token, whose log-probability is given."""
        total = self.logprob + logprob
        if token == end:
            return _Row(tokens=self.tokens, logprob=total, ending="complete")
        tokens = (*self.tokens, token)
        ending: Ending | None = "limit" if len(tokens) >= max_tokens else "loop" if is_loop(tokens) else None
        return _Row(tokens=tokens, logprob=total, ending=ending)


def open_window(  # noqa: PLR0913 - what the decoder is told before it speaks
    window: Text,
    vocabulary: Vocabulary,
    *,
    language: str | None,
    task: str,
    previous: Sequence[int] = (),
    said: Sequence[int] = (),
) -> PromptedWindow:
    """Show the decoder the prompt: the start token first, whose logits tell speech from silence and which language is
    spoken; then the rest, with that language where `language` is None.

    `previous`: tokens of the text before the window, or of one in its style. `said`: tokens with which the window's
    own text begins; what is decoded follows them.
    """
    special = vocabulary.special
    first = (*vocabulary.before(previous), special.start)
    logits, window = window.step(np.array([first]))
    detected = vocabulary.likeliest_language(logits[0])
    language = language or detected or "en"
    no_speech = None if special.no_speech is None else float(np.exp(_logprobs(logits)[0, special.no_speech]))
    prompt = (*vocabulary.prompt(language=language, task=task), *said)
    logits, window = window.step(np.array([prompt]))
    return PromptedWindow(
        text=window,
        logits=logits,
        language=language,
        detected=detected,
        no_speech_prob=no_speech,
        prompt=(*first, *prompt),
        begun=len(said),
    )


def decode(opening: PromptedWindow, vocabulary: Vocabulary, options: DecodingOptions) -> Decoded:
    """The likeliest transcript, by log-probability over length, of those that the search finds.

    Raises ArtifactError when the model's logits are not finite.
    """
    find = _beam_search if options.beams > 1 and options.temperature == 0 else _follow
    found = find(opening, vocabulary.special, options)
    best = max(found, key=lambda row: row.score)
    kept = best.tokens if best.ending == "complete" else without_repeats(best.tokens)
    whole, text = vocabulary.text(best.tokens).strip(), vocabulary.text(kept).strip()
    return Decoded(
        text=text,
        tokens=best.tokens,
        ending=best.ending or "loop",
        temperature=options.temperature,
        avg_logprob=best.logprob / (len(best.tokens) + 1),
        compression_ratio=compression_ratio(whole),
    )


def listening(opening: PromptedWindow, vocabulary: Vocabulary, said: Decoded, *, audio_s: float) -> Listening | None:
    """Where in its audio of `audio_s` seconds a transcript listened, with the words that were final before; None where
    the model does not say: artifacts from before it was asked.
    """
    seen = (*opening.prompt, *said.tokens)
    attention = opening.text.attention(seen)
    if attention is None:
        return None
    begins = len(opening.prompt) - opening.begun
    spellings = [vocabulary.spelling(token) for token in seen[begins:]]
    return Listening.to(audio_s, spellings=spellings, attention=attention[begins - 1 : -1])


def timed_words(  # noqa: PLR0913 - what was decoded, and what of it makes words
    opening: PromptedWindow,
    vocabulary: Vocabulary,
    tokens: Sequence[int],
    words: Sequence[slice],
    *,
    audio_s: float,
    heads: Sequence[int] = (),
) -> list[Word] | None:
    """The words of a window's text with their times from its beginning; None where the model does not tell them.

    `tokens`: what was decoded. `words`: which tokens make each, counted from the beginning of the text that was final
    before. `heads`: of the last layer, those that follow the timing of words; none: all.
    """
    seen = (*opening.prompt, *tokens)
    attention = opening.text.head_attention(seen)
    if attention is None:
        return None
    begins = len(opening.prompt) - opening.begun
    spellings = [vocabulary.spelling(token) for token in seen[begins:]]
    return aligned(attention[list(heads) or slice(None), begins - 1 :], spellings, words, audio_s=audio_s)


def compression_ratio(text: str) -> float:
    """Bytes of the text by bytes of its zlib form, as openai-whisper computes it."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


def _follow(opening: PromptedWindow, special: SpecialTokens, options: DecodingOptions) -> list[_Row]:
    """One greedy transcript, or BEST_OF sampled ones, which grow by a token a step."""
    rows = [_Row()] * (BEST_OF if options.temperature else 1)
    first = [0] * len(rows)
    text, logits = opening.text.rows(first), opening.logits[first]
    _suppress(logits, special, begins=not opening.begun)
    while True:
        tokens = _chosen(logits, options)
        logprobs = _logprobs(logits)[np.arange(len(rows)), tokens]
        for index, row in enumerate(rows):
            if row.ending is None:
                token, logprob = int(tokens[index]), float(logprobs[index])
                rows[index] = row.extended(token, logprob, end=special.end, max_tokens=options.max_tokens)
        if all(row.ending for row in rows):
            return rows
        logits, text = text.step(tokens[:, None])
        _suppress(logits, special, begins=False)


def _chosen(logits: Floats, options: DecodingOptions) -> Ids:
    """The next token of every row (rows, vocabulary)."""
    if options.temperature == 0:
        return logits.argmax(axis=1)
    scaled = (logits - logits.max(axis=1, keepdims=True)) / options.temperature
    cumulative = np.exp(scaled).cumsum(axis=1, dtype=np.float64)
    drawn = options.rng.random(len(logits)) * cumulative[:, -1]
    return np.array([np.searchsorted(row, value, side="right") for row, value in zip(cumulative, drawn, strict=True)])


def _beam_search(opening: PromptedWindow, special: SpecialTokens, options: DecodingOptions) -> list[_Row]:
    """Beam search at patience 1: ends when as many transcripts as beams are complete, or the likeliest one must end."""
    text, logits = opening.text, opening.logits.copy()
    _suppress(logits, special, begins=not opening.begun)
    live, complete = [_Row()], list[_Row]()
    while True:
        candidates = _candidates(live, logits, special, options)
        live, sources = [], []
        for row, source in candidates:
            if row.ending == "complete":
                complete.append(row)
            else:
                live.append(row)
                sources.append(source)
            if len(live) == options.beams:
                break
        if len(complete) >= options.beams or live[0].ending:
            return [*complete, *live][: options.beams]
        logits, text = text.rows(sources).step(np.array([row.tokens[-1:] for row in live]))
        _suppress(logits, special, begins=False)


def _candidates(
    live: list[_Row], logits: Floats, special: SpecialTokens, options: DecodingOptions
) -> list[tuple[_Row, int]]:
    """The beams + 1 likeliest extensions of every row, each with its row's index; the likeliest of all first."""
    logprobs = _logprobs(logits)
    likeliest = np.argpartition(logprobs, -options.beams - 1)[:, -options.beams - 1 :]
    found = []
    for source, row in enumerate(live):
        for token in likeliest[source]:
            logprob = float(logprobs[source, token])
            extended = row.extended(int(token), logprob, end=special.end, max_tokens=options.max_tokens)
            found.append((extended, source))
    return sorted(found, key=lambda candidate: candidate[0].logprob, reverse=True)


def _suppress(logits: Floats, special: SpecialTokens, *, begins: bool) -> None:
    """Rule out, in place, what must not be said. Raises ArtifactError when nothing that is left is finite."""
    logits[:, list(special.suppressed)] = -np.inf
    if begins:
        logits[:, list(special.begin_suppressed)] = -np.inf
    if not np.isfinite(logits.max(axis=1)).all():
        raise ArtifactError("the model's logits are not finite: this artifact computes no transcript")


def _logprobs(logits: Floats) -> Floats:
    """Natural logarithms of the probabilities (rows, vocabulary)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
