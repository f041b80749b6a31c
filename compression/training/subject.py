"""A compressed Whisper that is to be made better."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

from common.errors import InputError
from compression.calibration.calibration import Calibration
from compression.compress import Unrounded, compress, unrounded
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import ROUNDED_IN_TRAINING, STACKS, RecoveryMethod, Stack
from compression.techniques.compressed import Compressed
from compression.techniques.trained_weights import Weights
from compression.whisper.load import LoadedModel


def can_be_trained(recipe: Recipe) -> bool:
    """Whether it does not smooth what low-rank factors read: how, is not known of trained factors."""
    return not (recipe.smoothing and any(layer and layer.ffn_rank for layer in (*recipe.encoder, *recipe.decoder)))


@dataclass(frozen=True, kw_only=True)
class Subject:
    """`calibration`, `recovered`: as for `compress`; None where the recipe needs none.

    Raises InputError for a recipe that smooths what low-rank factors read: that is not known of trained factors.
    """

    model: LoadedModel
    recipe: Recipe
    calibration: Calibration | None
    recovered: Weights | None

    def __post_init__(self) -> None:
        if not can_be_trained(self.recipe):
            raise InputError(
                f"recipe {self.recipe.id} cannot be trained: it smooths low-rank layers; choose another trial"
            )

    def check_losses(self) -> None:
        """Raise InputError for a recipe whose weights and activations are the original's."""
        original = Recipe.original(self.model.dimensions, stored_bits=self.model.stored_bits)
        if replace(self.recipe, recovery=None, window_s=original.window_s) == original:
            raise InputError(f"recipe {self.recipe.id} has nothing to recover: its weights are the original's")

    def nearest_after(self, method: RecoveryMethod, stacks: Collection[str]) -> tuple[Stack, ...]:
        """`Recovery.nearest` when the method has trained these stacks."""
        if self.recipe.rounding == "nearest":
            return ()
        before = self.recipe.recovery.nearest if self.recipe.recovery else ()
        is_rounded = method in ROUNDED_IN_TRAINING
        return tuple(stack for stack in STACKS if (is_rounded if stack in stacks else stack in before))

    def before(self, method: RecoveryMethod, stacks: Collection[str]) -> Self:
        """The same with what was recovered earlier rounded as it will be when the method has trained these stacks."""
        if self.recipe.recovery is None:
            return self
        recovery = replace(self.recipe.recovery, nearest=self.nearest_after(method, stacks))
        return replace(self, recipe=replace(self.recipe, recovery=recovery))

    def compressed(self) -> Compressed:
        """What the artifact is written from."""
        return compress(self.model, self.recipe, self.calibration, self.recovered)

    def unrounded(self) -> Unrounded:
        """The same before rounding."""
        return unrounded(self.model, self.recipe, self.calibration, self.recovered)
