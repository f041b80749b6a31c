"""A run's trials priced for another device and judged by other budgets.

WER hardly depends on the device and not at all on what is asked; costs, limits and verdicts do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from common.errors import InputError
from compression.recipe.dimensions import Dimensions
from devices.profile import DeviceProfile
from search.configuration.config import SearchConfig
from search.limits.group_budget import GROUP
from search.limits.verdict import LANGUAGE, Budgets, Judge
from search.limits.window_guard import GUARDED, WindowFinding
from search.pricing import broken_limits, mark_unscored, trial_costs
from search.space.space import runtime_violation
from search.trial import UNEVALUATED, Trial, TrialCosts

COSTS = frozenset({"memory", "size", "latency", "rtf", "occupancy"})
"""The violations that follow from costs alone."""
HEARD = frozenset({"wer", GROUP, LANGUAGE, *GUARDED})
"""Those that follow from transcripts."""
INSERTIONS = "insertions"
"""The guard of short windows that depends on the budget."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The device to price for. `config`: the run's, with what is to be different.

    `run_device`, `run_budgets`: the run's own; without its budgets, verdicts on transcripts stay as they are.
    """

    profile: DeviceProfile
    config: SearchConfig
    dimensions: Dimensions
    run_device: str
    run_budgets: Budgets | None = None

    @property
    def budgets(self) -> Budgets:
        config = self.config
        return Budgets(wer=config.wer_budget, group=config.group_budget, language_accuracy=config.min_language_accuracy)


def reprice(trials: Sequence[Trial], target: Target) -> Iterator[Trial]:
    """The trials with the target's costs, limits and states; `trials[0]` is the baseline.

    Numbers, recipes, seconds and accuracies stay. What the target's runtime cannot execute is `rejected` and loses its
    accuracy. What was rejected in the run has none, so it stays `rejected`, by the target's limits or as not evaluated.
    What was stopped early stays stopped, although another budget may allow it.
    Raises InputError when the target cannot price a recipe that its runtime executes.
    """
    original = trials[0]
    original_costs = trial_costs(original.recipe, target.dimensions, target.profile, target.config)
    limits = target.config.cost_limits(target.profile.ram_available_mb)
    for trial in _judged_anew(trials, target):
        unsupported = runtime_violation(trial.recipe, target.profile.runtime, original=original.recipe)
        costs = _costs(trial, target, is_supported=unsupported is None)
        repriced = replace(
            trial,
            costs=costs,
            objective=target.config.parsed_objective.value(costs, original_costs),
            violations=limits.violations(costs),
        )
        if trial.number == original.number:
            unsupported = None  # every comparison needs it: a search scores it without asking either
        yield _judged(repriced, trial, unsupported, target)


def _judged_anew(trials: Sequence[Trial], target: Target) -> Iterator[Trial]:
    """The trials with the verdicts of the target's budgets on their transcripts, where those are others."""
    original = trials[0].accuracy
    if original is None or target.run_budgets in {None, target.budgets}:
        yield from trials
        return
    before, now = (Judge.of(original, budgets) for budgets in (target.run_budgets, target.budgets) if budgets)
    seed = target.config.seed
    for trial in trials:
        if trial.accuracy is None:
            yield trial
            continue
        kept = {name: over for name, over in trial.violations.items() if name not in {"wer", GROUP, LANGUAGE}}
        violations, note = kept | now.violations(trial.accuracy, trial.state), trial.note
        if INSERTIONS in kept:
            found = now.window(trial.accuracy, seed=seed)
            violations[INSERTIONS] = found.violations[INSERTIONS]
            note = _other_note(note, before.window(trial.accuracy, seed=seed), found)
        yield replace(trial, violations=violations, note=note)


def _other_note(note: str, before: WindowFinding, now: WindowFinding) -> str:
    """The note with what is found now in the place of what was found before."""
    rest = [part for part in note.split("; ") if part not in before.note.split("; ")]
    return "; ".join(filter(None, (*rest, now.note)))


def _costs(trial: Trial, target: Target, *, is_supported: bool) -> TrialCosts:
    """On the target. Without times, and else as in the run, where the target knows no time for an operation."""
    try:
        return trial_costs(trial.recipe, target.dimensions, target.profile, target.config)
    except InputError:
        if is_supported:
            raise
    return replace(
        trial.costs,
        latency_ms=None,
        latency_low_ms=None,
        latency_high_ms=None,
        rtf=None,
        energy_mj=None,
        energy_above_idle_mj=None,
        occupancy=None,
        source=target.profile.source,
    )


def _judged(repriced: Trial, before: Trial, unsupported: str | None, target: Target) -> Trial:
    """State, accuracy, note and the remaining violations of a trial that has the target's costs."""
    violations, broken = dict(repriced.violations), broken_limits(repriced.violations)
    state, accuracy, note = before.state, before.accuracy, before.note
    if unsupported:
        state, accuracy, note = "rejected", None, unsupported
    elif state == "rejected" and broken:
        note = broken
    elif state == "rejected":
        violations[UNEVALUATED] = 1.0
        note = f"not evaluated: rejected on {target.run_device} ({before.note})"
    elif broken and not _over_cost(before):
        note = "; ".join(filter(None, (note, f"on {target.profile.name}, {broken}")))
    if accuracy:
        violations |= {name: over for name, over in before.violations.items() if name in HEARD}
    mark_unscored(violations, state)
    return replace(repriced, state=state, accuracy=accuracy, note=note, violations=violations)


def _over_cost(trial: Trial) -> bool:
    return any(over > 0 for name, over in trial.violations.items() if name in COSTS)
