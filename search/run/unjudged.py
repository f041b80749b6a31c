"""What a run leaves open: the recipes of a space that are cheaper than the pick, judged, excluded or neither."""

from collections.abc import Iterable

import numpy as np

from search.engines.enumeration import Enumeration
from search.engines.exclusion import Exclusion, compare
from search.outcome import Ended, EndReason, Outcome
from search.space.space import Space
from search.trial import Trial


def how_it_ended(outcome: Outcome, space: Space, everything: Enumeration | None, reason: EndReason) -> Ended:
    """With what it left open, by all recipes of the space; None where nobody counts them.

    Counted are recipes within every limit on costs that are cheaper than the pick; all of them without one.
    """
    pick = outcome.recommended
    pick_id, combinations = pick.recipe.id if pick else None, float(space.combinations)
    if everything is None:
        return Ended(reason=reason, combinations=combinations, pick_id=pick_id)
    cheaper = everything.is_allowed & (everything.objective < (pick.objective if pick else np.inf))
    judged = np.zeros(len(everything), bool)
    judged[_places(everything, (trial for trial in outcome.trials if is_judged(trial, outcome)))] = True
    exclusion = Exclusion(everything)
    for trial in outcome.trials:
        exclusion.add(trial)
    certainty = outcome.certainty
    excluded = exclusion.excluded(certainty.largest_divergence(outcome.confidence) if certainty else None)
    found = compare([(t.recipe, t.divergence) for t in outcome.trials if t.divergence and not t.recipe.recovery], space)
    return Ended(
        reason=reason,
        combinations=combinations,
        pick_id=pick_id,
        open_recipes=int((cheaper & ~judged & ~excluded).sum()),
        judged=int((cheaper & judged).sum()),
        excluded=int((cheaper & excluded & ~judged).sum()),
        comparisons=found.made,
        contradictions=found.contradictions,
    )


def is_judged(trial: Trial, outcome: Outcome) -> bool:
    """Whether a recipe's trial says enough of it.

    Not where only its divergence is known, and by that it may well be within the WER budget; unless it diverges at
    least as much as one that costs no more and whose WER is over the budget.
    """
    if trial.state != "stopped" or trial.accuracy:
        return True
    estimate = outcome.estimate(trial)
    if estimate is not None and estimate.probability < outcome.confidence:
        return True
    return any(_is_beaten(trial, other) for other in outcome.trials if _is_over(other))


def _is_over(trial: Trial) -> bool:
    return trial.accuracy is not None and trial.violations.get("wer", 0) > 0


def _is_beaten(trial: Trial, other: Trial) -> bool:
    """Whether the other one costs no more and diverges no more, on the clips that both were heard on."""
    if trial.divergence is None or other.divergence is None or other.objective > trial.objective:
        return False
    clips = min(trial.divergence.clips, other.divergence.clips)
    return other.divergence.of_first(clips).mean <= trial.divergence.of_first(clips).mean


def _places(everything: Enumeration, trials: Iterable[Trial]) -> list[int]:
    """Of those that the space has."""
    return [place for trial in trials if (place := everything.place(trial.recipe.id)) is not None]
