"""What a recipe's transcripts say of its limits, where the original's errors are known."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from search.limits.budget import WerBudget, WerLimit
from search.limits.group_budget import GROUP, GroupLimits, find_group_limits
from search.limits.stopping import wer_violation
from search.limits.window_guard import WindowFinding, check_window
from search.trial import TrialAccuracy, TrialState, UtteranceErrors

LANGUAGE = "language"
"""The name of the violation of what languages are detected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budgets:
    """As a user writes them: `+10%`, `8.5%`; None: no group has one, and languages need not be told."""

    wer: str
    group: str | None = None
    language_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Budgets over one original. `errors`: the original's by utterance, of the whole set.

    `min_language_accuracy`: of the utterances, the least share whose language is to be detected.
    """

    wer_limit: WerLimit
    group_limits: GroupLimits | None
    min_language_accuracy: float | None = None
    errors: Mapping[str, UtteranceErrors]

    @classmethod
    def of(cls, original: TrialAccuracy, budgets: Budgets) -> "Judge":
        """Raises InputError where a budget is none."""
        return cls(
            wer_limit=WerBudget.parse(budgets.wer).limit(original.rate),
            group_limits=find_group_limits(budgets.group, original.groups),
            min_language_accuracy=budgets.language_accuracy,
            errors={utterance.id: utterance for utterance in original.utterances},
        )

    def violations(self, accuracy: TrialAccuracy, state: TrialState) -> dict[str, float]:
        """Of the WER, and of the worst group and the languages as far as they are known."""
        over = wer_violation(accuracy.utterances, self.errors, wer_limit=self.wer_limit)
        is_whole = state == "complete"
        return {
            "wer": over,
            **group_violation(accuracy, self.group_limits, state),
            **(language_violation(accuracy.language_accuracy, self.min_language_accuracy) if is_whole else {}),
        }

    def window(self, accuracy: TrialAccuracy, *, seed: int) -> WindowFinding:
        """What a shorter window did; the same draws for every trial."""
        rng = np.random.default_rng(seed)
        return check_window(accuracy.utterances, self.errors, wer_limit=self.wer_limit, rng=rng)


def language_violation(found: float | None, least: float | None) -> dict[str, float]:
    """How far the share of detected languages is below the least one, relative to it; 1 where nobody measured it."""
    return {} if least is None else {LANGUAGE: 1 - (found or 0.0) / least}


def lacks_languages(original: TrialAccuracy | None, least: float | None) -> bool:
    """Whether a share of detected languages is asked for that was not measured, not even of the original."""
    return least is not None and original is not None and original.language_accuracy is None


def least_on(original: float | None, least: float | None) -> float | None:
    """The least share on speech where the original detects this one: no more than that; None where nothing is asked."""
    return None if least is None else min(least, original or 0.0) or None


def keeps_languages(found: float | None, least: float | None) -> bool:
    """Whether the share of detected languages is at least the least one; so it is where none is asked for."""
    return language_violation(found, least).get(LANGUAGE, 0.0) <= 0


def group_violation(accuracy: TrialAccuracy, limits: GroupLimits | None, state: TrialState) -> dict[str, float]:
    """The worst group's violation, if it is known: on a part of the set only a broken limit is."""
    worst = limits.worst(accuracy.groups) if limits else None
    if worst is None or (state != "complete" and worst.violation <= 0):
        return {}
    return {GROUP: worst.violation}
