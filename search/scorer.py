"""From a recipe to a trial: price it, compress the model, score it on speech."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

from common.errors import CompressionError, EvaluationError, InputError
from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from evaluators.accuracy.error_rate import ErrorRate
from evaluators.accuracy.evaluator import Evaluation
from evaluators.accuracy.groups import GroupAccuracy
from evaluators.accuracy.scripts import script_note
from evaluators.accuracy.word_errors import ErrorCounts
from search.limits.budget import WerLimit
from search.limits.group_budget import GroupLimits, find_group_limits, surely_over_group_budget
from search.limits.stopping import surely_over_budget
from search.limits.verdict import Judge
from search.memory_errors import telling_memory_shortage
from search.pricing import mark_unscored, rejection, trial_costs
from search.session import Session
from search.trial import GroupErrors, Transcripts, Trial, TrialAccuracy, TrialCosts, TrialState, UtteranceErrors


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What every other trial is compared with: the original model on the same speech."""

    accuracy: TrialAccuracy
    wer_limit: WerLimit
    group_limits: GroupLimits | None = None

    @property
    def errors(self) -> dict[str, UtteranceErrors]:
        return {utterance.id: utterance for utterance in self.accuracy.utterances}

    @property
    def judge(self) -> Judge:
        """Of every trial's transcripts."""
        return Judge(wer_limit=self.wer_limit, group_limits=self.group_limits, errors=self.errors)


