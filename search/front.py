"""The front of a run and the pick that the report recommends."""

from collections.abc import Iterable, Mapping, Sequence

from search.certainty import Certainty
from search.limits.budget import WerLimit
from search.limits.group_budget import GroupLimits
from search.limits.verdict import keeps_languages, least_on
from search.outcome import ArtifactRecord, Confirmation
from search.trial import Trial


def front(trials: Iterable[Trial], certainty: Certainty | None = None) -> tuple[Trial, ...]:
    """The non-dominated feasible trials, cheapest first.

    A trial is dominated when another one has an objective and a WER that are no larger, and one of them smaller;
    of equal ones the first stays. Of trials whose divergence is known the WER is the expected one, by `certainty`:
    the measured ones of good recipes mostly differ by chance.
    """
    candidates = [
        (trial.objective, _expected_wer(trial, trial.accuracy.wer, certainty), trial.number, trial)
        for trial in trials
        if trial.feasible and trial.accuracy is not None
    ]
    kept: list[Trial] = []
    best_wer = float("inf")
    for _, wer, _, trial in sorted(candidates, key=lambda candidate: candidate[:3]):
        if wer < best_wer:
            kept.append(trial)
            best_wer = wer
    return tuple(kept)


def _expected_wer(trial: Trial, measured: float, certainty: Certainty | None) -> float:
    estimate = certainty.scored(trial.recipe.id) if certainty and trial.divergence else None
    return certainty.original_wer * (1 + estimate.rise) if certainty and estimate else measured


def least_violating(trials: Sequence[Trial]) -> Trial | None:
    """The trial nearest to the limits, by the sum of its relative violations; the cheapest among equals.

    Only trials with a WER on the whole set count, as nothing is known about the others.
    """
    scored = [trial for trial in trials if trial.state == "complete"]
    if not scored:
        return None
    return min(scored, key=lambda t: (sum(max(0.0, v) for v in t.violations.values()), t.objective))


def recommend(  # noqa: PLR0913 - the front and all that was found out about it
    front: Sequence[Trial],
    confirmations: Mapping[str, Confirmation],
    artifacts: Mapping[str, ArtifactRecord],
    *,
    wer_limit: WerLimit,
    baseline: Trial,
    group_limits: GroupLimits | None = None,
    min_language_accuracy: float | None = None,
    certainty: Certainty | None = None,
    confidence: float = 0.5,
) -> Trial | None:
    """The cheapest trial of the front that kept its promise, as a file and on the confirm set, else the cheapest one.

    Where divergence was measured, to keep a promise is to be within the budget with a probability of `confidence`, by
    both sets and divergence together, and to detect the confirm set's languages, of which these say nothing. Elsewhere
    the confirm set decides alone: the best of many candidates on one set looks better than it is, so a trial whose WER
    on unseen utterances is over a budget there gives way to the next one, and so does one whose artifact breaks a limit
    or could not be made.
    What was not tried is no reason against a trial: where only the original was tried and kept its promise, the
    cheapest that nothing speaks against is taken; where something speaks against every trial, the cheapest.
    """
    original = confirmations.get(baseline.recipe.id)
    least_there = least_on(original.language_accuracy if original else None, min_language_accuracy)

    def evidence(trial: Trial) -> list[bool]:
        confirmation, record = confirmations.get(trial.recipe.id), artifacts.get(trial.recipe.id)
        found = [confirmation.within_budget] if confirmation else []
        estimate = certainty.scored(trial.recipe.id) if certainty and trial.divergence else None
        if estimate and trial.number != baseline.number:
            tells = confirmation is None or keeps_languages(confirmation.language_accuracy, least_there)
            found = [estimate.probability >= confidence and tells] * (len(found) or 1)
        if record:
            broken, figures = group_limits and group_limits.broken(record.groups), record.figures
            tells = figures is not None and keeps_languages(figures.language_accuracy, min_language_accuracy)
            found.append(figures is not None and wer_limit.keeps(figures.rate) and not broken and tells)
        return found

    unopposed = [trial for trial in front if all(evidence(trial))]
    tried = [trial for trial in unopposed if len(evidence(trial)) >= bool(confirmations) + bool(artifacts)]
    kept = next(iter(tried), baseline)
    if kept.number != baseline.number:
        return kept
    return next(iter(unopposed), None) or next(iter(front), None)
