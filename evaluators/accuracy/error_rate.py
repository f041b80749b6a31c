"""An error rate with its counts and interval: one value for a set, a group, a trial, a confirmation, an artifact."""

from collections.abc import Iterable
from dataclasses import dataclass

RATE_COLUMNS = ("wer", "wer_low", "wer_high", "insertions", "deletions", "substitutions", "words")
"""Of an error rate in CSV files and JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorRate:
    """Errors against the words of the references (characters in languages without spaces), pooled.

    `low`, `high`: the 95 % interval of `wer` (see `evaluators.accuracy.intervals`). The three kinds of errors are None
    in records from before they were kept.
    """

    errors: int
    words: int
    low: float
    high: float
    insertions: int | None = None
    deletions: int | None = None
    substitutions: int | None = None

    @property
    def wer(self) -> float:
        """As a fraction; above 1 where more is inserted than was said."""
        return self.errors / self.words

    @property
    def columns(self) -> dict[str, float | int | None]:
        """By RATE_COLUMNS."""
        kinds = (self.insertions, self.deletions, self.substitutions)
        return dict(zip(RATE_COLUMNS, (self.wer, self.low, self.high, *kinds, self.words), strict=True))


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class GroupKey:
    """Which group of a speech set, such as `length` `below 5 s`."""

    kind: str
    name: str

    @property
    def label(self) -> str:
        """For people: nothing reads it back."""
        return f"{self.kind} {self.name}"


def share_of(answers: Iterable[bool | None]) -> float | None:
    """Of the answers that there are, the share that is yes; None where there are none."""
    known = [answer for answer in answers if answer is not None]
    return sum(known) / len(known) if known else None
