"""Listening to a stream: when the model runs, and what live captions have that whole files do not."""

import jiwer
import numpy as np
import pytest
from whisper.normalizers import EnglishTextNormalizer

from runtime.audio import SAMPLE_RATE, Floats
from runtime.errors import OptionError
from runtime.live.events import Event, FinalWords, SegmentEnd
from runtime.live.listener import Listener, ListenerOptions
from runtime.transcribe import Transcriber
from tests.runtime.live.scripted import ScriptedTranscriber

RNG = np.random.default_rng(0)
A, B = 0, 1


def noise(seconds: float, level: float) -> Floats:
    return RNG.normal(0, level, round(seconds * SAMPLE_RATE)).astype(np.float32)


QUIET, LOUD = 1e-3, 0.1


def text(events: list[Event]) -> str:
    """A line for each segment with words."""
    lines = [""]
    for event in events:
        if isinstance(event, FinalWords):
            lines[-1] += "".join(word.text for word in event.words)
        elif isinstance(event, SegmentEnd):
            lines.append("")
    return "\n".join(line.strip() for line in lines if line)


def events_of(listener: Listener, samples: Floats, size: int = 1600) -> list[Event]:
    blocks = (samples[start : start + size] for start in range(0, len(samples), size))
    return [*(event for block in blocks for event in listener.hear(block)), *listener.finish()]


def test_no_model_runs_where_nobody_speaks() -> None:
    transcriber = ScriptedTranscriber([(A,)])
    assert events_of(Listener(transcriber, ListenerOptions()), noise(60, QUIET)) == []
    assert transcriber.prefixes == []


def test_segments_end_at_pauses() -> None:
    transcriber = ScriptedTranscriber([(A,)])
    samples = np.concatenate([noise(2, QUIET), noise(1, LOUD), noise(2, QUIET), noise(1, LOUD), noise(0.3, QUIET)])
    events = events_of(Listener(transcriber, ListenerOptions()), samples)
    (first, second) = (event for event in events if isinstance(event, SegmentEnd))
    assert (first.start_s, first.end_s) == pytest.approx((1.7, 3.9), abs=0.11)
    assert second.start_s == pytest.approx(4.7, abs=0.11)
    assert len(text(events).split("\n")) == 2


@pytest.mark.parametrize("size", [160, 1600, 7000, 200_000])
def test_it_does_not_matter_how_the_stream_is_divided(size: int) -> None:
    samples = np.concatenate([noise(1, QUIET), noise(3, LOUD), noise(2, QUIET)])
    script = [(A, B), (A, B), ()]
    whole = events_of(Listener(ScriptedTranscriber(script), ListenerOptions()), samples)
    divided = events_of(Listener(ScriptedTranscriber(script), ListenerOptions()), samples, size)
    assert text(divided) == text(whole) == "a b"


def test_what_waits_is_decoded_only_at_its_pauses() -> None:
    transcriber = ScriptedTranscriber([(A,)])
    listener = Listener(transcriber, ListenerOptions())
    samples = np.concatenate([noise(1, QUIET), noise(6, LOUD), noise(2, QUIET)])
    assert text([*listener.hear(samples), *listener.finish()]) == "a"
    assert len(transcriber.prefixes) == 1


def test_a_window_is_never_longer_than_the_encoder_hears() -> None:
    transcriber = ScriptedTranscriber([()])
    options = ListenerOptions(longest_s=15)
    words = np.concatenate([np.concatenate([noise(0.6, LOUD), noise(0.3, QUIET)]) for _ in range(50)])
    events_of(Listener(transcriber, options), words)
    assert 10 < max(transcriber.heard_s) <= 15.1


def test_the_language_is_checked_before_anything_is_heard() -> None:
    with pytest.raises(OptionError, match="does not know the language 'de'"):
        Listener(ScriptedTranscriber([()]), ListenerOptions(language="de"))


def test_live_words_are_nearly_those_of_the_whole_file(tiny: Transcriber, clips: list[Floats]) -> None:
    """At most one word in eight differs, the segments are the clips, and times lie in them."""
    parts = [part for clip in clips[:3] for part in (clip, noise(1.5, QUIET / 3))]
    samples = np.concatenate(parts)
    events = events_of(Listener(tiny, ListenerOptions()), samples)
    normalise = EnglishTextNormalizer()
    offline, live = normalise(tiny.transcribe(samples).text), normalise(text(events))
    assert jiwer.wer(offline, live) <= 1 / 8
    words = [word for event in events if isinstance(event, FinalWords) for word in event.words]
    ends = np.cumsum([len(part) for part in parts])[::2] / SAMPLE_RATE
    starts = [0, *(np.cumsum([len(part) for part in parts])[1:-1:2] / SAMPLE_RATE)]
    spoken = [word for word in words if any(letter.isalnum() for letter in word.text)]
    inside = [
        any(a - 0.3 <= w.start_s and w.end_s <= b + 0.3 for a, b in zip(starts, ends, strict=True)) for w in spoken
    ]
    assert np.mean(inside) > 0.95
