"""Whether a candidate's errors on the whole set will be over the limit, or under it, by those heard so far.

Both questions are tests by betting, valid whenever one looks. The set is finite, its utterances are heard in random
order, and each has a value x that is at least its `lowest`. The hypothesis is that the set's values sum to at most
`total`. What is left of the total then says what the mean of the values not yet heard is at most, and one bets on the
next value being above that mean m:

    capital = product over the utterances heard of  1 + f (x - m) / (m - lowest of all not yet heard),  0 < f < 1

While the hypothesis is true the capital's expectation never grows, so it comes to 1 / ALPHA at any time with a
probability of at most ALPHA (Ville's inequality): rejected means sure. Sources: Waudby-Smith and Ramdas 2024,
"Estimating means of bounded random variables by betting" (JRSS B 86:1), section 5 for sampling without replacement; the
mean of the capitals of several f is their diversified Kelly bet. That the sum is compared with what the original's
errors predict, since those are known for the whole set, is the control variate of Shekhar et al. 2023, "Risk-limiting
financial audits via weighted sampling without replacement" (UAI).

Over: x = errors - predicted, at least -predicted, so nothing is assumed about how bad an utterance may be. Under:
x = predicted - errors, where an utterance not yet heard is taken to have no more errors than words: a transcript that
runs on may break that, so what is surely under is still to be scored on the whole set before anything rests on it.

Orders that spread speakers over the blocks (`evaluators.accuracy.blocks.dealt`) are random where everybody speaks
once; where they are not, the rate of wrong decisions is measured (`tests/search/limits/test_racing.py`,
`benchmarks/speed/racing.py`).
"""

from collections.abc import Mapping, Sequence
from math import inf, log

import numpy as np
import numpy.typing as npt

from search.limits.budget import WerLimit
from search.trial import UtteranceErrors

ALPHA = 0.05
"""In each direction: the largest probability, over the orders of the set, of ever being sure and wrong."""
SURE = log(1 / ALPHA)
"""The evidence that it takes."""
FRACTIONS = np.arange(1, 6) / 6
"""f: shares of the largest bet that cannot ruin."""
OUTLIER = 2.0
"""Over: predicted are the original's errors, but at most so many times their mean: what they were in a few lost or
looping utterances says little, and would only make all bets small."""
HALF_AN_ERROR = 0.5
"""Sums of whole errors that differ by less are equal but for rounding."""
ROUNDING = 1e-9

Floats = npt.NDArray[np.float64]


def evidence_over(
    scored: Sequence[UtteranceErrors], baseline: Mapping[str, UtteranceErrors], *, wer_limit: WerLimit
) -> Floats:
    """(scored,): after each utterance, the logarithm of the capital against "within `wer_limit` on the whole set".

    Infinite where it is certain. `scored`: in the order heard. `baseline`: the original's errors of every utterance of
    the set, by id.
    """
    original, _ = _original(scored, baseline)
    predicted = np.minimum(original, OUTLIER * original.mean())
    heard = np.array([utterance.errors for utterance in scored], float)
    return _evidence(heard - predicted[: len(heard)], lowest=-predicted, total=wer_limit.errors - predicted.sum())


def evidence_under(
    scored: Sequence[UtteranceErrors], baseline: Mapping[str, UtteranceErrors], *, wer_limit: WerLimit
) -> Floats:
    """The same against "over `wer_limit` on the whole set"."""
    original, words = _original(scored, baseline)
    predicted = np.minimum(original, words)
    heard = np.array([utterance.errors for utterance in scored], float)
    total = predicted.sum() - (wer_limit.errors + 1)
    return _evidence(predicted[: len(heard)] - heard, lowest=predicted - words, total=total)


def _evidence(values: Floats, *, lowest: Floats, total: float) -> Floats:
    """Against "all values sum to at most `total`". `values` (heard,), `lowest` (set,): of the same first."""
    count, size = len(values), len(lowest)
    before = np.concatenate([[0.0], np.cumsum(values)])
    mean = (total - before[:-1]) / (size - np.arange(count))
    room = mean - np.minimum.accumulate(lowest[::-1])[::-1][:count]
    gain = np.divide(values - mean, room, out=np.zeros(count), where=room > ROUNDING)
    factors = np.maximum(1 + FRACTIONS[:, None] * gain, np.finfo(float).tiny)
    evidence = np.logaddexp.reduce(np.log(factors).cumsum(1)) - log(len(FRACTIONS))
    if count == size:
        evidence[-1] = -inf
    least_left = lowest.sum() - lowest.cumsum()[:count]
    evidence[total - before[1:] < least_left - HALF_AN_ERROR] = inf
    return np.asarray(evidence)


def _original(scored: Sequence[UtteranceErrors], baseline: Mapping[str, UtteranceErrors]) -> tuple[Floats, Floats]:
    """The original's errors, and the words, of the whole set: those heard first, in their order."""
    heard = {utterance.id for utterance in scored}
    ids = [utterance.id for utterance in scored] + [name for name in baseline if name not in heard]
    original = [baseline[name] for name in ids]
    return np.array([one.errors for one in original], float), np.array([one.words for one in original], float)
