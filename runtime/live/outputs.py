"""How live captions are written: lines of text, JSON lines, or an SRT or VTT that grows."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, Protocol

from runtime.captions import VTT_HEAD, Caption, CaptionMaker, srt_entry, vtt_entry
from runtime.errors import OptionError
from runtime.formats import FORMATS
from runtime.live.events import Event, FinalWords, SegmentEnd, Tentative

Write = Callable[[str], None]


class Output(Protocol):
    """Is shown what the listener says, and once at the end what it cost."""

    def show(self, event: Event) -> None:
        """Write what the event adds; nothing written is ever changed."""

    def end(self, at_s: float, report: dict[str, Any]) -> None:
        """The stream is over after so many seconds."""


class TextOutput:
    """A line for each segment, which grows by its final words."""

    def __init__(self, write: Write) -> None:
        self._write, self._is_empty = write, True

    def show(self, event: Event) -> None:
        if isinstance(event, FinalWords):
            text = "".join(word.text for word in event.words)
            self._write(text.lstrip() if self._is_empty else text)
            self._is_empty = False
        elif isinstance(event, SegmentEnd) and not self._is_empty:
            self._write("\n")
            self._is_empty = True

    def end(self, at_s: float, report: dict[str, Any]) -> None:
        """The report is not text."""
        if not self._is_empty:
            self._write("\n")


class JsonOutput:
    """An object in each line, whose `event` is `words`, `tentative`, `segment`, `switch` or, at the end, `report`."""

    def __init__(self, write: Write) -> None:
        self._write, self._text = write, ""

    def show(self, event: Event) -> None:
        if isinstance(event, FinalWords):
            self._text += "".join(word.text for word in event.words)
            self._line("words", {"words": [asdict(word) for word in event.words]})
        elif isinstance(event, Tentative):
            self._line("tentative", asdict(event))
        elif isinstance(event, SegmentEnd):
            if self._text:
                self._line("segment", {**asdict(event), "text": self._text.strip()})
            self._text = ""
        else:
            self._line("switch", asdict(event))

    def end(self, at_s: float, report: dict[str, Any]) -> None:
        self._line("report", report)

    def _line(self, event: str, values: dict[str, Any]) -> None:
        self._write(json.dumps({"event": event, **values}, ensure_ascii=False) + "\n")


class CaptionOutput:
    """An SRT or VTT, to which each caption is added when it is complete."""

    def __init__(self, write: Write, *, is_vtt: bool) -> None:
        self._write, self._is_vtt = write, is_vtt
        self._maker, self._count = CaptionMaker(), 0
        if is_vtt:
            write(VTT_HEAD)

    def show(self, event: Event) -> None:
        if isinstance(event, FinalWords):
            self._add(self._maker.add(event.words))
        elif isinstance(event, SegmentEnd):
            self._add(self._maker.flush(event.end_s))

    def end(self, at_s: float, report: dict[str, Any]) -> None:
        self._add(self._maker.flush(at_s))

    def _add(self, captions: Iterable[Caption]) -> None:
        for caption in captions:
            self._count += 1
            self._write(vtt_entry(caption) if self._is_vtt else srt_entry(self._count, caption))


def output_for(name: str, write: Write) -> Output:
    """Raises OptionError for an unknown format."""
    if name == "text":
        return TextOutput(write)
    if name == "json":
        return JsonOutput(write)
    if name in ("srt", "vtt"):
        return CaptionOutput(write, is_vtt=name == "vtt")
    raise OptionError(f"unknown format {name!r}. Known: {', '.join(FORMATS)}")
