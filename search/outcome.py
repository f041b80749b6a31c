"""What a run has found so far, as the results and the report read it."""

from dataclasses import dataclass, field
from typing import Literal

from evaluators.accuracy.error_rate import ErrorRate
from search.certainty import Certainty, Estimate
from search.limits.budget import CostLimits, WerLimit
from search.limits.group_budget import GroupLimits, JudgedGroup, find_group_limits
from search.trial import GroupErrors, Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class Confirmation:
    """WER of one recipe on utterances that the search never saw."""

    rate: ErrorRate
    within_budget: bool
    """Whether it is within the same relative (or absolute) budgets, taken over the baseline on this set."""
    groups: tuple[GroupErrors, ...] = ()
    language_accuracy: float | None = None
    """Share of the utterances whose language the network detects; None where it knows but one, or nobody asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactFigures:
    """What was measured of an exported recipe, in the CSV's units; WER and counts on the search's speech.

    `host_latency_ms`: the reference utterance on this machine; `host_encoder_ms`, `host_token_ms`: medians over clips
    of that speech; None of a runtime that does not tell. `host_utterance_ms`: such a clip from samples to text; None in
    records from before it was kept. `identical_transcripts`: share of utterances on which artifact
    and torch say the same. `on_silence`, `on_noise`, `on_quiet`: what it hears where nobody speaks, as in
    `Verification`; `on_quiet` is None in records from before it was kept, and so is `on_sounds`, what it hears in each
    of the synthesised sounds.
    `flops_fvcore_g`: the reference utterance's, counted in the network that was exported; None as well before it was.
    `language_accuracy`: as in `Verification`; None as well before it was kept.
    """

    rate: ErrorRate
    size_mb: float
    host_latency_ms: float | None
    host_encoder_ms: float | None
    host_token_ms: float | None
    host_load_ms: float
    host_memory_mb: float
    identical_transcripts: float
    on_silence: str
    on_noise: str
    on_quiet: str | None = None
    on_sounds: dict[str, str] | None = None
    flops_fvcore_g: float | None = None
    language_accuracy: float | None = None
    host_utterance_ms: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactRecord:
    """What came of exporting a recipe; without figures, `note` says why. `groups`: its WER by group."""

    figures: ArtifactFigures | None
    note: str
    groups: tuple[GroupErrors, ...] = ()


EndReason = Literal["time", "trials", "exhausted", "standstill", "proven", "interrupted"]
"""exhausted: the engine had nothing left to propose, or nothing new for very long. standstill: what it proposed changed
nothing for very long. proven: each recipe that was cheaper than the pick then was judged or excluded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """Why a run's last session ended, and what it left open.

    `pick_id`: the recipe of the pick then, if there was one; `open_recipes`: those that are cheaper, within the limits
    on costs, and were neither judged nor excluded; None where nobody counted them. `combinations`: of the space's
    genes. `judged`, `excluded`: the others of those; `comparisons`: pairs of judged recipes that test the rule by which
    they are excluded (`search.engines.exclusion`), `contradictions`: those that speak against it. None in records from
    before the rule, with which `open_recipes` are all that were not judged.
    `stood_still`: recipes for which the front did so, where that was the reason.
    """

    reason: EndReason
    combinations: float
    open_recipes: int | None = None
    pick_id: str | None = None
    stood_still: int | None = None
    judged: int | None = None
    excluded: int | None = None
    comparisons: int | None = None
    contradictions: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A run's trials and what was decided about them.

    `trials[0]` is the baseline: the original recipe. `wer_limit`: on the search set. `confirmations` and `artifacts`
    are by recipe id, also of trials that have left the front since; empty when the run has no confirm set or has not
    come to it. `limits`: on costs; None in runs from before they were kept. `repriced_from`: the device that the run
    was made for, where it was priced anew for `device`. `artifacts_are_of_host`: whether the machine that measured the
    artifacts is what the profile `host` describes. `confidence`: the probability of being within the budget that the
    pick has at least; `certainty` says what it is.
    """

    model: str
    device: str
    speech: str
    confirm_speech: str | None
    normaliser: str
    wer_limit: WerLimit
    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    recommended: Trial | None
    least_violating: Trial | None
    confirmations: dict[str, Confirmation] = field(default_factory=dict)
    artifacts: dict[str, ArtifactRecord] = field(default_factory=dict)
    utterances: int = 0
    broken_lines: int = 0
    confirm_broken_lines: int = 0
    limits: CostLimits | None = None
    repriced_from: str | None = None
    asked_before: dict[str, str] = field(default_factory=dict)
    """By option, what the run was asked where it was priced anew and something else is asked now."""
    artifacts_are_of_host: bool = True
    group_budget: str | None = None
    min_language_accuracy: float | None = None
    certainty: Certainty | None = field(default=None, compare=False)
    confidence: float = 0.5
    ended: Ended | None = None
    """None while the run goes on, and in runs from before it was kept."""

    def estimate(self, trial: Trial) -> Estimate | None:
        """Of the trial's true WER, by all that was measured; None without its divergence."""
        if self.certainty is None:
            return None
        scored = self.certainty.scored(trial.recipe.id)
        return scored or (self.certainty.expected(trial.divergence.mean) if trial.divergence else None)

    @property
    def group_limits(self) -> GroupLimits | None:
        """What each group may err; None without a group budget."""
        accuracy = self.baseline.accuracy
        return find_group_limits(self.group_budget, accuracy.groups) if accuracy else None

    def worst_group(self, trial: Trial) -> JudgedGroup | None:
        """The group that is furthest over its limit; without a group budget, over the original's own WER."""
        if trial.accuracy is None or self.baseline.accuracy is None:
            return None
        limits = self.group_limits or find_group_limits("+0%", self.baseline.accuracy.groups)
        return limits.worst(trial.accuracy.groups) if limits else None

    def figures(self, trial: Trial) -> ArtifactFigures | None:
        """What was measured of the trial's artifact, if there is one."""
        record = self.artifacts.get(trial.recipe.id)
        return record.figures if record else None

    def within_time(self, trial: Trial) -> float | None:
        """The probability that the trial keeps every limit on time; None without such a limit."""
        return self.limits.probability(trial.costs) if self.limits else None

    @property
    def baseline(self) -> Trial:
        return self.trials[0]
