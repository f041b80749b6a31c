"""How sure it is that a recipe is within the budget: against closed forms and against simulated worlds."""

from dataclasses import replace
from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest

from evaluators.accuracy.divergence import Divergence
from evaluators.accuracy.error_rate import ErrorRate
from search.certainty import KIND_SD, LUCK_SD, SCATTER, SLOPE, SLOPE_SD, Certainty, rise_on
from search.limits.budget import WerBudget
from search.trial import Trial, TrialAccuracy, UtteranceErrors
from tests.search.conftest import ORIGINAL, _trial

BUDGET = WerBudget.parse("+10%")
WORDS = 20


def accuracy(errors: list[int], speakers: str | None = None) -> TrialAccuracy:
    utterances = tuple(
        UtteranceErrors(
            id=f"u{n}", insertions=0, deletions=0, substitutions=e, words=WORDS, speaker=speakers[n] if speakers else ""
        )
        for n, e in enumerate(errors)
    )
    rate = ErrorRate(errors=sum(errors), words=WORDS * len(errors), low=0.0, high=1.0)
    return TrialAccuracy(rate=rate, utterances=utterances)


def trial(number: int, errors: list[int], divergence: float | None) -> Trial:
    recipe = ORIGINAL if number == 0 else replace(ORIGINAL, window_s=1.0 + number / 100)
    measured = None if divergence is None else Divergence(nats=(100 * divergence,), tokens=(100,))
    return replace(
        _trial(number, objective=1.0 - number / 1000, wer=0.05, recipe=recipe),
        accuracy=accuracy(errors),
        divergence=measured,
    )


BASELINE = trial(0, [2] * 50, 0.0)


def test_without_scored_recipes_the_prior_decides() -> None:
    certainty = Certainty.of(BASELINE, [BASELINE], {}, BUDGET)
    found = certainty.expected(0.03)
    assert found.rise == pytest.approx(SLOPE * 0.03)
    spread = 0.03 * sqrt(SLOPE_SD**2 + (SCATTER * SLOPE) ** 2)
    assert found.rise_sd == pytest.approx(spread)
    assert certainty.allowed == pytest.approx(0.105)  # 110 errors are allowed, and 110.5 are 110
    assert found.probability == pytest.approx(NormalDist(found.rise, spread).cdf(0.105))


def test_one_scored_recipe_is_combined_with_the_prior_by_precision() -> None:
    other = trial(1, [2, 3] * 25, 0.04)
    certainty = Certainty.of(BASELINE, [BASELINE, other], {}, BUDGET)
    measured = rise_on(accuracy([2, 3] * 25), accuracy([2] * 50))
    assert measured.value == pytest.approx(0.25)
    prior, prior_var = SLOPE * 0.04, 0.04**2 * (SLOPE_SD**2 + (SCATTER * SLOPE) ** 2)
    noise = measured.variance + LUCK_SD**2 + (KIND_SD * 0.04) ** 2
    found = certainty.scored(other.recipe.id)
    assert found
    assert found.rise == pytest.approx((prior / prior_var + 0.25 / noise) / (1 / prior_var + 1 / noise))
    assert found.rise_sd == pytest.approx(sqrt(1 / (1 / prior_var + 1 / noise)))


def test_the_variance_is_that_of_the_ratio_over_speakers() -> None:
    mine, before = [3, 1, 4, 2, 2, 5], [2, 1, 3, 2, 1, 4]
    found = rise_on(accuracy(mine, "aabbcc"), accuracy(before, "aabbcc"))
    clusters = np.array([(4, 3), (6, 5), (7, 5)], float)
    ratio = clusters[:, 0].sum() / clusters[:, 1].sum()
    left = clusters[:, 0] - ratio * clusters[:, 1]
    assert found.value == pytest.approx(ratio - 1)
    floor = 1 / 13**2
    assert found.variance == pytest.approx(max(np.square(left).sum() * 3 / 2 / 13**2, floor))


