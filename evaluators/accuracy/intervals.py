"""A 95 % interval of an error rate that is honest on small sets too."""

from collections.abc import Sequence
from functools import cache
from math import sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

RESAMPLES = 2000
CONFIDENCE = 0.95

Counts = npt.NDArray[np.int64]
ResampledUnit = Literal["speaker", "utterance"]


def rate_interval(errors: Counts, words: Counts, *, seed: int) -> tuple[float, float]:
    """Of the errors over the words, both by unit: what is independent of each other, such as a speaker.

    The wider of two at each end. The percentile bootstrap over units (Efron 1979) says how they differ, but with few
    units, or without an error, it has no width. Wilson's interval (1927) has one: here it is that of as many words as
    carry independent information. These are the words over the design effect (Kish 1965: the units' variance of the
    rate over that of independent words), at least 1, and over (t / z)^2 for the few degrees of freedom (Korn and
    Graubard 1998, Survey Methodology 24). One unit counts as two: how units differ, it does not tell.
    Wilson's takes errors for a share of the words; from as many errors as words on only the bootstrap goes higher.
    """
    rate = float(errors.sum() / words.sum())
    low, high = resampled_interval(errors, words, seed=seed)
    wilson_low, wilson_high = _wilson(min(1.0, rate), effective_words(errors, words))
    return min(low, wilson_low, rate), max(high, wilson_high, rate)


def effective_words(errors: Counts, words: Counts) -> float:
    """How many independent words would tell as much as these units."""
    units, total = len(words), int(words.sum())
    rate = min(1.0, float(errors.sum() / total))
    independent = rate * (1 - rate) / total
    effect = 1.0
    if units > 1 and independent:
        effect = max(1.0, ratio_variance(errors, words) / independent)
    return total / effect * (_z() / _t(max(1, units - 1))) ** 2


def ratio_variance(over: Counts, under: Counts) -> float:
    """Of the ratio of two sums, each over the same at least two units (Cochran 1977, "Sampling techniques", 6.4)."""
    units, total = len(under), under.sum()
    residuals = over - over.sum() / total * under
    return float(np.square(residuals).sum() * units / (units - 1) / total**2)


def units_of(speakers: Sequence[str], utterances: Sequence[str]) -> tuple[ResampledUnit, Sequence[str]]:
    """What is independent of each other, and to which each utterance belongs; itself where there is one speaker."""
    return ("speaker", speakers) if len(set(speakers)) > 1 else ("utterance", utterances)


def sum_by(units: Sequence[str], values: Sequence[int]) -> Counts:
    """One sum per distinct unit, units in sorted order."""
    names, index = np.unique(units, return_inverse=True)
    sums = np.zeros(len(names), dtype=np.int64)
    np.add.at(sums, index, values)
    return sums


def _wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson 1927, without continuity correction."""
    z = _z()
    centre = share + z * z / (2 * n)
    spread = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), (centre + spread) / scale


def resampled_interval(numerators: Counts, words: Counts, *, seed: int) -> tuple[float, float]:
    """The percentile bootstrap of a ratio over units alone; resamples without words are left out."""
    draws = _draws(len(words), seed)
    over, under = draws @ numerators, draws @ words
    some = under > 0
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(over[some] / under[some], [tail, 100 - tail])
    return float(low), float(high)


def _draws(units: int, seed: int) -> Counts:
    """(RESAMPLES, units): how often each unit is drawn when as many as there are come with replacement."""
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=RESAMPLES)


@cache
def _z() -> float:
    return NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@cache
def _t(degrees: int) -> float:
    return float(student.ppf((1 + CONFIDENCE) / 2, degrees))
