"""A compressed Whisper that is to be made better."""

from dataclasses import dataclass

from whisper.model import Whisper

from compression.calibration import Calibration
from compression.compress import compress, unrounded
from compression.models import LoadedModel
from compression.recipe import Recipe
from compression.recovered import Weights


@dataclass(frozen=True, kw_only=True)
class Subject:
    """`calibration`, `recovered`: as for `compress`; None where the recipe needs none."""

    model: LoadedModel
    recipe: Recipe
    calibration: Calibration | None
    recovered: Weights | None

    def compressed(self) -> Whisper:
        """The network of the artifact."""
        return compress(self.model, self.recipe, self.calibration, self.recovered)

    def unrounded(self) -> Whisper:
        """The same before rounding."""
        return unrounded(self.model, self.recipe, self.calibration, self.recovered)