def test_the_utterances_of_a_single_speaker_are_told_apart() -> None:
    mine, before = [3, 1, 4, 2, 2, 5], [2, 1, 3, 2, 1, 4]
    alone, unnamed = (rise_on(accuracy(mine, names), accuracy(before, names)) for names in ("aaaaaa", None))
    assert alone == unnamed
    assert alone.variance > 1 / 13**2


def test_luck_of_the_original_is_no_merit_of_recipes() -> None:
    """All recipes make a fifth fewer errors than an unlucky original, whatever their divergence."""
    lucky = [trial(n, [2, 1] * 20 + [2] * 10, 0.002 * n) for n in range(1, 30)]
    certainty = Certainty.of(BASELINE, [BASELINE, *lucky], {}, BUDGET)
    last = certainty.scored(lucky[-1].recipe.id)
    assert last
    assert last.rise > -0.1
    assert certainty.expected(0.3).probability < 0.4


def test_what_both_sets_say_is_surer_than_what_one_says() -> None:
    other = trial(1, [2, 3] * 25, 0.04)
    rates = {t.recipe.id: ErrorRate(errors=e, words=1000, low=0, high=1) for t, e in ((BASELINE, 100), (other, 125))}
    one, both = (Certainty.of(BASELINE, [BASELINE, other], confirmed, BUDGET) for confirmed in ({}, rates))
    found = [certainty.scored(other.recipe.id) for certainty in (one, both)]
    assert found[0]
    assert found[1]
    assert found[1].rise_sd < found[0].rise_sd
    assert found[1].probability < found[0].probability


def test_the_largest_divergence_is_where_the_probability_crosses_the_confidence() -> None:
    certainty = Certainty.of(BASELINE, [BASELINE], {}, BUDGET)
    for confidence in (0.5, 0.9, 0.99):
        edge = certainty.largest_divergence(confidence)
        assert certainty.expected(edge).probability == pytest.approx(confidence, abs=1e-6)
    assert certainty.largest_divergence(0.5) == pytest.approx(0.105 / SLOPE)


def test_an_absolute_budget_is_as_uncertain_as_the_original_s_own_rate() -> None:
    relative = Certainty.of(BASELINE, [BASELINE], {}, BUDGET)
    uneven = trial(0, [0, 4] * 25, 0.0)
    absolute = Certainty.of(uneven, [uneven], {}, WerBudget.parse("11%"))
    assert absolute.allowed == pytest.approx(relative.allowed)
    assert (relative.allowed_sd, absolute.allowed_sd > 0.1) == (0.0, True)


def test_recipes_without_a_divergence_have_no_estimate() -> None:
    other = trial(1, [2] * 50, None)
    assert Certainty.of(BASELINE, [BASELINE, other], {}, BUDGET).scored(other.recipe.id) is None


def test_stated_probabilities_hold_in_worlds_like_the_model() -> None:
    """Rises drawn from the prior, errors drawn for 60 speakers: of what is said with p, a share p is so."""
    rng = np.random.default_rng(0)
    said, true = [], []
    for _ in range(60):
        slope = max(rng.normal(SLOPE, SLOPE_SD), 0)
        divergences = np.geomspace(0.005, 0.12, 12)
        rises = slope * divergences + rng.normal(0, SCATTER * SLOPE * divergences)
        hard, kind = rng.gamma(2.0, 1.0, 60), rng.normal(0, KIND_SD)
        trials = [trial(0, rng.poisson(hard).tolist(), 0.0)]
        trials += [
            trial(n, rng.poisson(hard * max(1 + rise + kind * d, 0)).tolist(), float(d))
            for n, (rise, d) in enumerate(zip(rises, divergences, strict=True), 1)
        ]
        certainty = Certainty.of(trials[0], trials, {}, BUDGET)
        for candidate, rise in zip(trials[1:], rises, strict=True):
            found = certainty.scored(candidate.recipe.id)
            assert found
            said.append(found.probability)
            true.append(rise <= certainty.allowed)
    probabilities, outcomes = np.array(said), np.array(true, float)
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        chosen = (probabilities >= low) & (probabilities <= high)
        assert outcomes[chosen].mean() == pytest.approx(probabilities[chosen].mean(), abs=0.12)
