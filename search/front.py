"""The front of a run and the pick that the report recommends."""

from collections.abc import Iterable, Mapping, Sequence

from search.outcome import ArtifactRecord, Confirmation
from search.trial import Trial


def front(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The non-dominated feasible trials, cheapest first.

    A trial is dominated when another one has an objective and a WER that are no larger, and one of them smaller;
    of equal ones the first stays.
    """
    candidates = [
        (trial.objective, trial.accuracy.wer, trial.number, trial)
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


def least_violating(trials: Sequence[Trial]) -> Trial | None:
    """The trial nearest to the limits, by the sum of its relative violations; the cheapest among equals.

    Only trials with a WER on the whole set count, as nothing is known about the others.
    """
    scored = [trial for trial in trials if trial.state == "complete"]
    if not scored:
        return None
    return min(scored, key=lambda t: (sum(max(0.0, v) for v in t.violations.values()), t.objective))


def recommend(
    front: Sequence[Trial],
    confirmations: Mapping[str, Confirmation],
    artifacts: Mapping[str, ArtifactRecord],
    *,
    wer_limit: float,
) -> Trial | None:
    """The cheapest trial of the front that kept its promise, as a file and on the confirm set, else the cheapest one.

    The best of many candidates on one set looks better than it is; so a trial whose WER on unseen utterances is
    over the budget there gives way to the next one, and so does one whose artifact is over it or could not be made.
    What was not tried is no reason against a trial; where all of it speaks against every trial, the cheapest is taken.
    """

    def is_confirmed(trial: Trial) -> bool:
        confirmation = confirmations.get(trial.recipe.id)
        return confirmation.within_budget if confirmation else not confirmations

    def runs(trial: Trial) -> bool:
        record = artifacts.get(trial.recipe.id)
        if record is None:
            return not artifacts
        return record.figures is not None and record.figures.wer <= wer_limit

    kept = [trial for trial in front if is_confirmed(trial) and runs(trial)]
    return next(iter(kept), None) or next(iter(front), None)
