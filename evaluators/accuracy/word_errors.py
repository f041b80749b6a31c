"""Word errors: counted per utterance, pooled over the corpus, with a bootstrap interval.

In languages without spaces between words they are character errors.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt
from statistics import NormalDist
from typing import Literal

import jiwer
import numpy as np
import numpy.typing as npt
from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer
from whisper.version import __version__ as whisper_version

from compression.recipe.spaceless import SPACELESS
from evaluators.accuracy.characters import CHARACTER_NORMALISER, counted_units
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import Utterance

RESAMPLES = 2000
CONFIDENCE = 0.95

ResampledUnit = Literal["speaker", "utterance"]
_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Normaliser:
    """Makes texts comparable; `name` carries its version and belongs beside every WER."""

    name: str
    normalise: Callable[[str], str]


@cache
def normaliser_for(language: str) -> Normaliser:
    """Whisper's normaliser: the English one for "en", the basic one for every other language.

    For SPACELESS the basic one also puts spaces between all characters, so that each counts as a word.
    """
    if language == "en":
        return Normaliser(name=f"whisper-english-{whisper_version}", normalise=EnglishTextNormalizer())
    if language in SPACELESS:
        characters = BasicTextNormalizer(split_letters=True)
        return Normaliser(name=f"{CHARACTER_NORMALISER}-{whisper_version}", normalise=characters)
    return Normaliser(name=f"whisper-basic-{whisper_version}", normalise=BasicTextNormalizer())


def normaliser_of(utterances: Iterable[Utterance]) -> str:
    """The names of the normalisers that these utterances' texts go through, joined by `+`."""
    return "+".join(sorted({normaliser_for(language_of(utterance)).name for utterance in utterances}))


