"""The growing window on scripted passes: final words are never revised."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.audio import SAMPLE_RATE, Floats
from runtime.live.growing_window import GrowingWindow
from runtime.words import Word
from tests.runtime.live.scripted import Script, ScriptedTranscriber

SOUND = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
A, B, C, D = range(4)


def window(script: Script, samples: Floats = SOUND) -> tuple[GrowingWindow, ScriptedTranscriber]:
    transcriber = ScriptedTranscriber(script)
    return GrowingWindow(transcriber, samples, start=0, language="en", task="transcribe"), transcriber


def passes(growing: GrowingWindow, count: int) -> list[str]:
    """The texts that become final in so many passes, a second after each other, and at the end."""
    texts = []
    for _ in range(count):
        texts.append(joined(growing.decode_again(spoken_s=growing.duration_s)))
        growing.grow(SOUND)
    return [*texts, joined(growing.finish(spoken_s=growing.duration_s))]


def joined(words: tuple[Word, ...]) -> str:
    return "".join(word.text for word in words)


def test_words_are_final_when_two_passes_agree_and_the_rest_at_the_end() -> None:
    growing, transcriber = window([(A, B), (A, C), (C, D), (D,)])
    assert passes(growing, 3) == ["", " a", " c", " d"]
    assert transcriber.prefixes == [(), (), (A,), (A, C)]


def test_nothing_is_decoded_at_the_end_if_all_was_heard() -> None:
    growing, transcriber = window([(A, B), (A, B, C)])
    growing.decode_again(spoken_s=0.7)
    growing.grow(SOUND)
    assert joined(growing.decode_again(spoken_s=1.7)) == " a b"
    assert growing.tentative == " c"
    assert joined(growing.finish(spoken_s=1.7)) == " c"
    assert len(transcriber.prefixes) == 2


def test_a_word_is_final_without_agreement_when_it_is_late() -> None:
    growing, _ = window([(A, B)], np.tile(SOUND, 4))
    assert joined(growing.decode_again(spoken_s=4.0, max_lag_s=3.85)) == " a"
    assert joined(growing.decode_again(spoken_s=4.0)) == ""


def test_what_is_cut_off_keeps_its_words_and_the_rest_begins_with_those_behind() -> None:
    samples = np.tile(SOUND, 10)
    samples[6 * SAMPLE_RATE : round(6.4 * SAMPLE_RATE)] = 0
    growing, transcriber = window([(A, B), (A, B), (C,), (D,)], samples)
    growing.decode_again(spoken_s=10.0)
    assert joined(growing.decode_again(spoken_s=10.0)) == " a b"
    assert joined(growing.cut()) == " c"
    assert abs(growing.start / SAMPLE_RATE - 6.2) < 0.06
    assert transcriber.heard_s[-1] == growing.start / SAMPLE_RATE
    assert joined(growing.decode_again(spoken_s=3.0)) == ""
    assert transcriber.prefixes[-1] == ()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=2, max_size=8), st.data())
def test_final_words_are_never_revised(script: list[list[int]], data: st.DataObject) -> None:
    """Whatever the passes say, also when the window is cut: each begins with all words that are final in the window, in
    order, and times do not go back.
    """
    growing, transcriber = window(script)
    final: list[Word] = []
    for _ in range(len(script) - 1):
        if data.draw(st.booleans()) and growing.duration_s >= 4:
            final += growing.cut()
        else:
            final += growing.decode_again(
                spoken_s=growing.duration_s, max_lag_s=data.draw(st.sampled_from((None, 0.5)))
            )
        growing.grow(np.tile(SOUND, 2))
    before = list(final)
    final += growing.finish(spoken_s=growing.duration_s)
    assert final[: len(before)] == before
    for earlier, later in pairwise(final):
        assert earlier.end_s <= later.start_s
    said = tuple(ord(word.text[1]) - ord("a") for word in final)
    for prefix in transcriber.prefixes:
        assert any(said[place : place + len(prefix)] == prefix for place in range(len(said) - len(prefix) + 1))
