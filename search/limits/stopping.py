"""When a candidate's evaluation may end early: once it is surely over the WER budget."""

from collections.abc import Sequence

import numpy as np

from search.trial import UtteranceErrors

MIN_UTTERANCES = 16
"""Fewer utterances say too little for the bootstrap."""
CONFIDENCE = 0.995
RESAMPLES = 2000


def surely_over_budget(
    scored: Sequence[UtteranceErrors],
    baseline: dict[str, UtteranceErrors],
    *,
    wer_limit: float,
    rng: np.random.Generator,
) -> str | None:
    """Why a candidate cannot keep within `wer_limit` any more, or None while it may.

    Certain: its errors so far are already more than the limit allows on the whole set. Confident: when it is
    compared with the baseline on the utterances that both have, its excess over the limit, relative to the
    baseline's WER, is above zero in 99.5 % of bootstrap resamples of utterances (paired, one-sided).
    `baseline` holds the baseline's errors of every utterance by id.
    """
    total_words = sum(errors.words for errors in baseline.values())
    seen = sum(scored_utterance.errors for scored_utterance in scored)
    if seen > wer_limit * total_words:
        return f"over the budget after {len(scored)} of {len(baseline)} utterances, whatever the rest"
    if len(scored) < MIN_UTTERANCES:
        return None
    baseline_total = sum(utterance.errors for utterance in baseline.values())
    ratio = wer_limit * total_words / baseline_total if baseline_total else np.inf
    if not np.isfinite(ratio):
        return None
    excess = np.array(
        [scored_utterance.errors - ratio * baseline[scored_utterance.id].errors for scored_utterance in scored]
    )
    resampled = excess[rng.integers(len(excess), size=(RESAMPLES, len(excess)))].sum(1)
    if np.quantile(resampled, 1 - CONFIDENCE) > 0:
        return f"over the budget after {len(scored)} of {len(baseline)} utterances with {CONFIDENCE:.1%} confidence"
    return None


def wer_violation(
    scored: Sequence[UtteranceErrors], baseline: dict[str, UtteranceErrors], *, wer_limit: float
) -> float:
    """How far the WER is over its limit, relative to it; on a part of the set, over the limit's share there.

    That share is the baseline's share of its errors, since some utterances are harder than others.
    """
    words = sum(scored_utterance.words for scored_utterance in scored)
    total_words = sum(utterance.words for utterance in baseline.values())
    baseline_total = sum(utterance.errors for utterance in baseline.values())
    baseline_seen = sum(baseline[scored_utterance.id].errors for scored_utterance in scored)
    share = baseline_seen / baseline_total if baseline_seen else words / total_words
    allowed = wer_limit * total_words * share
    errors = sum(scored_utterance.errors for scored_utterance in scored)
    return errors / allowed - 1 if allowed else float(errors > 0)
