"""Word errors: counted per utterance, pooled over the corpus, with an interval.

In languages without spaces between words they are character errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer

from evaluators.accuracy.error_rate import ErrorRate
from evaluators.accuracy.intervals import ResampledUnit, rate_interval, resampled_interval, sum_by, units_of
from evaluators.accuracy.normaliser_names import NormaliserChoice, counted_units
from evaluators.accuracy.normalisers import normaliser_for


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

    The interval takes whole `resampled` units for independent: the errors of one speaker go together, so they are
    speakers, or utterances where there is only one speaker.
    """

    rate: ErrorRate
    utterances: int
    resampled: ResampledUnit
    normaliser: str

    @property
    def wer(self) -> float:
        return self.rate.wer

    @property
    def columns(self) -> dict[str, float | int | str | None]:
        """As JSON names it, flat."""
        about = {"utterances": self.utterances, "resampled": self.resampled, "normaliser": self.normaliser}
        return self.rate.columns | about

    @property
    def text(self) -> str:
        """On one line, such as `WER 7.1 % ...`; `CER` where only characters were counted."""
        units = counted_units(self.normaliser)
        low, high = f"{100 * self.rate.low:.2f} %", f"{100 * self.rate.high:.2f} %"
        return f"{'CER' if units == 'characters' else 'WER'} {100 * self.wer:.2f} % (95 %: {low} to {high})"


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """WER of b minus WER of a on the same utterances, with its 95 % interval over the same resamples."""

    difference: float
    low: float
    high: float


def count_errors(  # noqa: PLR0913 - what is compared, and how
    *,
    utterance_id: str,
    speaker: str,
    reference: str,
    hypothesis: str,
    language: str,
    normaliser: NormaliserChoice = "whisper",
) -> ErrorCounts:
    """Align two texts, both normalised for the language, by jiwer.

    Every word spoken over a reference that is empty after normalisation is an insertion.
    """
    normalise = normaliser_for(language, normaliser).normalise
    reference, hypothesis = (" ".join(normalise(text).split()) for text in (reference, hypothesis))
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
    low, high = rate_interval(
        sum_by(labels, [c.errors for c in counts]), sum_by(labels, [c.words for c in counts]), seed=seed
    )
    rate = ErrorRate(
        errors=sum(c.errors for c in counts),
        words=words,
        low=low,
        high=high,
        insertions=sum(c.insertions for c in counts),
        deletions=sum(c.deletions for c in counts),
        substitutions=sum(c.substitutions for c in counts),
    )
    return Accuracy(rate=rate, utterances=len(counts), resampled=unit, normaliser=normaliser)


def reference_words(text: str, language: str, normaliser: NormaliserChoice = "whisper") -> int:
    """Words (or characters) of a reference after normalisation."""
    return len(normaliser_for(language, normaliser).normalise(text).split())


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
    extra_of, words_of = sum_by(labels, extra), sum_by(labels, [c.words for c in first])
    low, high = resampled_interval(extra_of, words_of, seed=seed)
    return PairedDifference(difference=sum(extra) / words, low=low, high=high)


def paired_ratio(a: Sequence[ErrorCounts], b: Sequence[ErrorCounts], *, seed: int) -> tuple[float, float, float]:
    """How many times the errors of `a` those of `b` are, with the 95 % interval; both on the same utterances.

    Resampled as in `paired_difference`. Raises ValueError when `a` has no errors or the utterances differ.
    """
    first, second = (sorted(counts, key=lambda c: c.utterance_id) for counts in (a, b))
    if [c.utterance_id for c in first] != [c.utterance_id for c in second]:
        raise ValueError("a paired ratio needs two results on the same utterances")
    _, labels = _units(first)
    before, after = (sum_by(labels, [c.errors for c in counts]) for counts in (first, second))
    if not before.sum():
        raise ValueError("a paired ratio needs at least one error to compare with")
    low, high = resampled_interval(after, before, seed=seed)
    return float(after.sum() / before.sum()), low, high


def _units(counts: Sequence[ErrorCounts]) -> tuple[ResampledUnit, Sequence[str]]:
    """What is resampled, and to which unit each utterance belongs."""
    return units_of([c.speaker for c in counts], [c.utterance_id for c in counts])
