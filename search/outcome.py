"""What a run has found so far, as the results and the report read it."""

from dataclasses import dataclass, field

from search.trial import Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class Confirmation:
    """WER of one recipe on utterances that the search never saw, with its 95 % interval."""

    wer: float
    wer_low: float
    wer_high: float
    words: int
    within_budget: bool
    """Whether it is within the same relative (or absolute) budget, taken over the baseline on this set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A run's trials and what was decided about them.

    `trials[0]` is the baseline: the original recipe. `wer_limit` is a fraction. `confirmations` are by recipe id;
    empty when the run has no confirm set or has not come to it.
    """

    model: str
    device: str
    speech: str
    confirm_speech: str | None
    normaliser: str
    wer_limit: float
    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    recommended: Trial | None
    least_violating: Trial | None
    confirmations: dict[str, Confirmation] = field(default_factory=dict)
    utterances: int = 0
    broken_lines: int = 0
    confirm_broken_lines: int = 0

    @property
    def baseline(self) -> Trial:
        return self.trials[0]
