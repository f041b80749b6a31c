"""A run's trials priced for another device: WER hardly depends on the device, costs and limits do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from common.errors import InputError
from compression.recipe.dimensions import Dimensions
from devices.profile import DeviceProfile
from search.configuration.config import SearchConfig
from search.limits.group_budget import GROUP
from search.limits.window_guard import GUARDED
from search.pricing import broken_limits, mark_unscored, trial_costs
from search.space.space import runtime_violation
from search.trial import UNEVALUATED, Trial, TrialCosts

COSTS = frozenset({"memory", "size", "latency", "rtf", "occupancy"})
"""The violations that follow from costs alone."""
HEARD = frozenset({"wer", GROUP, *GUARDED})
"""Those that follow from transcripts."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The device to price for. `config`: the run's, with what is to be different; `run_device`: the run's own."""

    profile: DeviceProfile
    config: SearchConfig
    dimensions: Dimensions
    run_device: str


def reprice(trials: Sequence[Trial], target: Target) -> Iterator[Trial]:
    """The trials with the target's costs, limits and states; `trials[0]` is the baseline.

    Numbers, recipes, seconds and accuracies stay. What the target's runtime cannot execute is `rejected` and loses its
    accuracy. What was rejected in the run has none, so it stays `rejected`, by the target's limits or as not evaluated.
    Raises InputError when the target cannot price a recipe that its runtime executes.
    """
    original = trials[0]
    original_costs = trial_costs(original.recipe, target.dimensions, target.profile, target.config)
    limits = target.config.cost_limits(target.profile.ram_available_mb)
    for trial in trials:
        unsupported = runtime_violation(trial.recipe, target.profile.runtime, original=original.recipe)
        costs = _costs(trial, target, is_supported=unsupported is None)
        repriced = replace(
            trial,
            costs=costs,
            objective=target.config.parsed_objective.value(costs, original_costs),
            violations=limits.violations(costs),
        )
        if trial is original:
            unsupported = None  # every comparison needs it: a search scores it without asking either
        yield _judged(repriced, trial, unsupported, target)


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
