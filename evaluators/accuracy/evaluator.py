"""Scoring a network, compressed or not, on a speech set."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from math import ceil
from time import perf_counter

import torch
from cachetools import LRUCache
from torch import Tensor
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from common.errors import InputError
from compression.recipe.dimensions import Dimensions
from compression.techniques.compressed import Compressed
from compression.whisper.compute import CPU
from compression.whisper.network import encode
from evaluators.accuracy.blocks import dealt
from evaluators.accuracy.decoding import Hypothesis, decode, joined
from evaluators.accuracy.error_rate import share_of
from evaluators.accuracy.groups import GroupAccuracy, group_accuracies, groups_of
from evaluators.accuracy.hearing import Hearing
from evaluators.accuracy.normaliser_names import NormaliserChoice
from evaluators.accuracy.normalisers import normaliser_of
from evaluators.accuracy.together import Together
from evaluators.accuracy.word_errors import (
    Accuracy,
    ErrorCounts,
    count_errors,
    pooled_accuracy,
    reference_words,
)
from evaluators.speech.features import CachedFeatures
from evaluators.speech.language import check_languages, language_of
from evaluators.speech.speech_set import SpeechSet, Utterance
from runtime.audio import SAMPLE_RATE, Floats
from runtime.mel import WINDOW_SAMPLES
from runtime.pieces import energies
from runtime.window import encoder_frames

BLOCK_SIZE = 20
ENCODER_CACHE_BYTES = 2 << 30
"""Room for encoder outputs: those of 100 clips of 30 s at tiny's width take 230 MB per encoder."""
TOKENS_PER_S = 12
SPARE_TOKENS = 16

_EncoderEntry = tuple[str | None, int, str, int]
"""The encoder's key, the window in frames, the utterance, the sample that it is heard from."""

Drafts = Mapping[str, tuple[int, ...]]
"""By utterance, the tokens of a similar network's transcript; they make decoding faster and change nothing else."""
Transcribe = Callable[[Utterance, int], Hypothesis]
"""What a recogniser says to an utterance, in at most so many tokens."""


@dataclass(frozen=True, kw_only=True)
class ScoredUtterance:
    """One utterance's transcript and its errors.

    `right_language`: whether the network detects the language that is spoken; None where it knows but one.
    """

    hypothesis: Hypothesis
    counts: ErrorCounts
    right_language: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one network did on a speech set.

    `utterances`: in the order of the speech set. `encoder_s`, `decoder_s`: wall-clock seconds; features and
    encoder outputs that were cached cost the encoder next to nothing. `groups`: the same errors by group.
    """

    accuracy: Accuracy
    utterances: tuple[ScoredUtterance, ...]
    encoder_s: float
    decoder_s: float
    groups: tuple[GroupAccuracy, ...] = ()

    @property
    def counts(self) -> tuple[ErrorCounts, ...]:
        return tuple(scored.counts for scored in self.utterances)

    @property
    def language_accuracy(self) -> float | None:
        """Share of the utterances whose language the network detects; None where it knows but one."""
        return share_of(scored.right_language for scored in self.utterances)

    @property
    def texts(self) -> dict[str, str]:
        """The transcripts by utterance."""
        return {scored.counts.utterance_id: scored.hypothesis.text for scored in self.utterances}

    @property
    def drafts(self) -> Drafts:
        """The transcripts' tokens by utterance."""
        return {scored.counts.utterance_id: scored.hypothesis.tokens for scored in self.utterances}


@dataclass(frozen=True, kw_only=True)
class ScoredBlock:
    """The utterances that were decoded together, and the wall-clock seconds of encoder and decoder."""

    scored: tuple[ScoredUtterance, ...]
    encoder_s: float
    decoder_s: float


