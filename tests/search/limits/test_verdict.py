"""What is asked of detected languages."""

import pytest

from common.errors import InputError
from evaluators.accuracy.error_rate import ErrorRate
from search.limits.verdict import LANGUAGE, Budgets, Judge, keeps_languages, least_on
from search.scorer import check_languages_told
from search.trial import TrialAccuracy, UtteranceErrors


def accuracy(right: int | None, utterances: int = 20) -> TrialAccuracy:
    """So many of the utterances with the right language; None: nobody looked."""
    rate = ErrorRate(errors=utterances, words=10 * utterances, low=0.0, high=0.2)
    errors = tuple(
        UtteranceErrors(
            id=str(number),
            insertions=0,
            deletions=0,
            substitutions=1,
            words=10,
            right_language=None if right is None else number < right,
        )
        for number in range(utterances)
    )
    return TrialAccuracy(rate=rate, utterances=errors)


@pytest.mark.parametrize(("right", "over"), [(20, -0.0526), (19, 0.0), (18, 0.0526), (0, 1.0), (None, 1.0)])
def test_a_share_below_the_limit_is_a_violation(right: int | None, over: float) -> None:
    judge = Judge.of(accuracy(20), Budgets(wer="+10%", language_accuracy=0.95))
    found = judge.violations(accuracy(right), "complete")
    assert found[LANGUAGE] == pytest.approx(over, abs=1e-4)
    assert (found[LANGUAGE] > 0) == (right is None or right < 19)
    assert found["wer"] <= 0


def test_nothing_is_asked_of_a_part_or_without_a_limit() -> None:
    with_limit = Judge.of(accuracy(20), Budgets(wer="+10%", language_accuracy=0.95))
    assert LANGUAGE not in with_limit.violations(accuracy(0, utterances=5), "stopped")
    without = Judge.of(accuracy(20), Budgets(wer="+10%"))
    assert LANGUAGE not in without.violations(accuracy(0), "complete")


@pytest.mark.parametrize(
    ("found", "least", "keeps"),
    [(0.95, 0.95, True), (0.949, 0.95, False), (None, 0.95, False), (0.0, None, True), (None, None, True)],
)
def test_what_keeps_the_limit(found: float | None, least: float | None, keeps: bool) -> None:
    assert keeps_languages(found, least) == keeps


@pytest.mark.parametrize(
    ("original", "least", "expected"),
    [(1.0, 0.95, 0.95), (0.9, 0.95, 0.9), (0.0, 0.95, None), (None, 0.95, None), (1.0, None, None)],
)
def test_elsewhere_no_more_is_asked_than_the_original_tells(
    original: float | None, least: float | None, expected: float | None
) -> None:
    assert least_on(original, least) == expected


def test_a_limit_that_the_original_does_not_keep_is_said() -> None:
    check_languages_told(accuracy(19), 0.95)
    check_languages_told(accuracy(None), 0.95)
    with pytest.raises(InputError, match=r"the original itself detects the language of 90\.0 %"):
        check_languages_told(accuracy(18), 0.95)
