"""Which tokens make a word."""

import pytest

from runtime.words import Word, word_slices


@pytest.mark.parametrize(
    ("tokens", "language", "words"),
    [
        ([" Hel", "lo", ",", " world", "!"], "en", [" Hello,", " world!"]),
        ([" (", "one", ")", " two"], "en", [" (one)", " two"]),
        ([", ", " and", " so"], "en", [",  and", " so"]),
        ([" ...", "."], "en", [" ...."]),
        ([" a", " –", " b"], "en", [" a –", " b"]),
        (["我", "们", "。", "好"], "zh", ["我", "们。", "好"]),
        ([], "en", []),
    ],
)
def test_tokens_make_words(tokens: list[str], language: str, words: list[str]) -> None:
    found = word_slices([token.encode() for token in tokens], language=language)
    assert ["".join(tokens[part]) for part in found] == words


def test_parts_of_a_character_stay_together() -> None:
    whole = "我们".encode()
    assert word_slices([whole[:2], whole[2:3], whole[3:]], language="zh") == [slice(0, 2), slice(2, 3)]
    assert word_slices([b" a", whole[:2]], language="en") == [slice(0, 2)]


@pytest.mark.parametrize(("start_s", "end_s"), [(-0.1, 1.0), (2.0, 1.0), (0.0, float("nan"))])
def test_a_word_does_not_end_before_it_begins(start_s: float, end_s: float) -> None:
    with pytest.raises(ValueError, match="must hold"):
        Word(text="a", start_s=start_s, end_s=end_s)
