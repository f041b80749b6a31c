"""What a recipe costs on a device and whether that alone speaks against it: the part of scoring without a model."""

from collections.abc import Mapping

from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from devices.facts import RuntimeSupport
from devices.profile import DeviceProfile
from evaluators.costs.price import price
from search.configuration.config import SearchConfig
from search.space.space import runtime_violation
from search.trial import TrialCosts, TrialState


def trial_costs(recipe: Recipe, dimensions: Dimensions, profile: DeviceProfile, config: SearchConfig) -> TrialCosts:
    """What a recipe costs on a device, for the configuration's reference utterance.

    Raises InputError when the profile has no latency for one of the recipe's operations.
    """
    costs = price(dimensions, recipe, profile, audio_s=config.reference_seconds, tokens=config.reference_tokens)
    return TrialCosts(
        size_mb=costs.size_bytes / 1e6,
        flops_g=costs.flops / 1e9,
        latency_ms=costs.latency_ms,
        latency_low_ms=costs.latency_low_ms,
        latency_high_ms=costs.latency_high_ms,
        rtf=costs.rtf,
        peak_memory_mb=costs.peak_memory_bytes / 1e6,
        energy_mj=costs.energy_mj,
        parameters_m=costs.parameters / 1e6,
        source=costs.source,
        energy_above_idle_mj=costs.energy_above_idle_mj,
        occupancy=costs.occupancy,
    )


def rejection(
    recipe: Recipe, violations: Mapping[str, float], runtime: RuntimeSupport, *, original: Recipe
) -> str | None:
    """Why a recipe with these violations of the cost limits is not worth scoring, or None when it is."""
    return runtime_violation(recipe, runtime, original=original) or broken_limits(violations) or None


def broken_limits(violations: Mapping[str, float]) -> str:
    """The limits that are broken and by how much; empty when there are none."""
    return ", ".join(f"{name} is {over:.1%} over its limit" for name, over in violations.items() if over > 0)


def mark_unscored(violations: dict[str, float], state: TrialState) -> None:
    """Let a rejected or failed trial that breaks no limit break one of its own, so that it is never feasible."""
    if state in ("rejected", "failed") and not any(over > 0 for over in violations.values()):
        violations[state] = 1.0