class Scorer:
    """Turns recipes into trials; only `compress` and the evaluator touch the model."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._drafts: Evaluation | None = None
        self._confirm_drafts: Evaluation | None = None
        self._priced: tuple[Recipe, TrialCosts] | None = None
        self._original_costs = self.costs(session.original)
        self._members = {group.key: group.utterances for group in session.evaluator.groups}

    def costs(self, recipe: Recipe) -> TrialCosts:
        """What a recipe costs on the run's device, for the reference utterance.

        An engine asks for a child's limits, then for its objective: the last recipe is not priced twice.
        """
        if self._priced is None or self._priced[0] is not recipe:
            session = self._session
            costs = trial_costs(recipe, session.model.dimensions, session.profile, session.config)
            self._priced = recipe, costs
        return self._priced[1]

    def objective(self, recipe: Recipe) -> float:
        """What the run minimises: 1 for the original when the weights sum to 1."""
        return self._objective(self.costs(recipe))

    def _objective(self, costs: TrialCosts) -> float:
        return self._session.config.parsed_objective.value(costs, self._original_costs)

    def rejection(self, recipe: Recipe) -> str | None:
        """Why the costs or the runtime speak against a recipe before it is scored, or None."""
        return self._rejection(recipe, self._session.limits.violations(self.costs(recipe)))

    def _rejection(self, recipe: Recipe, violations: Mapping[str, float]) -> str | None:
        return rejection(recipe, violations, self._session.profile.runtime, original=self._session.original)

    def failed(self, number: int, recipe: Recipe, note: str) -> Trial:
        """The trial of a recipe that is not to be tried."""
        return self._unscored(number, recipe, "failed", note)

    def stopped(self, number: int, recipe: Recipe, divergence: Divergence, note: str) -> Trial:
        """The trial of a recipe that is not worth its transcripts, and why."""
        return replace(self._unscored(number, recipe, "stopped", note), divergence=divergence)

    def _unscored(self, number: int, recipe: Recipe, state: TrialState, note: str) -> Trial:
        costs = self.costs(recipe)
        violations = self._session.limits.violations(costs)
        mark_unscored(violations, state)
        return Trial(
            number=number,
            recipe=recipe,
            state=state,
            objective=self._objective(costs),
            costs=costs,
            accuracy=None,
            violations=violations,
            seconds=0.0,
            note=note,
        )

    def divergence(self, recipe: Recipe, enough: Callable[[Divergence], bool]) -> Divergence:
        """A recipe's divergence from the original, on the run's clips or as many as are enough.

        What was measured before, also by other runs, is not measured again. Raises CompressionError, EvaluationError.
        """
        meter, measured = self._session.meter, self._session.divergences
        if meter is None or measured is None:
            raise InputError("this run does not judge by divergence")
        known = measured.find(recipe.id)
        if known and (known.clips >= meter.clips or enough(known)):
            return known
        with telling_memory_shortage():
            found = meter.measure(
                self._session.network(recipe),
                window_s=recipe.window_s,
                encoder_key=recipe.encoder_key,
                enough=enough,
                known=known,
            )
        measured.keep(recipe.id, found)
        return found

    def score(
        self, number: int, recipe: Recipe, baseline: Baseline | None, divergence: Divergence | None = None
    ) -> Trial:
        """The trial of a recipe; without a baseline it is the baseline's own, always scored on the whole set.

        `divergence`: what was measured of it before; where the run judges by it, of what has a WER it is measured on
        all clips.
        """
        started, meter = perf_counter(), self._session.meter
        costs = self.costs(recipe)
        violations = self._session.limits.violations(costs)
        state, accuracy, note = self._measure(recipe, violations, baseline)
        if accuracy and meter and (divergence is None or divergence.clips < meter.clips):
            divergence = self.divergence(recipe, never)
        if accuracy:
            judge = (baseline or self._baseline_of(accuracy)).judge
            violations |= judge.violations(accuracy, state)
            if recipe.window_s < self._session.original.window_s:
                finding = judge.window(accuracy, seed=self._session.config.seed)
                violations |= finding.violations
                note = "; ".join(filter(None, (note, finding.note)))
        mark_unscored(violations, state)
        return Trial(
            number=number,
            recipe=recipe,
            state=state,
            objective=self._objective(costs),
            costs=costs,
            accuracy=accuracy,
            violations=violations,
            seconds=perf_counter() - started,
            note=note,
            divergence=divergence,
        )

    def _measure(
        self, recipe: Recipe, violations: dict[str, float], baseline: Baseline | None
    ) -> tuple[TrialState, TrialAccuracy | None, str]:
        """State, accuracy and note of a recipe with these violations of the cost limits."""
        reason = self._rejection(recipe, violations) if baseline else None
        if reason:
            return "rejected", None, reason
        try:
            with telling_memory_shortage():
                evaluation = self._evaluate(recipe, baseline)
        except (CompressionError, EvaluationError) as error:
            return "failed", None, str(error)
        note = evaluation.stopped or (
            script_note(self._session.evaluator.pairs(evaluation)) if baseline is None else ""
        )
        return "stopped" if evaluation.stopped else "complete", trial_accuracy(evaluation), note

    def _evaluate(self, recipe: Recipe, baseline: Baseline | None) -> Evaluation:
        def should_stop(counts: Sequence[ErrorCounts]) -> str | None:
            if baseline is None:
                return None
            scored = [utterance_errors(utterance_counts) for utterance_counts in counts]
            reason = surely_over_budget(scored, baseline.errors, wer_limit=baseline.wer_limit)
            if reason or baseline.group_limits is None:
                return reason
            return surely_over_group_budget(scored, self._members, baseline.group_limits)

        evaluation = self._session.evaluator.evaluate(
            self._session.network(recipe),
            window_s=recipe.window_s,
            encoder_key=recipe.encoder_key,
            drafts=self._drafts,
            should_stop=should_stop,
        )
        if self._drafts is None and evaluation.stopped is None:
            self._drafts = evaluation
        return evaluation

    def confirm(self, recipe: Recipe) -> TrialAccuracy:
        """The accuracy of a recipe on the confirm set. Raises EvaluationError."""
        if self._session.confirm is None:
            raise InputError("this run has no confirm set")
        with telling_memory_shortage():
            network = self._session.network(recipe)
            evaluation = self._session.confirm.evaluate(network, window_s=recipe.window_s, drafts=self._confirm_drafts)
        self._confirm_drafts = self._confirm_drafts or evaluation
        return trial_accuracy(evaluation)

    def baseline(self, trial: Trial) -> Baseline:
        """The baseline that the run's first trial measured. Raises EvaluationError when that trial failed."""
        if trial.accuracy is None:
            raise EvaluationError(f"the original model cannot be scored: {trial.note}")
        return self._baseline_of(trial.accuracy)

    def _baseline_of(self, accuracy: TrialAccuracy) -> Baseline:
        return Baseline(
            accuracy=accuracy, wer_limit=self.wer_limit(accuracy.rate), group_limits=self.group_limits(accuracy)
        )

    def wer_limit(self, baseline: ErrorRate) -> WerLimit:
        """What is allowed on speech where the original model has these errors."""
        return self._session.config.parsed_wer_budget.limit(baseline)

    def group_limits(self, baseline: TrialAccuracy) -> GroupLimits | None:
        """What each group may err where the original model has this accuracy; None without a budget."""
        return find_group_limits(self._session.config.group_budget, baseline.groups)


def never(_: Divergence) -> bool:
    """No clips but all are enough."""
    return False


def trial_accuracy(evaluation: Evaluation) -> TrialAccuracy:
    """What a trial keeps of an evaluation."""
    return TrialAccuracy(
        rate=evaluation.accuracy.rate,
        utterances=tuple(
            replace(utterance_errors(utterance.counts), ran_on=utterance.hypothesis.ending != "complete")
            for utterance in evaluation.utterances
        ),
        groups=group_errors(evaluation.groups),
        transcripts=Transcripts.of(utterance.hypothesis.text for utterance in evaluation.utterances),
    )


def group_errors(groups: Sequence[GroupAccuracy]) -> tuple[GroupErrors, ...]:
    """What a run keeps of the accuracies of groups."""
    return tuple(
        GroupErrors(key=group.key, rate=group.accuracy.rate, utterances=group.accuracy.utterances) for group in groups
    )


def utterance_errors(counts: ErrorCounts) -> UtteranceErrors:
    """What a trial keeps of an utterance's errors."""
    return UtteranceErrors(
        id=counts.utterance_id,
        insertions=counts.insertions,
        deletions=counts.deletions,
        substitutions=counts.substitutions,
        words=counts.words,
        speaker=counts.speaker,
    )
