"""Why a run ended and what it leaves open, in a sentence or two for somebody who knows nothing of searches."""

from search.outcome import Ended, EndReason, Outcome

_REASONS: dict[EndReason, str] = {
    "time": "The search ended because its time was up.",
    "trials": "The search ended because the trials that it was given were used up.",
    "exhausted": "The search ended because nothing new was left to propose.",
    "standstill": "The search ended because its front stood still for {stood_still} recipes.",
    "proven": "The search ended because the optimum is proven.",
    "interrupted": "The search was interrupted before its end.",
}
_OPENED_AGAIN = (
    "The search ended because no cheaper recipe was left to judge; what was measured last (a group, a short window, "
    "the confirm set, an artifact) opened some again, with which `whisperfit resume` goes on where it can."
)


def ended_sentence(outcome: Outcome) -> str:
    """Empty in runs that are going on, or are from before it was kept."""
    ended = outcome.ended
    if ended is None:
        return ""
    reason = _REASONS[ended.reason].format(stood_still=ended.stood_still)
    pick_id = outcome.recommended.recipe.id if outcome.recommended else None
    if ended.reason == "interrupted" or ended.pick_id != pick_id:
        return reason
    if ended.reason == "proven" and ended.open_recipes:
        reason = _OPENED_AGAIN
    return f"{reason} {_left_open(ended, has_pick=pick_id is not None)}"


def _left_open(ended: Ended, *, has_pick: bool) -> str:
    cheaper, count = "cheaper recipe" if has_pick else "recipe", ended.open_recipes
    if count is None:
        number = f"{ended.combinations:.2g}"
        return f"How many {cheaper}s are still open was not counted: this space has {number} combinations."
    if count == 0:
        return _none_left(ended, cheaper)
    are = " is" if count == 1 else "s are"
    still_open = f"{count:,} {cheaper}{are} still open: within the limits on costs, and not judged."
    return f"{still_open} {_excluded(ended)}, assuming {_rule(ended)}." if ended.excluded else still_open


def _none_left(ended: Ended, cheaper: str) -> str:
    none = f"No {cheaper} in this space can meet the budget"
    judged_on = "that the speech it was judged on stands for what will be said"
    too_much = "that what was stopped early or diverges too much is over the budget"
    if not ended.excluded:
        return f"{none}, assuming {judged_on}, and {too_much}."
    judged = f"{ended.judged:,} {'was' if ended.judged == 1 else 'were'} judged"
    return f"{none}: {judged}, and {_excluded(ended)}. This assumes {_rule(ended)}, {judged_on}, and {too_much}."


def _excluded(ended: Ended) -> str:
    are = "is" if ended.excluded == 1 else "are"
    return f"{ended.excluded:,} {are} excluded, being compressed at least as much as one that is over the budget"


def _rule(ended: Ended) -> str:
    """By which recipes were excluded, and what speaks against it."""
    tested = f"{ended.contradictions:,} of {ended.comparisons:,} comparisons contradicted" if ended.comparisons else ""
    return f"that more compression never brings accuracy back, which {tested or 'nothing tested'}"
