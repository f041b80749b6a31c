"""From a recipe to a trial: price it, compress the model, score it on speech."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

from common.errors import CompressionError, EvaluationError, InputError
from common.freed_memory import give_back_freed_memory
from common.stages import spend, stage
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from evaluators.accuracy.divergence import Divergence
from evaluators.accuracy.error_rate import ErrorRate
from evaluators.accuracy.evaluator import Drafts
from evaluators.accuracy.scripts import script_note
from search.heard import accuracy_of, heard_of
from search.limits.budget import WerLimit
from search.limits.group_budget import GroupLimits, find_group_limits, surely_over_group_budget
from search.limits.stopping import surely_over_budget
from search.limits.verdict import Judge
from search.memory_errors import telling_memory_shortage
from search.pricing import mark_unscored, rejection, trial_costs
from search.session import Session
from search.trial import Heard, Trial, TrialAccuracy, TrialCosts, TrialState, UtteranceErrors


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What every other trial is compared with: the original model on the same speech."""

    accuracy: TrialAccuracy
    wer_limit: WerLimit
    group_limits: GroupLimits | None = None
    min_language_accuracy: float | None = None

    @property
    def errors(self) -> dict[str, UtteranceErrors]:
        return {utterance.id: utterance for utterance in self.accuracy.utterances}

    @property
    def judge(self) -> Judge:
        """Of every trial's transcripts."""
        return Judge(
            wer_limit=self.wer_limit,
            group_limits=self.group_limits,
            min_language_accuracy=self.min_language_accuracy,
            errors=self.errors,
        )


