"""How sure it is that a recipe keeps the WER budget, by all that was measured of it and of the other recipes.

What is asked is the rise T of a recipe: by which share it makes more errors than the original, on speech that is like
the sets but was not heard. A set's WER says it with noise of some points, divergence says it precisely, up to a factor:

    T = k d + u,    y = T + kind d + luck + e

d: the recipe's divergence. k: the same for all recipes, learned from those with a WER. u: what is the recipe's own,
within SCATTER of k d. y: its rise on one set. kind: by how much the sets' kind of speech is easier, or harder, for
compressed models than other kinds; all recipes and both sets share it, so one corpus never fixes k. luck: what the
original's own count there is off by, which all recipes share; without it the luckiest original would make every recipe
look bad. e: the noise of comparing the two on that set, by a ratio estimator over speakers (Cochran 1977, "Sampling
techniques", section 6.4). All are taken as Gaussian, so the answer is that of linear regression (Rasmussen and Williams
2006, "Gaussian processes", equations 2.25, 2.26).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import NormalDist
from typing import Self

import numpy as np

from evaluators.accuracy.error_rate import ErrorRate
from evaluators.accuracy.intervals import ratio_variance, sum_by, units_of
from search.limits.budget import WerBudget
from search.trial import Trial, TrialAccuracy, UtteranceErrors

SLOPE, SLOPE_SD = 3.4, 1.0
"""k before a run's own WERs: rises of 1 to 22 % of six recipes of tiny.en on speech of other kinds than the search's,
least squares through 0, give or take 0.7 (docs/decisions/0032-how-much-a-runs-own-speech-tells.md)."""
KIND_SD = 2.5
"""Of `kind`, in the units of k: on LibriSpeech, which these recipes were searched on, k is 0.8."""
SCATTER = 0.4
"""Of those six, the spread of T / (k d): 0.45."""
LUCK_SD = 0.1
"""A guess."""
HALF_AN_ERROR = 0.5
"""Errors are whole numbers: `at most 40` is what a Gaussian calls at most 40.5."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """The rise of one recipe: mean and standard deviation; `probability`: that it is within the budget."""

    rise: float
    rise_sd: float
    probability: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Rise:
    """A recipe's rise on one set, and the variance of its noise."""

    value: float
    variance: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Certainty:
    """What the scored trials of a run say of all recipes. `allowed`: the largest rise, with its standard deviation;
    `original_wer`: on the search set.
    """

    allowed: float
    allowed_sd: float
    original_wer: float
    _slope: Rise
    _rises: Mapping[str, Rise] = field(repr=False)

    @classmethod
    def of(
        cls, baseline: Trial, trials: Sequence[Trial], confirmations: Mapping[str, ErrorRate], budget: WerBudget
    ) -> Self:
        """`baseline`: the original's trial, scored. `trials`: those scored on the whole set count.

        `confirmations`: errors on the confirm set, by recipe id.
        """
        original = _accuracy(baseline)
        others = [t for t in trials if t.state == "complete" and t.accuracy and t.recipe.id != baseline.recipe.id]
        known = [trial for trial in others if trial.divergence]
        slope, rises = _posterior(
            [trial.divergence.mean for trial in known if trial.divergence],
            [rise_on(_accuracy(trial), original) for trial in known],
            [_confirmed(trial, baseline, confirmations) for trial in known],
        )
        allowed = (budget.limit(original.rate).errors + HALF_AN_ERROR) / max(original.rate.errors, 1) - 1
        return cls(
            allowed=allowed,
            allowed_sd=0.0 if budget.is_relative else (1 + allowed) * sqrt(_own_variance(original)),
            original_wer=original.wer,
            _slope=slope,
            _rises={t.recipe.id: rise for t, rise in zip(known, rises, strict=True)}
            | {baseline.recipe.id: Rise(value=0.0, variance=0.0)},
        )

    def scored(self, recipe_id: str) -> Estimate | None:
        """Of a recipe with a divergence, and a WER on the whole set; None for others."""
        rise = self._rises.get(recipe_id)
        return None if rise is None else _estimate(rise, self.allowed, self.allowed_sd)

    def expected(self, divergence: float) -> Estimate:
        """Of a recipe of which only the divergence is known."""
        own = (SCATTER * self._slope.value * divergence) ** 2
        rise = Rise(value=self._slope.value * divergence, variance=divergence**2 * self._slope.variance + own)
        return _estimate(rise, self.allowed, self.allowed_sd)

    def largest_divergence(self, confidence: float) -> float:
        """That of a recipe which is within the budget with this probability; 0 if none but the original is."""
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.expected(middle).probability >= confidence else (low, middle)
        return low


