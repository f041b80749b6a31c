"""The race against all orders of small sets, a second implementation, and simulated sets of many kinds."""

import random
from collections.abc import Callable
from fractions import Fraction
from itertools import permutations
from math import inf, log, prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from evaluators.accuracy.blocks import dealt
from search.limits.budget import WerLimit
from search.limits.racing import ALPHA, SURE, evidence_over, evidence_under
from search.trial import UtteranceErrors

WORDS = 10
SPEAKERS, EACH = 20, 4
RUNS = 100
Utterances = list[UtteranceErrors]
Errors = npt.NDArray[Any]
PAIRS = st.lists(st.tuples(st.integers(0, WORDS), st.integers(0, WORDS)), min_size=2, max_size=4)


def utterances(errors: list[int], speakers: list[int] | None = None) -> Utterances:
    speakers = speakers or list(range(len(errors)))
    return [
        UtteranceErrors(id=f"u{n}", insertions=0, deletions=0, substitutions=e, words=WORDS, speaker=f"s{speaker}")
        for n, (e, speaker) in enumerate(zip(errors, speakers, strict=True))
    ]


def by_id(found: Utterances) -> dict[str, UtteranceErrors]:
    return {utterance.id: utterance for utterance in found}


def limit_of(errors: int, count: int) -> WerLimit:
    return WerLimit(rate=Fraction(errors, WORDS * count), words=WORDS * count)


@pytest.mark.parametrize(("evidence", "beyond"), [(evidence_over, 0), (evidence_under, -1)])
@settings(deadline=None, max_examples=40)
@given(pairs=PAIRS)
def test_over_all_orders_of_a_set_at_the_limit_the_capital_keeps_its_mean(evidence, beyond, pairs):
    """The set is the least extreme one that is to be rejected: at the limit, or one error over it."""
    candidate, baseline = (utterances(list(column)) for column in zip(*pairs, strict=True))
    errors = sum(utterance.errors for utterance in candidate)
    assume(errors + beyond >= 0)
    limit, known = limit_of(errors + beyond, len(pairs)), by_id(baseline)
    orders = list(permutations(candidate))
    found = np.array([evidence(order, known, wer_limit=limit) for order in orders])
    assert np.exp(found[:, :-1]).mean(0) == pytest.approx(1)
    assert (found >= SURE).any(1).mean() <= ALPHA


@settings(deadline=None, max_examples=50)
@given(pairs=PAIRS, allowed=st.integers(0, 40), heard=st.integers(1, 4))
def test_the_capital_is_that_of_bets_placed_one_by_one(pairs, allowed, heard):
    candidate, baseline = (utterances(list(column)) for column in zip(*pairs, strict=True))
    heard, mean = min(heard, len(pairs) - 1), sum(o for _, o in pairs) / len(pairs)
    predicted = [min(o, 2 * mean) for _, o in pairs]
    capitals = [[1.0] for _ in range(5)]
    so_far = 0
    for n, (errors, _) in enumerate(pairs[:heard]):
        left = (allowed - so_far - sum(predicted[n:])) / (len(pairs) - n)
        room = left + max(predicted[n:])
        assume(room > 0.01 and allowed - so_far >= errors)
        for f, capital in enumerate(capitals):
            capital.append(1 + (f + 1) / 6 * (errors - predicted[n] - left) / room)
        so_far += errors
    found = evidence_over(candidate[:heard], by_id(baseline), wer_limit=limit_of(allowed, len(pairs)))
    expected = [log(sum(prod(capital[: n + 2]) for capital in capitals) / 5) for n in range(heard)]
    assert found == pytest.approx(expected)


@settings(deadline=None, max_examples=50)
@given(pairs=PAIRS, allowed=st.integers(0, 40), heard=st.integers(1, 5))
def test_certain_is_what_no_rest_can_change(pairs, allowed, heard):
    """Over: already more than allowed. Under: at most allowed if every word of the rest is wrong."""
    candidate, baseline = (utterances(list(column)) for column in zip(*pairs, strict=True))
    heard = min(heard, len(pairs))
    errors, rest = sum(c for c, _ in pairs[:heard]), WORDS * (len(pairs) - heard)
    asked = candidate[:heard], by_id(baseline)
    limit = limit_of(allowed, len(pairs))
    over, under = (evidence(*asked, wer_limit=limit)[-1] for evidence in (evidence_over, evidence_under))
    assert (over == inf) == (errors > allowed)
    assert (under == inf) == (errors + rest <= allowed)
    if heard == len(pairs):
        assert {over, under} == {inf, -inf}


