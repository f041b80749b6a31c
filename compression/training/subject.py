"""A compressed Whisper that is to be made better."""

from dataclasses import dataclass, replace
from typing import Self

from whisper.model import Whisper

from common.errors import InputError
from compression.calibration import Calibration
from compression.compress import compress, unrounded
from compression.inputs import KeptInputs
from compression.models import LoadedModel
from compression.recipe import Recipe, RecoveryMethod
from compression.recovered import Weights


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
        layers = (*self.recipe.encoder, *self.recipe.decoder)
        if self.recipe.smoothing and any(layer and layer.ffn_rank for layer in layers):
            raise InputError(
                f"recipe {self.recipe.id} cannot be trained: it smooths low-rank layers; choose another trial"
            )

    def before(self, method: RecoveryMethod) -> Self:
        """The same with what was recovered already rounded as it will be after a recovery by this method."""
        recovery = self.recipe.recovery
        return (
            self
            if recovery is None
            else replace(self, recipe=replace(self.recipe, recovery=replace(recovery, method=method)))
        )

    def compressed(self) -> Whisper:
        """The network of the artifact."""
        return compress(self.model, self.recipe, self.calibration, self.recovered)

    def unrounded(self) -> tuple[Whisper, KeptInputs]:
        """The same before rounding, and what its linear layers read, which rounding may regard."""
        return unrounded(self.model, self.recipe, self.calibration, self.recovered)
