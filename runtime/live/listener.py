"""Listens to a stream: opens a window where speech begins, has it decoded as it grows, closes it at a pause."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from runtime.audio import SAMPLE_RATE, Floats
from runtime.live.events import Event, FinalWords, SegmentEnd, Tentative
from runtime.live.growing_window import BEHIND_S, GrowingWindow
from runtime.live.voice_activity import VoiceActivity
from runtime.transcribe import Transcriber
from runtime.words import Word

BLOCK_S = 0.1
LEAD_S = 0.4
"""So much before the first loud sound belongs to its segment: weak consonants."""


@dataclass(frozen=True, kw_only=True)
class ListenerOptions:
    """How to listen. `language`, `task`: as in `Transcriber.transcribe`.

    `every_s`: after so much more speech the window is decoded again. `pause_s`: silence that ends a segment.
    `longest_s`: of a window; longer speech without a pause is cut where it is quietest. `max_lag_s`: words that ended
    so long ago are final though only one decoding has them; None: never. `hotwords`: text that the decoder sees before
    every window.
    """

    language: str | None = None
    task: str = "transcribe"
    every_s: float = 0.7
    pause_s: float = 0.8
    longest_s: float = 15.0
    max_lag_s: float | None = None
    hotwords: str = ""


class Listener:
    """Turns a stream of 16 kHz audio into words."""

    def __init__(self, transcriber: Transcriber, options: ListenerOptions) -> None:
        """Raises OptionError when the model does not know the language or the task."""
        self.transcriber = transcriber
        self.options = options
        self.language = options.language or transcriber.artifact.language
        transcriber.artifact.vocabulary.check(language=self.language, task=options.task)
        self._activity = VoiceActivity()
        self._window: GrowingWindow | None = None
        self._segment_start_s = 0.0
        self._waiting = np.empty(0, np.float32)
        self._lead = np.empty(0, np.float32)
        self._position = 0

    @property
    def heard_s(self) -> float:
        """How much of the stream was taken in."""
        return (self._position + len(self._waiting)) / SAMPLE_RATE

    @property
    def is_listening(self) -> bool:
        """Whether a segment is going on."""
        return self._window is not None

    def hear(self, samples: Floats, *, is_behind: bool = False) -> Iterator[Event]:
        """Take in what follows (samples,). `is_behind`: more audio is there already; then only pauses are decoded."""
        self._waiting = np.concatenate([self._waiting, samples])
        size = round(BLOCK_S * SAMPLE_RATE)
        while len(self._waiting) >= size:
            block, self._waiting = self._waiting[:size], self._waiting[size:]
            yield from self._hear_block(block, is_behind=is_behind or len(self._waiting) >= size)

    def finish(self) -> Iterator[Event]:
        """The stream is over: the last words."""
        if self._window:
            self._window.grow(self._waiting)
            yield from self._close(self._window)

    def _hear_block(self, block: Floats, *, is_behind: bool) -> Iterator[Event]:
        self._position += len(block)
        self._activity.hear(block)
        if self._window is None:
            self._open(block)
            return
        window = self._window
        window.grow(block)
        if self._activity.quiet_s >= self.options.pause_s:
            yield from self._close(window)
        elif window.duration_s >= self.options.longest_s:
            yield from self._final(window.cut())
        elif not is_behind and self._is_due(window):
            yield from self._final(
                window.decode_again(spoken_s=self._spoken_s(window), max_lag_s=self.options.max_lag_s)
            )
            yield Tentative(text=window.tentative)

    def _open(self, block: Floats) -> None:
        """Open a window if speech has begun; else only remember the last moment."""
        self._lead = np.concatenate([self._lead, block])
        if self._activity.is_speech:
            start = self._position - len(self._lead)
            self._segment_start_s = start / SAMPLE_RATE
            self._window = GrowingWindow(
                self.transcriber,
                self._lead,
                start=start,
                language=self.language,
                task=self.options.task,
                previous=self.transcriber.before(self.options.hotwords),
            )
            self._lead = np.empty(0, np.float32)
        else:
            self._lead = self._lead[-round(LEAD_S * SAMPLE_RATE) :]

    def _is_due(self, window: GrowingWindow) -> bool:
        """Whether decoding again would hear more: speech that goes on, or the end of speech."""
        spoken_s = self._spoken_s(window)
        if window.decoded_s >= min(window.duration_s, spoken_s + BEHIND_S):
            return False
        at_end = self._activity.quiet_s >= BEHIND_S
        return at_end or window.duration_s - window.decoded_s >= self.options.every_s

    def _spoken_s(self, window: GrowingWindow) -> float:
        """Where in the window its last sound ends."""
        return max(0.0, window.duration_s - self._activity.quiet_s)

    def _close(self, window: GrowingWindow) -> Iterator[Event]:
        yield from self._final(window.finish(spoken_s=self._spoken_s(window)))
        self.language = self.language or window.language
        self._window = None
        self._lead = window.samples[-round(LEAD_S * SAMPLE_RATE) :]
        yield SegmentEnd(start_s=self._segment_start_s, end_s=self._position / SAMPLE_RATE)

    def _final(self, words: tuple[Word, ...]) -> Iterator[Event]:
        if words:
            yield FinalWords(words=words)
