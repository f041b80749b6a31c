"""What a listener says."""

from dataclasses import dataclass

from runtime.words import Word


@dataclass(frozen=True, kw_only=True)
class FinalWords:
    """Words that will not change any more, with their times in the stream, in seconds."""

    words: tuple[Word, ...]


@dataclass(frozen=True, kw_only=True)
class Tentative:
    """What the words behind the final ones may be."""

    text: str


@dataclass(frozen=True, kw_only=True)
class SegmentEnd:
    """A pause, or where speech without pauses was cut: seconds in the stream."""

    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Switch:
    """From here in the stream, in seconds, another model of the bundle listens, and why."""

    at_s: float
    before: str
    after: str
    reason: str


Event = FinalWords | Tentative | SegmentEnd | Switch