class Evaluator:
    """Scores networks of one model family on one speech set.

    Utterances are scored in blocks, `dealt` by `seed`, so that the blocks done so far represent the whole set. The
    number of torch's threads is the caller's. `words`: of each utterance's reference, by id; `normaliser`: the
    name of what the texts go through, by the user's choice.
    Raises InputError when the model cannot transcribe the set's languages or no reference has words.
    """

    def __init__(  # noqa: PLR0913 - the speech, and how it is scored
        self,
        speech: SpeechSet,
        *,
        dimensions: Dimensions,
        features: CachedFeatures,
        block_size: int = BLOCK_SIZE,
        seed: int = 0,
        normaliser: NormaliserChoice = "whisper",
    ) -> None:
        check_languages(speech, dimensions)
        self._choice: NormaliserChoice = normaliser
        self.normaliser = normaliser_of(speech.utterances, normaliser)
        self.words = {u.id: reference_words(u.text, language_of(u), normaliser) for u in speech.utterances}
        if not any(self.words.values()):
            raise InputError(f"speech set {speech.name}: no text has any words after {self.normaliser}")
        self.speech = speech
        self._features = features
        self._seed = seed
        self.groups = groups_of(speech.utterances, normaliser)
        self._max_tokens = {u.id: max_tokens(u, _reference_tokens(u, dimensions)) for u in speech.utterances}
        self._encoder_outputs: LRUCache[_EncoderEntry, Tensor] = LRUCache(ENCODER_CACHE_BYTES, getsizeof=_bytes)
        self._together = Together()
        self._energies: dict[str, Floats] = {}
        self._blocks = dealt(speech.utterances, block_size, random.Random(seed))

    def evaluate(
        self,
        compressed: Compressed,
        *,
        window_s: float,
        encoder_key: str | None = None,
        drafts: Drafts | None = None,
    ) -> Evaluation:
        """Transcribe and score the set, block by block.

        `window_s`: the recipe's. `encoder_key`: names everything that decides the encoder's output besides clip and
        window; outputs of recent keys are used again. None: never.
        Raises EvaluationError when the network's logits are not finite.
        """
        return self._evaluation(
            self.score_block(compressed, number, window_s=window_s, encoder_key=encoder_key, drafts=drafts)
            for number in range(self.blocks)
        )

    def forget(self) -> None:
        """Drop the outputs of encoders that are kept, where memory is wanted for something else."""
        self._encoder_outputs.clear()

    @property
    def blocks(self) -> int:
        """Into how many the set is dealt."""
        return len(self._blocks)

    def score_block(
        self,
        compressed: Compressed,
        number: int,
        *,
        window_s: float,
        encoder_key: str | None = None,
        drafts: Drafts | None = None,
    ) -> ScoredBlock:
        """The utterances of one block, decoded together, then again what their texts do not cover (`runtime.unheard`).

        As `evaluate`, which scores one after the other.
        """
        encoding, drafts = _Encoding(window_s=window_s, key=encoder_key), drafts or {}
        hearings = [Hearing(u, self._max_tokens[u.id], drafts.get(u.id, ())) for u in self._blocks[number]]
        waiting, encoder_s, decoder_s = hearings, 0.0, 0.0
        while waiting:
            started = perf_counter()
            outputs = self._encoder_outputs_of(compressed.network, waiting, encoding)
            encoded = perf_counter()
            clips = [hearing.clip(output) for hearing, output in zip(waiting, outputs, strict=True)]
            spoken = self._together.map(partial(decode, compressed), clips, most=len(clips))
            for hearing, said in zip(waiting, spoken, strict=True):
                hearing.take(said, self._energy(hearing.utterance))
            encoder_s += encoded - started
            decoder_s += perf_counter() - encoded
            waiting = [hearing for hearing in waiting if not hearing.is_whole]
        scored = tuple(self._score(hearing.utterance, joined(hearing.parts)) for hearing in hearings)
        return ScoredBlock(scored=scored, encoder_s=encoder_s, decoder_s=decoder_s)

    def _energy(self, utterance: Utterance) -> Floats:
        if utterance.id not in self._energies:
            self._energies[utterance.id] = energies(utterance.samples()[:WINDOW_SAMPLES])
        return self._energies[utterance.id]

    def evaluate_transcripts(self, transcribe: Transcribe) -> Evaluation:
        """Score any recogniser on the set, one utterance after the other; its time counts as the decoder's."""
        scored, started = [], perf_counter()
        for utterance in self.speech.utterances:
            scored.append(self._score(utterance, transcribe(utterance, self._max_tokens[utterance.id])))
        done = ScoredBlock(scored=tuple(scored), encoder_s=0.0, decoder_s=perf_counter() - started)
        return self._evaluation([done])

    def pairs(self, texts: Mapping[str, str]) -> list[tuple[str, str]]:
        """Reference and transcript of each utterance that has one in `texts`."""
        return [(u.text, texts[u.id]) for u in self.speech.utterances if u.id in texts]

    def accuracies(self, counts: Sequence[ErrorCounts]) -> tuple[Accuracy, tuple[GroupAccuracy, ...]]:
        """The pooled errors of utterances of the set, and those of its groups."""
        pooled = pooled_accuracy(counts, normaliser=self.normaliser, seed=self._seed)
        return pooled, group_accuracies(self.groups, counts, seed=self._seed)

    def _score(self, utterance: Utterance, hypothesis: Hypothesis) -> ScoredUtterance:
        counts = count_errors(
            utterance_id=utterance.id,
            speaker=utterance.speaker,
            reference=utterance.text,
            hypothesis=hypothesis.text,
            language=language_of(utterance),
            normaliser=self._choice,
        )
        detected = hypothesis.detected
        is_right = None if detected is None else detected == language_of(utterance)
        return ScoredUtterance(hypothesis=hypothesis, counts=counts, right_language=is_right)

    def _encoder_outputs_of(self, network: Whisper, hearings: Sequence[Hearing], encoding: "_Encoding") -> list[Tensor]:
        """(positions, n_audio_state) of what is to be heard of each clip.

        On a CPU one clip at a time already runs near the peak; elsewhere all of one window run together.
        """
        wanted = {_entry(hearing, encoding): hearing for hearing in hearings}
        found = {entry: self._encoder_outputs[entry] for entry in wanted if entry in self._encoder_outputs}
        missing = sorted((entry for entry in wanted if entry not in found), key=_window)
        most = 1 if network.device == CPU else len(missing)
        for frames, group in groupby(missing, key=_window):
            entries = list(group)
            encode_them = partial(self._encode, network, frames)
            outputs = self._together.map(encode_them, [wanted[entry] for entry in entries], most=most)
            found |= zip(entries, outputs, strict=True)
        if encoding.key is not None:
            self._encoder_outputs.update(found)
        return [found[entry] for entry in wanted]

    @torch.inference_mode()
    def _encode(self, network: Whisper, frames: int, hearings: Sequence[Hearing]) -> list[Tensor]:
        mels = [self._features.mel(hearing.utterance, start=hearing.start)[:, :frames] for hearing in hearings]
        return list(encode(network, torch.stack(mels)))

    def _evaluation(self, blocks: Iterable[ScoredBlock]) -> Evaluation:
        done = list(blocks)
        by_id = {scored.counts.utterance_id: scored for block in done for scored in block.scored}
        utterances = tuple(by_id[u.id] for u in self.speech.utterances)
        accuracy, groups = self.accuracies([scored.counts for scored in utterances])
        return Evaluation(
            accuracy=accuracy,
            utterances=utterances,
            encoder_s=sum(block.encoder_s for block in done),
            decoder_s=sum(block.decoder_s for block in done),
            groups=groups,
        )


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    """Of `Evaluator.evaluate`."""

    window_s: float
    key: str | None


def _entry(hearing: Hearing, encoding: _Encoding) -> _EncoderEntry:
    left_s = hearing.utterance.duration_s - hearing.start / SAMPLE_RATE
    return (encoding.key, encoder_frames(encoding.window_s, left_s), hearing.utterance.id, hearing.start)


def _window(entry: _EncoderEntry) -> int:
    return entry[1]


def _bytes(tensor: Tensor) -> int:
    return tensor.nbytes


def max_tokens(utterance: Utterance, reference_tokens: int) -> int:
    """Where the decoding of a clip ends at the latest.

    12 tokens a second and 16 more is over twice the fastest read English (3.7 words, 5 tokens a second). Scripts
    that Whisper spells byte by byte need more, so twice the tokens of the reference always fit.
    """
    return max(ceil(TOKENS_PER_S * utterance.duration_s), 2 * reference_tokens) + SPARE_TOKENS


def _reference_tokens(utterance: Utterance, dimensions: Dimensions) -> int:
    tokenizer = get_tokenizer(dimensions.is_multilingual)
    return len(tokenizer.encode(f" {utterance.text.strip()}"))
