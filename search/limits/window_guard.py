"""Whether a shortened encoder window makes a recipe repeat itself or say what nobody said: a mean WER can hide both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from search.limits.budget import WerLimit
from search.trial import UtteranceErrors

GUARDED = ("run_on", "insertions")
"""The names of the violations."""
CONFIDENCE = 0.95
RUN_ON_RATE = 1 / 2000
"""A share of transcripts that run on which is let pass beyond the original's: sound models ran on in 0 of 2,800."""
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowFinding:
    """`violations`: positive where a trial runs on or inserts more than it may. `note`: which and how much."""

    violations: dict[str, float]
    note: str


def check_window(
    scored: Sequence[UtteranceErrors],
    baseline: Mapping[str, UtteranceErrors],
    *,
    wer_limit: WerLimit,
    rng: np.random.Generator,
) -> WindowFinding:
    """Compare a trial with the original on the utterances that both have, transcript by transcript.

    Running on: more transcripts than the original's and, beside them, as many as a model that runs on once in 2,000
    would have by chance, in 95 % of all cases; the violation is the share of transcripts above that. Insertions: more
    than the original's times what the budget allows of all errors, in 95 % of bootstrap resamples of utterances; the
    violation is relative to that. `baseline` holds the original's errors by utterance.
    """
    before = [baseline[scored_utterance.id] for scored_utterance in scored]
    run_on, run_on_before = (sum(utterance.ran_on for utterance in side) for side in (scored, before))
    allowed = run_on_before + int(binom.ppf(CONFIDENCE, len(scored), RUN_ON_RATE))
    ratio = _allowed_ratio(baseline, wer_limit)
    inserted, inserted_before = (sum(utterance.insertions for utterance in side) for side in (scored, before))
    violations = {
        "run_on": (run_on - allowed) / len(scored),
        "insertions": _insertion_violation(scored, before, ratio=ratio, rng=rng),
    }
    notes = {
        "run_on": f"{run_on} transcripts run on (the original: {run_on_before}, allowed: {allowed})",
        "insertions": f"{inserted} insertions (the original: {inserted_before}), surely more than the budget's share",
    }
    return WindowFinding(violations=violations, note="; ".join(notes[name] for name in GUARDED if violations[name] > 0))


def _allowed_ratio(baseline: Mapping[str, UtteranceErrors], wer_limit: WerLimit) -> float:
    """By how much the budget lets the original's errors grow, at least not at all."""
    errors = sum(
        utterance.insertions + utterance.deletions + utterance.substitutions for utterance in baseline.values()
    )
    return max(1.0, float(wer_limit.rate * wer_limit.words / errors)) if errors else np.inf


def _insertion_violation(
    scored: Sequence[UtteranceErrors], before: Sequence[UtteranceErrors], *, ratio: float, rng: np.random.Generator
) -> float:
    if not np.isfinite(ratio):
        return 0.0
    excess = np.array([one.insertions - ratio * other.insertions for one, other in zip(scored, before, strict=True)])
    resampled = excess[rng.integers(len(excess), size=(RESAMPLES, len(excess)))].sum(1)
    if np.quantile(resampled, 1 - CONFIDENCE) <= 0:
        return 0.0
    allowed = ratio * sum(one.insertions for one in before)
    return float(excess.sum() / max(allowed, 1.0))