@dataclass(frozen=True, kw_only=True)
class ErrorCounts:
    """Errors of one utterance against the `words` of its normalised reference; characters in SPACELESS."""

    utterance_id: str
    speaker: str
    insertions: int
    deletions: int
    substitutions: int
    words: int

    @property
    def errors(self) -> int:
        return self.insertions + self.deletions + self.substitutions


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Corpus WER: pooled errors over pooled words, as a fraction; of characters where the normaliser splits them.

    `wer_low`, `wer_high`: 95 % percentile bootstrap over whole `resampled` units: the errors of one speaker go
    together, so speakers are drawn, or utterances where there is only one speaker.
    """

    wer: float
    wer_low: float
    wer_high: float
    insertions: int
    deletions: int
    substitutions: int
    words: int
    utterances: int
    resampled: ResampledUnit
    normaliser: str

    @property
    def text(self) -> str:
        """On one line, such as `WER 7.1 % ...`; `CER` where only characters were counted."""
        units = counted_units(self.normaliser)
        low, high = f"{100 * self.wer_low:.2f} %", f"{100 * self.wer_high:.2f} %"
        return f"{'CER' if units == 'characters' else 'WER'} {100 * self.wer:.2f} % (95 %: {low} to {high})"


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """WER of b minus WER of a on the same utterances, with its 95 % interval over the same resamples."""

    difference: float
    low: float
    high: float


def count_errors(*, utterance_id: str, speaker: str, reference: str, hypothesis: str, language: str) -> ErrorCounts:
    """Align two texts, both normalised for the language, by jiwer.

    Every word spoken over a reference that is empty after normalisation is an insertion.
    """
    normalise = normaliser_for(language).normalise
    reference, hypothesis = normalise(reference).strip(), normalise(hypothesis).strip()
    if not reference:
        insertions, deletions, substitutions = len(hypothesis.split()), 0, 0
    else:
        aligned = jiwer.process_words(reference, hypothesis)
        insertions, deletions, substitutions = aligned.insertions, aligned.deletions, aligned.substitutions
    return ErrorCounts(
        utterance_id=utterance_id,
        speaker=speaker,
        insertions=insertions,
        deletions=deletions,
        substitutions=substitutions,
        words=len(reference.split()),
    )


def pooled_accuracy(counts: Sequence[ErrorCounts], *, normaliser: str, seed: int) -> Accuracy:
    """The corpus WER and its interval. Raises ValueError when there are no reference words at all."""
    words = sum(c.words for c in counts)
    if not words:
        raise ValueError("a word error rate needs at least one reference word")
    unit, labels = _units(counts)
    errors_of, words_of = (
        _sum_by(labels, values) for values in ([c.errors for c in counts], [c.words for c in counts])
    )
    draws = _draws(len(words_of), seed)
    low, high = _interval(_ratio(draws @ errors_of, draws @ words_of))
    return Accuracy(
        wer=sum(c.errors for c in counts) / words,
        wer_low=low,
        wer_high=high,
        insertions=sum(c.insertions for c in counts),
        deletions=sum(c.deletions for c in counts),
        substitutions=sum(c.substitutions for c in counts),
        words=words,
        utterances=len(counts),
        resampled=unit,
        normaliser=normaliser,
    )


def cautious_accuracy(counts: Sequence[ErrorCounts], *, normaliser: str, seed: int) -> Accuracy:
    """As `pooled_accuracy`, for few utterances: the interval is widened to Wilson's where that is wider.

    A bootstrap of one unit, or of units without errors, has no width. Wilson's interval of a share has one even then.
    It takes words for independent, which they are not: the truth is no better known than that.
    """
    accuracy = pooled_accuracy(counts, normaliser=normaliser, seed=seed)
    low, high = _wilson(min(1.0, accuracy.wer), accuracy.words)
    return replace(accuracy, wer_low=min(low, accuracy.wer_low), wer_high=max(high, accuracy.wer_high))


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson 1927, without continuity correction."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = share + z * z / (2 * n)
    spread = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), (centre + spread) / scale


def reference_words(text: str, language: str) -> int:
    """Words (or characters) of a reference after normalisation."""
    return len(normaliser_for(language).normalise(text).split())


def paired_difference(a: Sequence[ErrorCounts], b: Sequence[ErrorCounts], *, seed: int) -> PairedDifference:
    """How much higher the WER of `b` is than that of `a`, both on the same utterances in any order.

    Drawing the same speakers for both removes what they have in common, so the interval is far narrower than
    the two separate ones. Raises ValueError when the utterances differ or have no reference words.
    """
    first = sorted(a, key=lambda c: c.utterance_id)
    second = sorted(b, key=lambda c: c.utterance_id)
    if [(c.utterance_id, c.words) for c in first] != [(c.utterance_id, c.words) for c in second]:
        raise ValueError("a paired difference needs two results on the same utterances")
    words = sum(c.words for c in first)
    if not words:
        raise ValueError("a word error rate needs at least one reference word")
    extra = [theirs.errors - ours.errors for ours, theirs in zip(first, second, strict=True)]
    _, labels = _units(first)
    extra_of, words_of = _sum_by(labels, extra), _sum_by(labels, [c.words for c in first])
    draws = _draws(len(words_of), seed)
    low, high = _interval(_ratio(draws @ extra_of, draws @ words_of))
    return PairedDifference(difference=sum(extra) / words, low=low, high=high)


def _units(counts: Sequence[ErrorCounts]) -> tuple[ResampledUnit, list[str]]:
    """What is resampled, and to which unit each utterance belongs."""
    speakers = [c.speaker for c in counts]
    if len(set(speakers)) > 1:
        return "speaker", speakers
    return "utterance", [c.utterance_id for c in counts]


def _sum_by(labels: Sequence[str], values: Sequence[int]) -> _Counts:
    """One sum per distinct label, labels in sorted order."""
    names, index = np.unique(labels, return_inverse=True)
    sums = np.zeros(len(names), dtype=np.int64)
    np.add.at(sums, index, values)
    return sums


def _draws(units: int, seed: int) -> _Counts:
    """(RESAMPLES, units): how often each unit is drawn when as many as there are come with replacement."""
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=RESAMPLES)


def _ratio(numerators: _Counts, words: _Counts) -> npt.NDArray[np.float64]:
    """The rates of those resamples that have any words."""
    some = words > 0
    return numerators[some] / words[some]


def _interval(rates: npt.NDArray[np.float64]) -> tuple[float, float]:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(rates, [tail, 100 - tail])
    return float(low), float(high)