def rise_on(accuracy: TrialAccuracy, original: TrialAccuracy) -> Rise:
    """The rise of a recipe's errors over the original's on one set, where both have the same utterances.

    The variance is that of the ratio of the two sums over speakers, or utterances where there is only one speaker, but
    at least that of one error.
    """
    total, before = max(original.rate.errors, 1), {utterance.id: utterance.errors for utterance in original.utterances}
    heard = [utterance for utterance in accuracy.utterances if utterance.id in before]
    variance = _ratio_variance(heard, under=[before[utterance.id] for utterance in heard])
    return Rise(value=accuracy.rate.errors / total - 1, variance=max(variance, 1 / total**2))


def _ratio_variance(heard: Sequence[UtteranceErrors], *, under: Sequence[int]) -> float:
    """Of the ratio of their errors to other numbers of the same utterances; 0 where nothing tells."""
    _, units = units_of([utterance.speaker for utterance in heard], [utterance.id for utterance in heard])
    below = sum_by(units, under)
    over = sum_by(units, [utterance.errors for utterance in heard])
    return ratio_variance(over, below) if len(below) > 1 and below.sum() else 0.0


def _own_variance(accuracy: TrialAccuracy) -> float:
    """Of the relative error of the original's WER."""
    variance = _ratio_variance(accuracy.utterances, under=[utterance.words for utterance in accuracy.utterances])
    return variance / accuracy.wer**2 if accuracy.wer else 0.0


def _confirmed(trial: Trial, baseline: Trial, confirmations: Mapping[str, ErrorRate]) -> Rise | None:
    """On the confirm set, of which only sums are kept: the search set's variance, by the number of errors."""
    mine, original = (confirmations.get(t.recipe.id) for t in (trial, baseline))
    if mine is None or original is None or trial.accuracy is None:
        return None
    searched, total = _accuracy(baseline), max(original.errors, 1)
    variance = rise_on(trial.accuracy, searched).variance * searched.rate.errors / total
    return Rise(value=mine.errors / total - 1, variance=max(variance, 1 / total**2))


def _posterior(
    divergences: Sequence[float], searched: Sequence[Rise], confirmed: Sequence[Rise | None]
) -> tuple[Rise, list[Rise]]:
    """The slope k, and the rise T of each recipe."""
    d = np.array(divergences, float)
    seen = [(index, rise, 0) for index, rise in enumerate(searched)]
    seen += [(index, rise, 1) for index, rise in enumerate(confirmed) if rise is not None]
    places, which = np.array([index + 1 for index, *_ in seen], int), np.array([which for *_, which in seen], int)
    prior, spread = SLOPE * np.concatenate([[1.0], d]), SLOPE_SD * np.concatenate([[1.0], d])
    covariance = np.outer(spread, spread) + np.diag(np.concatenate([[0.0], np.square(SCATTER * SLOPE * d)]))
    noise = np.diag([rise.variance for _, rise, _ in seen]) + LUCK_SD**2 * (which[:, None] == which)
    noise += KIND_SD**2 * np.outer(d[places - 1], d[places - 1])
    across = covariance[:, places]
    gain = np.linalg.solve(across[places] + noise, across.T).T
    mean = prior + gain @ (np.array([rise.value for _, rise, _ in seen], float) - prior[places])
    variances = (covariance - gain @ across.T).diagonal().clip(min=0.0)
    slope, *rises = [Rise(value=float(m), variance=float(v)) for m, v in zip(mean, variances, strict=True)]
    return Rise(value=max(slope.value, 0.0), variance=slope.variance), rises


def _estimate(rise: Rise, allowed: float, allowed_sd: float) -> Estimate:
    spread = sqrt(rise.variance + allowed_sd**2)
    probability = NormalDist(rise.value, spread).cdf(allowed) if spread else float(rise.value <= allowed)
    return Estimate(rise=rise.value, rise_sd=sqrt(rise.variance), probability=probability)


def _accuracy(trial: Trial) -> TrialAccuracy:
    if trial.accuracy is None:
        raise ValueError(f"trial {trial.number} has no WER")
    return trial.accuracy
