"""A budget per group of the speech set: the worst group counts."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction

from evaluators.accuracy.error_rate import GroupKey
from search.limits.budget import WerBudget, WerLimit
from search.trial import GroupErrors, UtteranceErrors

GROUP = "group"
"""The name of the violation."""
MIN_WORDS = 100
"""Groups with fewer words are shown and not judged: there, one error is more than a point."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedGroup:
    """A group beside the original's errors in it. `limit`: what it may have in all."""

    found: GroupErrors
    original: GroupErrors
    limit: WerLimit

    @property
    def violation(self) -> float:
        """How far over the allowed errors it is, relative to them; 1 for any error where none is allowed."""
        return self.limit.violation(self.found.rate.errors)

    @property
    def text(self) -> str:
        """Such as `language de: 12.00 %, at most 10.00 %`."""
        return f"{self.found.key.label}: {100 * self.found.rate.wer:.2f} %, at most {100 * self.limit.wer:.2f} %"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupLimits:
    """What every group may err, by the original's own errors in it. `original`: on the whole set."""

    budget: WerBudget
    original: tuple[GroupErrors, ...]

    def judged(self, groups: Sequence[GroupErrors]) -> tuple[JudgedGroup, ...]:
        """Those of these groups that are judged: with at least MIN_WORDS words in the whole set."""
        found = {group.key: group for group in groups}
        return tuple(
            JudgedGroup(found=found[original.key], original=original, limit=self._limit(original))
            for original in self.original
            if original.rate.words >= MIN_WORDS and original.key in found
        )

    def worst(self, groups: Sequence[GroupErrors]) -> JudgedGroup | None:
        """The group that is furthest over its limit, or nearest to it; None when none is judged."""
        return max(self.judged(groups), key=lambda one: one.violation, default=None)

    def broken(self, groups: Sequence[GroupErrors]) -> JudgedGroup | None:
        """The worst group if it is over its limit. On a part of the set that is certain: errors only become more."""
        worst = self.worst(groups)
        return worst if worst and not worst.limit.allows(worst.found.rate.errors) else None

    def _limit(self, original: GroupErrors) -> WerLimit:
        """A relative budget allows at least one error more than the original makes: one says nothing."""
        limit, rate = self.budget.limit(original.rate), original.rate
        if not self.budget.is_relative:
            return limit
        return WerLimit(rate=max(limit.rate, Fraction(rate.errors + 1, rate.words)), words=rate.words)


def find_group_limits(group_budget: str | None, original: tuple[GroupErrors, ...]) -> GroupLimits | None:
    """What each group may err where the original has these errors; None without a budget. Raises InputError."""
    return GroupLimits(budget=group_wer_budget(group_budget), original=original) if group_budget else None


def group_wer_budget(text: str) -> WerBudget:
    """`+30%` or `15%`, as for the WER. Raises InputError for anything else."""
    return WerBudget.parse(text, name="group budget")


def surely_over_group_budget(
    scored: Sequence[UtteranceErrors], members: Mapping[GroupKey, Set[str]], limits: GroupLimits
) -> str | None:
    """Why a candidate cannot keep the group budget any more, whatever the rest brings, or None while it may.

    `members`: by group, the ids of its utterances. There is no test as for the whole set: with many
    groups some would look hopeless by chance.
    """
    for group in limits.judged(limits.original):
        key = group.original.key
        errors = sum(utterance.errors for utterance in scored if utterance.id in members[key])
        if not group.limit.allows(errors):
            return f"over the group budget in {key.label} after {len(scored)} utterances, whatever the rest"
    return None
