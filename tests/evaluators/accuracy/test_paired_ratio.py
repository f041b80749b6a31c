"""Errors as a multiple of the original's, with an interval."""

import pytest

from evaluators.accuracy.word_errors import ErrorCounts, count_errors, paired_ratio


def counts(speaker: str, number: int, wrong: int) -> ErrorCounts:
    words = [f"word{n}" for n in range(20)]
    heard = [f"other{n}" if n < wrong else word for n, word in enumerate(words)]
    return count_errors(
        utterance_id=f"{speaker}{number}",
        speaker=speaker,
        reference=" ".join(words),
        hypothesis=" ".join(heard),
        language="en",
        normaliser="basic",
    )


def ratio_interval(found: dict[str, list[int]], original: dict[str, list[int]]) -> tuple[float, float, float]:
    before, after = (
        [counts(s, n, w) for s, many in wrong.items() for n, w in enumerate(many)] for wrong in (original, found)
    )
    return paired_ratio(before, after, seed=0)


def test_a_recipe_that_errs_in_the_same_proportion_everywhere_has_no_interval() -> None:
    original, doubled = ({s: [k * f for k in (1, 2)] for s in "abcdef"} for f in (1, 2))
    assert ratio_interval(doubled, original) == pytest.approx((2.0, 2.0, 2.0))


def test_speakers_are_resampled_together_and_utterances_of_a_single_one_apart() -> None:
    original = {"a": [2, 2, 2, 2], "b": [2, 2, 2, 2]}
    uneven = {"a": [2, 2, 2, 2], "b": [6, 6, 6, 6]}
    ratio, low, high = ratio_interval(uneven, original)
    assert (ratio, low, high) == pytest.approx((2.0, 1.0, 3.0))
    alone, before = {"a": [2, 6, 2, 6]}, {"a": [2, 2, 2, 2]}
    assert ratio_interval(alone, before)[0] == pytest.approx(2.0)
    assert ratio_interval(alone, before)[1] == pytest.approx(1.0)


def test_other_utterances_or_an_original_without_errors_give_no_ratio() -> None:
    with pytest.raises(ValueError, match="same utterances"):
        ratio_interval({"a": [1, 2]}, {"a": [1]})
    with pytest.raises(ValueError, match="at least one error"):
        ratio_interval({"a": [1, 2]}, {"a": [0, 0]})
