"""How long each stage of a search takes, and how many recipes an hour it judges, by the speeds of this machine."""

from dataclasses import dataclass

from compression.calibration.calibration import GRADIENT_SAMPLES, LAYER_SAMPLES
from compression.recipe.dimensions import Dimensions
from search.needs.speeds import TOKENS, Speeds

WIDTHS = 4
"""Of integer weights that are profiled: those of most runtimes."""
BACKWARD = 2.6
"""Times the work of a clip that only runs forward: see `compression.calibration`."""
WHOLE_WINDOW = 2.0
"""Times the work of an encoder window of 15 s: the original is scored in its own."""
DRAFTED = 0.7
"""Of the time of a transcript, what a recipe takes that has the original's for a draft."""
CLIPS_JUDGED, TRANSCRIBED = 12, 0.02
"""Clips by which a recipe is judged, and the share of recipes that are transcribed.

These three are results/tenth's, by benchmarks/search/judging_mix.py.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a search is given. `calibration`, `scored`: utterances; `clips`: for divergence."""

    calibration: int
    scored: int
    clips: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """`stages`: seconds before the first recipe, by name. `recipe_s`: of one that is judged; `transcripts_s`: of one
    that is transcribed too.
    """

    stages: dict[str, float]
    recipe_s: float
    transcripts_s: float

    @property
    def setup_s(self) -> float:
        return sum(self.stages.values())

    @property
    def recipes_per_hour(self) -> float:
        """Judged, once the set-up is done, by one process."""
        return 3600 / ((1 - TRANSCRIBED) * self.recipe_s + TRANSCRIBED * self.transcripts_s)

    def judged_in(self, hours: float) -> float:
        """Recipes, set-up taken off."""
        return max(0.0, hours - self.setup_s / 3600) * self.recipes_per_hour


def estimate(dimensions: Dimensions, speeds: Speeds, work: Work) -> Estimate:
    """Where nothing is cached."""
    spoken = speeds.encode + TOKENS * speeds.token
    judged = speeds.encode + speeds.predict
    forward = judged + speeds.gather
    backward = min(GRADIENT_SAMPLES, work.calibration)
    layers = (dimensions.n_audio_layer / 2 + 1) * speeds.encode
    layers += (dimensions.n_audio_layer + dimensions.n_text_layer) * speeds.predict
    calibration = (
        work.calibration * (spoken + forward)
        + backward * (BACKWARD - 1) * forward
        + min(LAYER_SAMPLES, work.calibration) * layers
        + speeds.departures
    )
    recipe = speeds.compress + CLIPS_JUDGED * judged
    return Estimate(
        stages={
            "calibration": calibration,
            "profile": WIDTHS * speeds.rounding,
            "the original's transcripts": work.clips * spoken
            + work.scored * (WHOLE_WINDOW * speeds.encode + TOKENS * speeds.token),
        },
        recipe_s=recipe,
        transcripts_s=recipe + work.scored * (speeds.encode + DRAFTED * TOKENS * speeds.token),
    )
