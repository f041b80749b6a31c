"""Which clips divergence is measured on."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from evaluators.speech.audio import SAMPLE_RATE
from evaluators.speech.augmentation import at_level, reverberated
from evaluators.speech.divergence_clips import CLIP_S, CONDITIONS, clips_digest, draw_clips
from evaluators.speech.noise import power
from evaluators.speech.speech_set import SpeechSet


@pytest.fixture(scope="module")
def speakers(sample: SpeechSet) -> SpeechSet:
    """Three speakers with 3, 1 and 1 utterances."""
    named = zip(sample.utterances, "aaabc", strict=True)
    return replace(sample, utterances=tuple(replace(utterance, speaker=name) for utterance, name in named))


def test_speakers_take_turns(speakers: SpeechSet) -> None:
    speaker_of = {utterance.id: utterance.speaker for utterance in speakers.utterances}
    drawn = [speaker_of[clip.name] for clip in draw_clips(speakers.utterances, 9, seed=1, widen=False)]
    assert sorted(drawn[:3]) == ["a", "b", "c"]
    assert drawn[3:] == ["a", "a"]


def test_fewer_clips_are_the_first_of_more(speakers: SpeechSet) -> None:
    more, fewer = (draw_clips(speakers.utterances, count, seed=3, widen=True) for count in (5, 2))
    assert [clip.name for clip in more[:2]] == [clip.name for clip in fewer]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(more, fewer, strict=False))


def test_every_second_clip_is_heard_under_another_condition(speakers: SpeechSet) -> None:
    wide, plain = (draw_clips(speakers.utterances, 5, seed=0, widen=widen) for widen in (True, False))
    for index, (changed, clean) in enumerate(zip(wide, plain, strict=True)):
        assert np.array_equal(changed.samples, clean.samples) == (index % 2 == 0)
    assert [clip.name.partition(" ")[2] for clip in wide] == ["", "(noise)", "", "(room)", ""]
    assert all(0 < clip.duration_s <= CLIP_S for clip in wide)


def test_the_digest_is_that_of_what_is_drawn(speakers: SpeechSet) -> None:
    digests = {
        clips_digest(speakers.utterances, count, seed=seed, widen=widen)
        for count, seed, widen in ((3, 0, True), (3, 0, False), (4, 0, True), (3, 1, True))
    }
    assert len(digests) == 4
    assert clips_digest(speakers.utterances, 3, seed=0, widen=True) in digests


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_leave_speech_of_about_its_length(name: str) -> None:
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(2 * SAMPLE_RATE)).astype(np.float32)
    changed = CONDITIONS[name](samples, np.random.default_rng(1))
    assert changed.dtype == np.float32
    assert 0.8 < len(changed) / len(samples) < 1.2
    assert np.abs(changed).max() <= 1
    assert np.array_equal(changed, CONDITIONS[name](samples, np.random.default_rng(1)))


def test_levels_are_decibels() -> None:
    samples = np.full(100, 0.1, np.float32)
    assert at_level(samples, -20.0) == pytest.approx(np.full(100, 0.01))
    assert np.abs(at_level(samples, 40.0)).max() == 1


def test_a_room_adds_a_decaying_tail_of_the_asked_energy() -> None:
    click = np.zeros(2 * SAMPLE_RATE, np.float32)
    click[0] = 1
    heard = reverberated(click, np.random.default_rng(0), decay_s=0.5, reverberant_db=-3.0)
    assert power(heard) == pytest.approx(power(click), rel=1e-4)
    direct, tail = heard[0] ** 2, np.square(heard[1:], dtype=np.float64)
    assert 10 * np.log10(tail.sum() / direct) == pytest.approx(-3.0, abs=0.7)  # the first sample holds noise too
    parts = [10 * np.log10(tail[start : start + 800].sum()) for start in range(0, 7200, 800)]
    falls = [before - after for before, after in pairwise(parts)]
    assert np.mean(falls) == pytest.approx(60 * 800 / (0.5 * SAMPLE_RATE), rel=0.1)
