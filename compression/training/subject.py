"""A compressed Whisper that is to be made better."""

from dataclasses import dataclass

from whisper.model import Whisper

from common.errors import InputError
from compression.calibration import Calibration
from compression.compress import compress, unrounded
from compression.inputs import KeptInputs
from compression.models import LoadedModel
from compression.recipe import Recipe
from compression.recovered import Weights


@dataclass(frozen=True, kw_only=True)
class Subject:
    """`calibration`, `recovered`: as for `compress`; None where the recipe needs none.

    Raises InputError for a recipe that smooths, since that comes after the weights that training gives.
    """

    model: LoadedModel
    recipe: Recipe
    calibration: Calibration | None
    recovered: Weights | None

    def __post_init__(self) -> None:
        if self.recipe.smoothing:
            raise InputError(f"recipe {self.recipe.id} cannot be trained: it smooths activations; choose another trial")

    def compressed(self) -> Whisper:
        """The network of the artifact."""
        return compress(self.model, self.recipe, self.calibration, self.recovered)

    def unrounded(self) -> tuple[Whisper, KeptInputs]:
        """The same before rounding, and what its linear layers read, which rounding may regard."""
        return unrounded(self.model, self.recipe, self.calibration, self.recovered)