class Scorer:
    """Turns recipes into trials; only `compress` and the evaluator touch the model."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._drafts: dict[str, tuple[int, ...]] = {}
        self._confirm_drafts: Drafts = {}
        self._compressed: tuple[Recipe, Compressed] | None = None
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

    def divergence(
        self, recipe: Recipe, enough: Callable[[Divergence], bool], known: Divergence | None = None
    ) -> Divergence:
        """A recipe's divergence from the original, on the run's clips or as many as are enough.

        What was measured before, by another worker (`known`) or another run, is not measured again. Raises
        CompressionError, EvaluationError.
        """
        meter, measured = self._session.meter, self._session.divergences
        if meter is None or measured is None:
            raise InputError("this run does not judge by divergence")
        known = max(known, measured.find(recipe.id), key=clips_of)
        if known and (known.clips >= meter.clips or enough(known)):
            return known
        with telling_memory_shortage():
            network = self._network(recipe)
            with stage("divergence"):
                found = meter.measure(
                    network,
                    window_s=recipe.window_s,
                    encoder_key=recipe.encoder_key,
                    enough=enough,
                    known=known,
                )
        measured.keep(recipe.id, found)
        return found

    @property
    def blocks(self) -> int:
        """Into how many the speech set is dealt; one after the other is scored."""
        return self._session.evaluator.blocks

    @property
    def most_clips(self) -> int:
        """On how many, at most, the divergence of what has a WER is measured; 0 where the run does not judge by it.

        The meter may leave some out, which it tells only after it has heard them all.
        """
        return self._session.config.divergence_clips if self._session.meter else 0

    def score(
        self, number: int, recipe: Recipe, baseline: Baseline | None, divergence: Divergence | None = None
    ) -> Trial:
        """The trial of a recipe; without a baseline it is the baseline's own, always scored on the whole set.

        `divergence`: what was measured of it before; where the run judges by it, of what has a WER it is measured on
        all clips.
        """
        started, stopped = perf_counter(), None
        heard: list[Heard] = []
        violations = self._session.limits.violations(self.costs(recipe))
        if baseline and (reason := self._rejection(recipe, violations)):
            return self._unscored(number, recipe, "rejected", reason)
        try:
            for block in range(self.blocks):
                if baseline and heard and (stopped := self.over(heard, baseline)):
                    break
                heard.append(self.hear(recipe, block))
            if self._session.meter and clips_of(divergence) < self._session.meter.clips:
                divergence = self.divergence(recipe, never, divergence)
        except (CompressionError, EvaluationError) as error:
            failed = self.failed(number, recipe, str(error))
            return replace(failed, seconds=perf_counter() - started)
        trial = self.assembled(number, recipe, heard, baseline=baseline, divergence=divergence, stopped=stopped)
        return replace(trial, seconds=perf_counter() - started)

    def hear(self, recipe: Recipe, block: int) -> Heard:
        """What it makes of one block of the speech set. Raises CompressionError, EvaluationError."""
        with telling_memory_shortage():
            found = self._session.evaluator.score_block(
                self._network(recipe),
                block,
                window_s=recipe.window_s,
                encoder_key=recipe.encoder_key,
                drafts=self._drafts,
            )
        spend("encode", found.encoder_s)
        spend("decode", found.decoder_s)
        for scored in found.scored:
            self._drafts.setdefault(scored.counts.utterance_id, scored.hypothesis.tokens)
        return heard_of(found.scored)

    def over(self, heard: Sequence[Heard], baseline: Baseline) -> str | None:
        """Why a recipe is surely over a budget by what the first blocks brought, or None."""
        scored = [utterance for block in heard for utterance in block.utterances]
        if not any(utterance.words for utterance in scored):
            return None
        reason = surely_over_budget(scored, baseline.errors, wer_limit=baseline.wer_limit)
        if reason or baseline.group_limits is None:
            return reason
        return surely_over_group_budget(scored, self._members, baseline.group_limits)

    def assembled(  # noqa: PLR0913 - what is known of a recipe
        self,
        number: int,
        recipe: Recipe,
        heard: Sequence[Heard],
        *,
        baseline: Baseline | None,
        divergence: Divergence | None,
        stopped: str | None = None,
    ) -> Trial:
        """The trial of what was heard, by anybody. `stopped`: why that is not the whole set."""
        session, costs = self._session, self.costs(recipe)
        violations = session.limits.violations(costs)
        accuracy = accuracy_of(session.evaluator, heard)
        state: TrialState = "stopped" if stopped else "complete"
        judge = (baseline or self._baseline_of(accuracy)).judge
        violations |= judge.violations(accuracy, state)
        note = stopped or ("" if baseline else script_note(session.evaluator.pairs(accuracy.heard or {})))
        if recipe.window_s < session.original.window_s:
            finding = judge.window(accuracy, seed=session.config.seed)
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
            seconds=0.0,
            note=note,
            divergence=divergence,
        )

    def _network(self, recipe: Recipe) -> Compressed:
        """The last recipe's network is kept: its blocks and its divergence come one after the other."""
        if self._compressed is None or self._compressed[0] != recipe:
            self._compressed = None  # before the next one is made: they may be large
            give_back_freed_memory()
            with stage("compress"):
                self._compressed = recipe, self._session.network(recipe)
        return self._compressed[1]

    def confirm(self, recipe: Recipe) -> TrialAccuracy:
        """The accuracy of a recipe on the confirm set. Raises EvaluationError."""
        if self._session.confirm is None:
            raise InputError("this run has no confirm set")
        with telling_memory_shortage():
            network = self._network(recipe)
            evaluation = self._session.confirm.evaluate(network, window_s=recipe.window_s, drafts=self._confirm_drafts)
        self._confirm_drafts = self._confirm_drafts or evaluation.drafts
        return accuracy_of(self._session.confirm, [heard_of(evaluation.utterances)])

    def baseline(self, trial: Trial) -> Baseline:
        """The baseline that the run's first trial measured. Raises EvaluationError when that trial failed."""
        if trial.accuracy is None:
            raise EvaluationError(f"the original model cannot be scored: {trial.note}")
        check_languages_told(trial.accuracy, self._session.config.min_language_accuracy)
        return self._baseline_of(trial.accuracy)

    def _baseline_of(self, accuracy: TrialAccuracy) -> Baseline:
        return Baseline(
            accuracy=accuracy,
            wer_limit=self.wer_limit(accuracy.rate),
            group_limits=self.group_limits(accuracy),
            min_language_accuracy=self._session.config.min_language_accuracy,
        )

    def wer_limit(self, baseline: ErrorRate) -> WerLimit:
        """What is allowed on speech where the original model has these errors."""
        return self._session.config.parsed_wer_budget.limit(baseline)

    def group_limits(self, baseline: TrialAccuracy) -> GroupLimits | None:
        """What each group may err where the original model has this accuracy; None without a budget."""
        return find_group_limits(self._session.config.group_budget, baseline.groups)


def check_languages_told(original: TrialAccuracy, least: float | None) -> None:
    """Raise InputError where not even the original detects so many languages."""
    found = original.language_accuracy
    if least is not None and found is not None and found < least:
        raise InputError(
            f"--min-language-accuracy {least:g}: the original itself detects the language of {100 * found:.1f} % "
            "of the utterances: ask for less"
        )


def clips_of(divergence: Divergence | None) -> int:
    """On how many it was measured."""
    return divergence.clips if divergence else 0


def never(_: Divergence) -> bool:
    """No clips but all are enough."""
    return False
