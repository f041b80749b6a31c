"""What a reader must mind about a run, in sentences."""

from search.limits.group_budget import GROUP, MIN_WORDS, find_group_limits
from search.limits.verdict import keeps_languages, least_on
from search.outcome import Confirmation, Outcome
from search.report.baseline_vs_pick import percent
from search.report.flops_note import flops_problems
from search.report.group_and_silence_notes import heard_in_nothing
from search.trial import UNEVALUATED, Trial

_LIMITS = {
    "wer": ("the WER budget", "--wer-budget"),
    "group": ("the group budget", "--group-budget"),
    "language": ("the limit on detected languages", "--min-language-accuracy"),
    "size": ("the size limit", "--max-size-mb"),
    "latency": ("the latency limit", "--max-latency-ms"),
    "rtf": ("the real-time factor limit", "--max-rtf"),
    "memory": ("the memory limit", "--max-memory-mb"),
    "occupancy": ("the limit on CPU occupancy", "--max-occupancy"),
    "run_on": ("the guard of short windows against transcripts that run on", "window_s in a space of your own"),
    "insertions": ("the guard of short windows against insertions", "window_s in a space of your own"),
}
"""By name of a violation: what the limit is called and the flag that sets it."""


def problems(outcome: Outcome) -> tuple[str, ...]:
    """What a reader must know before believing the pick, one sentence or two each; most important first."""
    found = [] if outcome.recommended else [_relaxation(outcome)]
    pick = outcome.recommended
    if pick and pick.number == outcome.baseline.number:
        found.append("The pick is the original model: no compressed recipe kept every limit at a lower cost.")
    confirmation = outcome.confirmations.get(pick.recipe.id) if pick else None
    if confirmation and not confirmation.within_budget:
        found.append(
            f"The pick on {outcome.confirm_speech}, which the search never saw: "
            f"{_broken_there(outcome, confirmation)}.{_by_all(outcome)}"
        )
    if pick and pick.number != outcome.baseline.number and not confirmation:
        found.append(
            "The pick was not confirmed on utterances that the search never saw: as the best of many candidates "
            "on one set, its WER is likely to be a little optimistic."
        )
    if outcome.baseline.note:
        found.append(f"The original: {outcome.baseline.note}.")
    found += _unjudged_there(outcome)
    found += _artifact_problems(outcome, pick) if pick else []
    found += flops_problems(outcome)
    if outcome.baseline.costs.energy_mj is None:
        found.append(f"No energy: the profile of {outcome.device} does not say what the device draws.")
    unevaluated = sum(UNEVALUATED in trial.violations for trial in outcome.trials)
    if unevaluated:
        found.append(
            f"{_recipes(unevaluated)} within the limits without a WER: rejected on {outcome.repriced_from}. "
            f"A search for {outcome.device} may find a better one."
        )
    found += _stopped_too_early(outcome)
    for set_name, count in (
        (outcome.speech, outcome.broken_lines),
        (outcome.confirm_speech, outcome.confirm_broken_lines),
    ):
        if count:
            found.append(f"{count} broken line{'s' if count > 1 else ''} of {set_name} skipped: not part of any WER.")
    return tuple(found)


def _stopped_too_early(outcome: Outcome) -> list[str]:
    """What another budget would have let go on."""
    hopeful = sum(
        trial.state == "stopped" and trial.accuracy is not None and all(over <= 0 for over in trial.violations.values())
        for trial in outcome.trials
    )
    if not hopeful or "wer_budget" not in outcome.asked_before:
        return []
    return [
        f"{_recipes(hopeful)} perhaps within the budget now, but the run stopped them early, as over its own of "
        f"{outcome.asked_before['wer_budget']}: only a search can tell (--start-from this run)."
    ]


def _artifact_problems(outcome: Outcome, pick: Trial) -> list[str]:
    record = outcome.artifacts.get(pick.recipe.id)
    if record is None:
        return ["The pick was not exported: size and WER are those of the recipe, not of a file."]
    if record.figures is None:
        return [f"The pick has {record.note}."]
    figures, found = record.figures, []
    if not outcome.wer_limit.keeps(figures.rate):
        found.append(f"The pick's artifact has a WER of {percent(figures.rate.wer)}, over the budget.")
    broken = outcome.group_limits and outcome.group_limits.broken(record.groups)
    if broken:
        found.append(f"The pick's artifact is over the group budget in {broken.text}.")
    if not keeps_languages(figures.language_accuracy, outcome.min_language_accuracy):
        too_few = _too_few_languages(figures.language_accuracy, outcome.min_language_accuracy)
        found.append(f"The pick's artifact {too_few}.")
    return found + [f"The pick's artifact {heard.note}." for heard in heard_in_nothing(outcome, pick)]


def _too_few_languages(found: float | None, least: float | None) -> str:
    share, asked = percent(found or 0.0), percent(least or 0.0)
    return f"detects the language of {share} of the utterances, and at least {asked} are asked for"


def _unjudged_there(outcome: Outcome) -> list[str]:
    """Whether the confirm set's groups are all too small for the group budget."""
    original = outcome.confirmations.get(outcome.baseline.recipe.id)
    limits = find_group_limits(outcome.group_budget, original.groups) if original else None
    if original is None or limits is None or limits.judged(original.groups):
        return []
    return [f"The group budget was not checked on {outcome.confirm_speech}: no group has {MIN_WORDS} words there."]


def _broken_there(outcome: Outcome, confirmation: Confirmation) -> str:
    """What is broken on the confirm set: a group's budget, else the limit on detected languages, else the WER's."""
    original = outcome.confirmations.get(outcome.baseline.recipe.id)
    limits = find_group_limits(outcome.group_budget, original.groups) if original else None
    broken = limits and limits.broken(confirmation.groups)
    least = least_on(original.language_accuracy, outcome.min_language_accuracy) if original else None
    if not broken and not keeps_languages(confirmation.language_accuracy, least):
        return f"it {_too_few_languages(confirmation.language_accuracy, least)}"
    what = f"its WER in {broken.text}," if broken else f"its WER of {percent(confirmation.rate.wer)}"
    return f"{what} is over the budget taken over the baseline there"


def _by_all(outcome: Outcome) -> str:
    """How sure the pick is by both sets and divergence, where that is known; a sentence after another."""
    estimate = outcome.estimate(outcome.recommended) if outcome.recommended else None
    if estimate is None:
        return ""
    return f" By both sets and its divergence it is within the budget with a probability of {estimate.probability:.0%}."


def _relaxation(outcome: Outcome) -> str:
    nearest = outcome.least_violating
    broken = {limit: over for limit, over in nearest.violations.items() if over > 0} if nearest else {}
    if nearest is None or not broken:
        return "No recipe met the limits, and none was scored on the whole set: allow more trials or more time."
    worst = max(broken, key=broken.__getitem__)
    group = outcome.worst_group(nearest)
    where = {GROUP: f" ({group.text})"} if group else {}
    listed = " and ".join(
        f"{_LIMITS[limit][0]} by {100 * over:.3g} %{where.get(limit, '')}" for limit, over in broken.items()
    )
    first = "" if len(broken) == 1 else " first"
    return (
        f"No recipe met the limits. The nearest, trial {nearest.number}, is over {listed}: "
        f"relax {_LIMITS[worst][1]}{first}."
    )


def _recipes(count: int) -> str:
    return "1 recipe is" if count == 1 else f"{count} recipes are"
