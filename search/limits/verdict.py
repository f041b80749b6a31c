"""What a recipe's transcripts say of its limits, where the original's errors are known."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from search.limits.budget import WerBudget, WerLimit
from search.limits.group_budget import GROUP, GroupLimits, find_group_limits
from search.limits.stopping import wer_violation
from search.limits.window_guard import WindowFinding, check_window
from search.trial import TrialAccuracy, TrialState, UtteranceErrors


@dataclass(frozen=True, kw_only=True, slots=True)
class Budgets:
    """As a user writes them: `+10%`, `8.5%`; `group` None: groups have none."""

    wer: str
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Budgets over one original. `errors`: the original's by utterance, of the whole set."""

    wer_limit: WerLimit
    group_limits: GroupLimits | None
    errors: Mapping[str, UtteranceErrors]

    @classmethod
    def of(cls, original: TrialAccuracy, budgets: Budgets) -> "Judge":
        """Raises InputError where a budget is none."""
        return cls(
            wer_limit=WerBudget.parse(budgets.wer).limit(original.rate),
            group_limits=find_group_limits(budgets.group, original.groups),
            errors={utterance.id: utterance for utterance in original.utterances},
        )

    def violations(self, accuracy: TrialAccuracy, state: TrialState) -> dict[str, float]:
        """Of the WER, and of the worst group as far as it is known."""
        over = wer_violation(accuracy.utterances, self.errors, wer_limit=self.wer_limit)
        return {"wer": over} | group_violation(accuracy, self.group_limits, state)

    def window(self, accuracy: TrialAccuracy, *, seed: int) -> WindowFinding:
        """What a shorter window did; the same draws for every trial."""
        rng = np.random.default_rng(seed)
        return check_window(accuracy.utterances, self.errors, wer_limit=self.wer_limit, rng=rng)


def group_violation(accuracy: TrialAccuracy, limits: GroupLimits | None, state: TrialState) -> dict[str, float]:
    """The worst group's violation, if it is known: on a part of the set only a broken limit is."""
    worst = limits.worst(accuracy.groups) if limits else None
    if worst is None or (state != "complete" and worst.violation <= 0):
        return {}
    return {GROUP: worst.violation}
