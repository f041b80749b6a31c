"""Errors as a multiple of the original's, with an interval."""

from types import SimpleNamespace

import pytest

from benchmarks.wer.other_speech import ratio_interval
from evaluators.accuracy.word_errors import ErrorCounts, count_errors


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


def evaluation(wrong: dict[str, list[int]]) -> SimpleNamespace:
    return SimpleNamespace(counts=[counts(s, n, w) for s, many in wrong.items() for n, w in enumerate(many)])


def test_a_recipe_that_errs_in_the_same_proportion_everywhere_has_no_interval() -> None:
    original, doubled = ({s: [k * f for k in (1, 2)] for s in "abcdef"} for f in (1, 2))
    assert ratio_interval(evaluation(doubled), evaluation(original)) == pytest.approx((2.0, 2.0, 2.0))


def test_speakers_are_resampled_together_and_utterances_of_a_single_one_apart() -> None:
    original = {"a": [2, 2, 2, 2], "b": [2, 2, 2, 2]}
    uneven = {"a": [2, 2, 2, 2], "b": [6, 6, 6, 6]}
    ratio, low, high = ratio_interval(evaluation(uneven), evaluation(original))
    assert (ratio, low, high) == pytest.approx((2.0, 1.0, 3.0))
    alone, before = {"a": [2, 6, 2, 6]}, {"a": [2, 2, 2, 2]}
    assert ratio_interval(evaluation(alone), evaluation(before))[0] == pytest.approx(2.0)
    assert ratio_interval(evaluation(alone), evaluation(before))[1] == pytest.approx(1.0)
