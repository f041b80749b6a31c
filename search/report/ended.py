"""Why a run ended and what it leaves open, in a sentence or two for somebody who knows nothing of searches."""

from search.outcome import EndReason, Outcome

_REASONS: dict[EndReason, str] = {
    "time": "The search ended because its time was up.",
    "trials": "The search ended because the trials that it was given were used up.",
    "exhausted": "The search ended because nothing new was left to propose.",
    "standstill": "The search ended because its front stood still for {stood_still} recipes.",
    "interrupted": "The search was interrupted before its end.",
}


def ended_sentence(outcome: Outcome) -> str:
    """Empty in runs that are going on, or are from before it was kept."""
    ended = outcome.ended
    if ended is None:
        return ""
    reason = _REASONS[ended.reason].format(stood_still=ended.stood_still)
    pick_id = outcome.recommended.recipe.id if outcome.recommended else None
    if ended.reason == "interrupted" or ended.pick_id != pick_id:
        return reason
    left_open = _left_open(ended.open_recipes, ended.combinations, has_pick=pick_id is not None)
    return f"{reason} {left_open}"


def _left_open(count: int | None, combinations: float, *, has_pick: bool) -> str:
    cheaper = "cheaper recipe" if has_pick else "recipe"
    if count is None:
        return f"How many {cheaper}s are still open was not counted: this space has {combinations:.2g} combinations."
    if count == 0:
        return (
            f"No {cheaper} in this space can meet the budget, assuming that the speech it was judged on stands for "
            "what will be said, and that what was stopped early or diverges too much is over the budget."
        )
    are = " is" if count == 1 else "s are"
    return f"{count:,} {cheaper}{are} still open: within the limits on costs, and not judged."
