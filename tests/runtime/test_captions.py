"""Captions keep the rules of readers, whatever the words are."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.captions import (
    LINE_CHARACTERS,
    LINES,
    LONGEST_S,
    Caption,
    CaptionMaker,
    captions,
    srt_entry,
    vtt_entry,
    wrapped,
)
from runtime.words import Word


def words(*texts: str, start_s: float = 0.0, each_s: float = 0.5) -> list[Word]:
    """One after another, without gaps."""
    return [
        Word(text=f" {text}", start_s=start_s + index * each_s, end_s=start_s + (index + 1) * each_s)
        for index, text in enumerate(texts)
    ]


@st.composite
def spoken(draw: st.DrawFn) -> list[Word]:
    found, now_s = list[Word](), 0.0
    for _ in range(draw(st.integers(0, 30))):
        now_s += draw(st.sampled_from((0.0, 0.0, 0.3, 2.0)))
        end_s = now_s + draw(st.sampled_from((0.0, 0.1, 0.4, 1.5, 7.0)))
        letters = draw(st.sampled_from((1, 3, 7, 12, 50, 130)))
        text = " " + "x" * letters + draw(st.sampled_from(("", "", ",", ".")))
        found.append(Word(text=text, start_s=now_s, end_s=end_s))
        now_s = end_s
    return found


@given(spoken())
def test_no_caption_is_too_long_overlaps_or_ends_before_it_begins(said: list[Word]) -> None:
    found = captions(said)
    for caption in found:
        assert 1 <= len(caption.lines) <= LINES
        assert all(0 < len(line) <= LINE_CHARACTERS for line in caption.lines)
        assert caption.start_s < caption.end_s <= caption.start_s + LONGEST_S
    for earlier, later in pairwise(found):
        assert earlier.end_s <= later.start_s
    shown = "".join("".join(caption.lines) for caption in found)
    assert shown.replace(" ", "") == "".join(word.text for word in said).replace(" ", "")


@given(spoken())
def test_captions_that_grow_are_those_of_the_whole(said: list[Word]) -> None:
    maker = CaptionMaker()
    grown = [caption for word in said for caption in maker.add([word])]
    assert [*grown, *maker.flush(said[-1].end_s + 1 if said else 0.0)] == captions(said)


def test_a_caption_ends_with_its_sentence_and_at_a_pause() -> None:
    said = [*words("This", "is", "the", "first", "sentence."), *words("And", "another", start_s=2.5)]
    said += words("later", start_s=9.0)
    assert captions(said) == [
        Caption(start_s=0.0, end_s=2.5, lines=("This is the first sentence.",)),
        Caption(start_s=2.5, end_s=3.5, lines=("And another",)),
        Caption(start_s=9.0, end_s=10.0, lines=("later",)),
    ]


def test_lines_break_between_words() -> None:
    assert wrapped([" twenty-one letters here", " and twenty-two of them"]) == [
        "twenty-one letters here",
        "and twenty-two of them",
    ]
    assert wrapped(["我", "们"]) == ["我们"]


@pytest.mark.parametrize(("seconds", "written"), [(0.0, "00:00:00,000"), (3599.9999, "01:00:00,000")])
def test_an_srt_entry(seconds: float, written: str) -> None:
    entry = srt_entry(7, Caption(start_s=seconds, end_s=360_000.25, lines=("a", "b")))
    assert entry == f"7\n{written} --> 100:00:00,250\na\nb\n\n"


def test_a_vtt_entry_escapes_markup() -> None:
    entry = vtt_entry(Caption(start_s=1.0, end_s=2.5, lines=("a < b & c",)))
    assert re.fullmatch(r"00:00:01\.000 --> 00:00:02\.500\na &lt; b &amp; c\n\n", entry)
