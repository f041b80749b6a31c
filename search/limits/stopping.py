"""When a candidate's evaluation may end early: once it is surely over the WER budget."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from search.limits.budget import WerLimit
from search.limits.racing import ALPHA, SURE, evidence_over
from search.trial import UtteranceErrors


def surely_over_budget(
    scored: Sequence[UtteranceErrors], baseline: Mapping[str, UtteranceErrors], *, wer_limit: WerLimit
) -> str | None:
    """Why a candidate will not keep within `wer_limit`, that of the whole set, or None while it may.

    Certain: its errors so far are already more than the limit allows on the whole set. Sure: they are over the limit's
    share of what was heard, and of candidates within the limit at most ALPHA are ever called over, however often this
    is asked (`search.limits.racing`). `scored`: in the order heard. `baseline`: the original's errors by id.
    """
    if not wer_limit.allows(sum(utterance.errors for utterance in scored)):
        return f"over the budget after {len(scored)} of {len(baseline)} utterances, whatever the rest"
    if wer_violation(scored, baseline, wer_limit=wer_limit) <= 0:
        return None
    if evidence_over(scored, baseline, wer_limit=wer_limit)[-1] >= SURE:
        return f"over the budget after {len(scored)} of {len(baseline)} utterances with {1 - ALPHA:.0%} confidence"
    return None


def wer_violation(
    scored: Sequence[UtteranceErrors], baseline: Mapping[str, UtteranceErrors], *, wer_limit: WerLimit
) -> float:
    """How far the WER is over its limit, relative to it; on a part of the set, over the limit's share there.

    That share is the baseline's share of its errors, since some utterances are harder than others.
    """
    words = sum(scored_utterance.words for scored_utterance in scored)
    baseline_total = sum(utterance.errors for utterance in baseline.values())
    baseline_seen = sum(baseline[scored_utterance.id].errors for scored_utterance in scored)
    share = Fraction(baseline_seen, baseline_total) if baseline_seen else Fraction(words, wer_limit.words)
    return wer_limit.violation(sum(scored_utterance.errors for scored_utterance in scored), share=share)
