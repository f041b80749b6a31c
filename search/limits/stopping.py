"""When a candidate's evaluation may end early: once it is surely over the WER budget."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from search.limits.budget import WerLimit
from search.trial import UtteranceErrors

MIN_UTTERANCES = 16
"""Fewer utterances say too little for the bootstrap."""
CONFIDENCE = 0.995
RESAMPLES = 2000


def surely_over_budget(
    scored: Sequence[UtteranceErrors],
    baseline: dict[str, UtteranceErrors],
    *,
    wer_limit: WerLimit,
    rng: np.random.Generator,
) -> str | None:
    """Why a candidate cannot keep within `wer_limit`, that of the whole set, any more, or None while it may.

    Certain: its errors so far are already more than the limit allows on the whole set. Confident: when it is
    compared with the baseline on the utterances that both have, its excess over the limit, relative to the
    baseline's WER, is above zero in 99.5 % of bootstrap resamples of utterances (paired, one-sided).
    `baseline` holds the baseline's errors of every utterance by id.
    """
    if not wer_limit.allows(sum(scored_utterance.errors for scored_utterance in scored)):
        return f"over the budget after {len(scored)} of {len(baseline)} utterances, whatever the rest"
    if len(scored) < MIN_UTTERANCES:
        return None
    baseline_total = sum(utterance.errors for utterance in baseline.values())
    if not baseline_total:
        return None
    ratio = float(wer_limit.rate * wer_limit.words / baseline_total)
    excess = np.array(
        [scored_utterance.errors - ratio * baseline[scored_utterance.id].errors for scored_utterance in scored]
    )
    resampled = excess[rng.integers(len(excess), size=(RESAMPLES, len(excess)))].sum(1)
    if np.quantile(resampled, 1 - CONFIDENCE) > 0:
        return f"over the budget after {len(scored)} of {len(baseline)} utterances with {CONFIDENCE:.1%} confidence"
    return None


def wer_violation(
    scored: Sequence[UtteranceErrors], baseline: dict[str, UtteranceErrors], *, wer_limit: WerLimit
) -> float:
    """How far the WER is over its limit, relative to it; on a part of the set, over the limit's share there.

    That share is the baseline's share of its errors, since some utterances are harder than others.
    """
    words = sum(scored_utterance.words for scored_utterance in scored)
    baseline_total = sum(utterance.errors for utterance in baseline.values())
    baseline_seen = sum(baseline[scored_utterance.id].errors for scored_utterance in scored)
    share = Fraction(baseline_seen, baseline_total) if baseline_seen else Fraction(words, wer_limit.words)
    return wer_limit.violation(sum(scored_utterance.errors for scored_utterance in scored), share=share)
