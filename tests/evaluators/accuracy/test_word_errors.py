"""Word errors against an edit distance written here."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisper.tokenizer import LANGUAGES

from compression.recipe.spaceless import SPACELESS
from evaluators.accuracy.normaliser_names import counted_units
from evaluators.accuracy.normalisers import normaliser_for
from evaluators.accuracy.word_errors import (
    ErrorCounts,
    count_errors,
    paired_difference,
    pooled_accuracy,
    reference_words,
)

# openai-whisper leaves english.json open
words = st.lists(st.sampled_from(("red", "green", "blue")), max_size=6).map(tuple)


def counts(utterance: str, speaker: str, errors: int, n_words: int) -> ErrorCounts:
    return ErrorCounts(
        utterance_id=utterance, speaker=speaker, insertions=0, deletions=0, substitutions=errors, words=n_words
    )


def random_counts(seed: int, speakers: int, each: int = 3) -> list[ErrorCounts]:
    rng = np.random.default_rng(seed)
    return [
        counts(f"{speaker}-{i}", f"speaker {speaker}", int(rng.integers(0, 5)), int(rng.integers(8, 30)))
        for speaker in range(speakers)
        for i in range(each)
    ]


@cache
def distance(reference: tuple[str, ...], hypothesis: tuple[str, ...]) -> int:
    if not reference or not hypothesis:
        return len(reference) + len(hypothesis)
    replaced = distance(reference[1:], hypothesis[1:]) + (reference[0] != hypothesis[0])
    return min(replaced, distance(reference[1:], hypothesis) + 1, distance(reference, hypothesis[1:]) + 1)


@given(words, words)
def test_errors_are_the_edit_distance(reference: tuple[str, ...], hypothesis: tuple[str, ...]) -> None:
    counted = count_errors(
        utterance_id="a", speaker="s", reference=" ".join(reference), hypothesis=" ".join(hypothesis), language="en"
    )
    assert counted.errors == distance(reference, hypothesis)
    assert counted.insertions - counted.deletions == len(hypothesis) - len(reference)
    assert counted.words == len(reference)


@pytest.mark.parametrize(
    ("language", "reference", "hypothesis", "errors"),
    [
        ("en", "DOCTOR SMITH HAS TWENTY TWO COLOURS", "Dr. Smith has 22 colors.", 0),
        ("en", "I will not", "I won't!", 0),
        ("de", "Das kostet zwei Mark.", "das kostet 2 Mark", 1),
        ("es", "qué hora es", "¿Qué hora es?", 0),
        ("en", "[noise]", "hello there", 2),
    ],
)
def test_texts_are_compared_after_whispers_normaliser(
    language: str, reference: str, hypothesis: str, errors: int
) -> None:
    counted = count_errors(utterance_id="a", speaker="s", reference=reference, hypothesis=hypothesis, language=language)
    assert counted.errors == errors


def test_the_normalisers_name_states_kind_and_version() -> None:
    assert normaliser_for("en").name == "whisper-english-20250625.1"
    assert normaliser_for("de").name == normaliser_for("es").name == "whisper-basic-20250625.1"


@pytest.mark.parametrize(
    ("language", "reference", "hypothesis", "errors", "characters"),
    [
        ("zh", "今天天气很好。", "今天 天氣很好", 1, 6),
        ("ja", "東京タワー", "とうきょうタワー", 5, 5),
        ("yue", "你好嗎?", "", 3, 3),
        ("zh", "用 GPS 导航", "用gps导航", 0, 6),
        ("th", "ขอบคุณ", "ขอบคุน", 1, 5),  # a letter and its marks are one character
        ("th", "ขอบคุณ", "ขอบคูณ", 1, 5),  # a longer vowel, which Whisper's normaliser drops
        ("ko", "오늘 날씨가 좋다", "오늘 날씨 좋다", 1, 3),  # has spaces
    ],
)
def test_languages_without_spaces_are_counted_in_characters(
    language: str, reference: str, hypothesis: str, errors: int, characters: int
) -> None:
    counted = count_errors(utterance_id="a", speaker="s", reference=reference, hypothesis=hypothesis, language=language)
    assert (counted.errors, counted.words) == (errors, characters)
    assert reference_words(reference, language) == characters


@given(st.text("今天气很好", min_size=1, max_size=6), st.text("今天气很好", max_size=6))
def test_character_errors_are_the_edit_distance_of_characters(reference: str, hypothesis: str) -> None:
    counted = count_errors(utterance_id="a", speaker="s", reference=reference, hypothesis=hypothesis, language="zh")
    assert counted.errors == distance(tuple(reference), tuple(hypothesis))


def test_the_normalisers_name_says_what_is_counted() -> None:
    for language in SPACELESS:
        assert normaliser_for(language).name == "whisper-characters-20250625.1"
    assert set(LANGUAGES) >= SPACELESS
    counted = {"en": "words", "zh": "characters", "de": "words"}
    for language, units in counted.items():
        assert counted_units(normaliser_for(language).name) == units
    both = "+".join(normaliser_for(language).name for language in ("en", "zh"))
    assert counted_units(both) == "words and characters"
    for normaliser, begins in ((normaliser_for("zh").name, "CER 10.00 % (95 %: "), (both, "WER 10.00 % (95 %: ")):
        assert pooled_accuracy([counts("a", "x", 1, 10)], normaliser=normaliser, seed=0).text.startswith(begins)


def test_counts_are_pooled() -> None:
    """One wrong word of one and nine right ones of nine make 1/10, not 1/2."""
    accuracy = pooled_accuracy([counts("a", "x", 1, 1), counts("b", "y", 0, 9)], normaliser="n", seed=0)
    assert (accuracy.rate.substitutions, accuracy.rate.words, accuracy.utterances) == (1, 10, 2)
    assert accuracy.wer == 0.1


def test_one_speaker_is_resampled_by_utterance() -> None:
    """As if every utterance had its own speaker, and it says so."""
    alone = [replace(c, speaker="one") for c in random_counts(2, 8)]
    apart = [replace(c, speaker=c.utterance_id) for c in alone]
    accuracy = pooled_accuracy(alone, normaliser="n", seed=0)
    assert accuracy.resampled == "utterance"
    assert accuracy == replace(pooled_accuracy(apart, normaliser="n", seed=0), resampled="utterance")


def test_the_seed_decides_the_interval() -> None:
    sample = random_counts(5, 12)
    assert pooled_accuracy(sample, normaliser="n", seed=1) == pooled_accuracy(sample[::-1], normaliser="n", seed=1)
    other = [replace(c, substitutions=c.substitutions + i % 2) for i, c in enumerate(sample)]
    assert paired_difference(sample, other, seed=1) != paired_difference(sample, other, seed=2)


def test_a_rate_needs_words() -> None:
    with pytest.raises(ValueError, match="at least one reference word"):
        pooled_accuracy([counts("a", "x", 2, 0)], normaliser="n", seed=0)
    with pytest.raises(ValueError, match="at least one reference word"):
        paired_difference([counts("a", "x", 2, 0)], [counts("a", "x", 2, 0)], seed=0)


def test_a_constant_difference_has_no_spread() -> None:
    first = [counts(f"{i}", f"s{i}", i, 20) for i in range(9)]
    second = [replace(c, substitutions=c.substitutions + 2) for c in first]
    difference = paired_difference(first, second[::-1], seed=0)
    assert (difference.difference, difference.low, difference.high) == (0.1, 0.1, 0.1)


def test_the_paired_interval_is_narrower_than_the_unpaired_ones() -> None:
    first = random_counts(7, 40)
    second = [replace(c, substitutions=c.substitutions + (i % 5 == 0)) for i, c in enumerate(first)]
    accuracy = pooled_accuracy(first, normaliser="n", seed=0)
    difference = paired_difference(first, second, seed=0)
    assert 0 < difference.low < difference.difference < difference.high
    assert difference.high - difference.low < (accuracy.rate.high - accuracy.rate.low) / 2


def test_a_paired_difference_needs_the_same_utterances() -> None:
    with pytest.raises(ValueError, match="same utterances"):
        paired_difference(random_counts(0, 3), random_counts(0, 4), seed=0)