@settings(deadline=None, max_examples=50)
@given(pairs=PAIRS, allowed=st.integers(0, 40), heard=st.integers(1, 3))
def test_what_comes_later_changes_nothing_of_what_was_known(pairs, allowed, heard):
    candidate, baseline = (utterances(list(column)) for column in zip(*pairs, strict=True))
    heard, limit = min(heard, len(pairs) - 1), limit_of(allowed, len(pairs))
    for evidence in (evidence_over, evidence_under):
        part, whole = (evidence(some, by_id(baseline), wer_limit=limit) for some in (candidate[:heard], candidate))
        assert part == pytest.approx(whole[:heard])


def even(rng: np.random.Generator, count: int) -> Errors:
    return rng.poisson(2.0, count)


def loops(rng: np.random.Generator, count: int) -> Errors:
    """Few errors, and all words of a few utterances."""
    return np.where(rng.random(count) < 0.08, WORDS, rng.poisson(0.3, count))


def half(rng: np.random.Generator, count: int) -> Errors:
    return rng.integers(0, 2, count) * WORDS


def by_speaker(rng: np.random.Generator, count: int) -> Errors:
    """Everybody has a rate of their own."""
    return rng.poisson(np.repeat(rng.gamma(0.5, 4.0, SPEAKERS), EACH))[:count]


def alike(rng: np.random.Generator, count: int) -> Errors:
    """All speakers make the same errors, and each differs within: then spreading them over blocks helps least."""
    return np.concatenate([rng.permutation([0, 0, 0, WORDS]) for _ in range(SPEAKERS)])[:count]


def wrong(draw: Callable[[np.random.Generator, int], Errors], speakers: list[int], *, over: bool) -> float:
    """How often a candidate at the limit is called over, or one error above it under, after any utterance."""
    rng, found = np.random.default_rng(0), 0
    for run in range(RUNS):
        candidate, baseline = (
            utterances(np.minimum(draw(rng, len(speakers)), WORDS).tolist(), speakers) for _ in range(2)
        )
        errors = sum(utterance.errors for utterance in candidate)
        limit = limit_of(errors if over else max(errors - 1, 0), len(speakers))
        heard = [utterance for block in dealt(candidate, 20, random.Random(run)) for utterance in block]
        evidence = (evidence_over if over else evidence_under)(heard, by_id(baseline), wer_limit=limit)
        found += bool((evidence >= SURE).any())
    return found / RUNS


@pytest.mark.parametrize("over", [True, False])
@pytest.mark.parametrize("draw", [even, loops, half, by_speaker, alike])
@pytest.mark.parametrize("speaks", [1, EACH, SPEAKERS])
def test_wrong_decisions_are_as_rare_as_stated(draw, speaks, over):
    """Whoever is one speaker: each utterance, four, or twenty of the eighty."""
    speakers = [n // speaks for n in range(SPEAKERS * EACH)]
    at_most = binom.ppf(0.999, RUNS, ALPHA) / RUNS  # so many runs find a rate of ALPHA that much higher by chance
    assert wrong(draw, speakers, over=over) <= at_most


def test_what_is_far_under_the_limit_is_surely_under_before_the_end():
    rng = np.random.default_rng(0)
    baseline = np.minimum(rng.poisson(3.0, 200), WORDS).tolist()
    candidate, limit = utterances([e // 2 for e in baseline]), limit_of(int(1.1 * sum(baseline)), 200)
    assert evidence_under(candidate[:120], by_id(utterances(baseline)), wer_limit=limit)[-1] >= SURE
    assert evidence_over(candidate[:120], by_id(utterances(baseline)), wer_limit=limit).max() < SURE


def test_a_transcript_longer_than_its_reference_is_no_error():
    """More errors than words were not bet on: the evidence for "under" is gone, and no number is lost."""
    found = evidence_under(utterances([50, 0, 0, 0])[:1], by_id(utterances([0] * 4)), wer_limit=limit_of(20, 4))
    assert -inf < found[0] < -100
