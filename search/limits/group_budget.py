"""A budget per group of the speech set: the worst group counts."""

from collections.abc import Sequence, Set
from dataclasses import dataclass

from search.limits.budget import WerBudget
from search.trial import GroupErrors, UtteranceErrors

GROUP = "group"
"""The name of the violation."""
MIN_WORDS = 100
"""Groups with fewer words are shown and not judged: there, one error is more than a point."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedGroup:
    """A group beside the original's errors in it. `allowed`: errors that it may have in all."""

    found: GroupErrors
    original: GroupErrors
    allowed: float

    @property
    def violation(self) -> float:
        """How far over the allowed errors it is, relative to them; 1 for any error where none is allowed."""
        return self.found.errors / self.allowed - 1 if self.allowed else float(self.found.errors > 0)

    @property
    def text(self) -> str:
        """Such as `language de: 12.00 %, at most 10.00 %`."""
        limit = 100 * self.allowed / self.original.words
        return f"{self.found.label}: {100 * self.found.wer:.2f} %, at most {limit:.2f} %"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupLimits:
    """What every group may err, by the original's own errors in it. `original`: on the whole set."""

    budget: WerBudget
    original: tuple[GroupErrors, ...]

    def judged(self, groups: Sequence[GroupErrors]) -> tuple[JudgedGroup, ...]:
        """Those of these groups that are judged: with at least MIN_WORDS words in the whole set."""
        by_label = {group.label: group for group in groups}
        return tuple(
            JudgedGroup(
                found=by_label[original_group.label],
                original=original_group,
                allowed=self._allowed(original_group),
            )
            for original_group in self.original
            if original_group.words >= MIN_WORDS and original_group.label in by_label
        )

    def worst(self, groups: Sequence[GroupErrors]) -> JudgedGroup | None:
        """The group that is furthest over its limit, or nearest to it; None when none is judged."""
        return max(self.judged(groups), key=lambda one: one.violation, default=None)

    def broken(self, groups: Sequence[GroupErrors]) -> JudgedGroup | None:
        """The worst group if it is over its limit. On a part of the set that is certain: errors only become more."""
        worst = self.worst(groups)
        return worst if worst and worst.violation > 0 else None

    def _allowed(self, original: GroupErrors) -> float:
        """A relative budget allows at least one error more than the original makes: one says nothing."""
        errors = self.budget.limit(original.wer) * original.words
        return max(errors, original.errors + 1) if self.budget.is_relative else errors


def find_group_limits(group_budget: str | None, original: tuple[GroupErrors, ...]) -> GroupLimits | None:
    """What each group may err where the original has these errors; None without a budget. Raises InputError."""
    return GroupLimits(budget=group_wer_budget(group_budget), original=original) if group_budget else None


def group_wer_budget(text: str) -> WerBudget:
    """`+30%` or `15%`, as for the WER. Raises InputError for anything else."""
    return WerBudget.parse(text, name="group budget")


def surely_over_group_budget(
    scored: Sequence[UtteranceErrors], members: Sequence[tuple[str, Set[str]]], limits: GroupLimits
) -> str | None:
    """Why a candidate cannot keep the group budget any more, whatever the rest brings, or None while it may.

    `members`: by a group's label, the ids of its utterances. There is no bootstrap as for the whole set: with many
    groups some would look hopeless by chance.
    """
    ids = dict(members)
    for group in limits.judged(limits.original):
        label = group.original.label
        errors = sum(scored_utterance.errors for scored_utterance in scored if scored_utterance.id in ids[label])
        if errors > group.allowed:
            return f"over the group budget in {label} after {len(scored)} utterances, whatever the rest"
    return None
