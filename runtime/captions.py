"""Captions as readers want them: at most two lines of 42 characters and 6 s each, from words with their times.

Line length, number of lines and time: BBC and Netflix guidelines for subtitles ask for about as much.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from runtime.words import Word

LINE_CHARACTERS, LINES, LONGEST_S = 42, 2, 6.0
PAUSE_S = 1.0
"""Words on both sides of a longer pause stand in different captions."""
SENTENCE_CHARACTERS = 20
"""A caption of at least so much ends with its sentence."""
READABLE_S, SHORTEST_S = 1.0, 0.2
"""A caption stays for a second where the next one leaves the time, and at least for a fifth of one."""
_SENTENCE_ENDS = (".", "!", "?", "。", "！", "？")


@dataclass(frozen=True, kw_only=True)
class Caption:
    """Lines that are shown together, from and to a time in seconds."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


class CaptionMaker:
    """Makes captions of words as they come. None overlap, and each ends after it begins."""

    def __init__(self) -> None:
        self._words: list[Word] = []
        self._waiting: Caption | None = None
        self._free_s = 0.0

    def add(self, words: Iterable[Word]) -> Iterator[Caption]:
        """Take in further words; the captions that are complete by that, each when the next one begins."""
        for word in words:
            for part in _parts(word):
                if self._words and not self._fits(part):
                    yield from self._complete()
                self._words.append(part)

    def flush(self, until_s: float) -> Iterator[Caption]:
        """What is left, before a pause or the end: the last caption may stay until then."""
        yield from self._complete()
        if self._waiting:
            yield self._shown(self._waiting, max(until_s, self._waiting.start_s + SHORTEST_S))
            self._waiting = None

    def _fits(self, word: Word) -> bool:
        first, last = self._words[0], self._words[-1]
        text = "".join(held.text for held in self._words)
        lines = wrapped([*(held.text for held in self._words), word.text])
        ends = text.rstrip().endswith(_SENTENCE_ENDS) and len(text) >= SENTENCE_CHARACTERS and word.text[:1] == " "
        is_late = word.end_s - max(first.start_s, self._free_s) > LONGEST_S or word.start_s - last.end_s > PAUSE_S
        return len(lines) <= LINES and not ends and not is_late

    def _complete(self) -> Iterator[Caption]:
        """The words held become a caption, which waits for the next one to begin."""
        if not self._words:
            return
        start_s = max(self._words[0].start_s, self._free_s)
        lines = tuple(wrapped([word.text for word in self._words]))
        end_s = max(self._words[-1].end_s, start_s)
        self._words = []
        if self._waiting:
            start_s = max(start_s, self._waiting.start_s + SHORTEST_S)
            yield self._shown(self._waiting, start_s)
        self._waiting = Caption(start_s=start_s, end_s=max(end_s, start_s), lines=lines)

    def _shown(self, caption: Caption, next_s: float) -> Caption:
        """With its final times: `next_s` is when the next begins."""
        end_s = min(max(caption.end_s, caption.start_s + READABLE_S), next_s, caption.start_s + LONGEST_S)
        self._free_s = end_s
        return replace(caption, end_s=end_s)


def captions(words: Iterable[Word]) -> list[Caption]:
    """All captions of a recording's words."""
    maker, held = CaptionMaker(), list(words)
    last_s = held[-1].end_s + READABLE_S if held else 0.0
    return [*maker.add(held), *maker.flush(last_s)]


def wrapped(texts: Iterable[str]) -> list[str]:
    """Lines of at most 42 characters, broken between words."""
    lines: list[str] = [""]
    for text in texts:
        if lines[-1] and len(lines[-1] + text) > LINE_CHARACTERS:
            lines.append("")
        lines[-1] += text if lines[-1] else text.lstrip()
    return [line for line in lines if line]


def _parts(word: Word) -> Iterator[Word]:
    """A word that is longer than a line in pieces that are not, each with its share of the time."""
    text, step_s = word.text, (word.end_s - word.start_s) / max(1, len(word.text))
    if len(text.strip()) <= LINE_CHARACTERS:
        yield word
        return
    for place in range(0, len(text), LINE_CHARACTERS):
        part = text[place : place + LINE_CHARACTERS]
        start_s = word.start_s + place * step_s
        yield Word(text=part, start_s=start_s, end_s=min(word.end_s, start_s + len(part) * step_s))


def srt_entry(number: int, caption: Caption) -> str:
    """A caption of an SRT, which numbers them from 1; an empty line follows."""
    return f"{number}\n{_time(caption.start_s, ',')} --> {_time(caption.end_s, ',')}\n" + _block(caption)


def vtt_entry(caption: Caption) -> str:
    """A caption of a WebVTT, whose text must not hold the signs of its markup."""
    return f"{_time(caption.start_s, '.')} --> {_time(caption.end_s, '.')}\n" + _block(caption, escape=True)


VTT_HEAD = "WEBVTT\n\n"


def _block(caption: Caption, *, escape: bool = False) -> str:
    text = "\n".join(caption.lines)
    if escape:
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{text}\n\n"


def _time(seconds: float, mark: str) -> str:
    """HH:MM:SS,mmm."""
    whole_s, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole_s, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02}{mark}{milliseconds:03}"
