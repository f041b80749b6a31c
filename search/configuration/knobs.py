"""The knobs of the default engine: tables of a search's configuration, which have no flags."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Factor = Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class EvolutionKnobs(BaseModel):
    """`[evolution]`: how recipes are proposed (`search.engines.evolution`).

    `children`: of which one is measured. `aimed`: share of parents near the budget, the others being anywhere on the
    front; `near`: members of the front on each side of the budget that count as near. `changed`: most genes that a
    child changes; `jump`: how often a changed gene takes any value instead of the next one. `behind_encoder`: share of
    children that leave the encoder alone, whose outputs are then at hand: they are judged in a third of the time.
    `refit_every`: judgements between two fits of the model of divergence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    children: Count = 48
    aimed: Share = 0.7
    near: Count = 4
    changed: Count = 4
    jump: Share = 0.15
    behind_encoder: Share = 0.5
    refit_every: Count = 25


class ScreeningKnobs(BaseModel):
    """`[screening]`: which recipes are judged to the end, and which are transcribed (`search.run.screening`).

    `judged_clips`: on so many of the run's clips recipes are judged; those that come to have a WER, on all of them.
    `first_clips`: after so many a recipe may be seen to be worse, by `margin`; after more of them by a margin that
    falls with their square root. `least_judged`: before so many recipes were judged the front is a guess, and no
    transcript is worth its time. `scored_share`: of the time of a search, for transcripts. `gap`: of the log of
    divergence, between two recipes that are scored for the front's sake. `scored_at_end`: recipes that may be the
    pick, scored when the time for proposals is over.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    judged_clips: Count = 16
    first_clips: Count = 4
    margin: Factor = 1.2
    least_judged: Count = 16
    scored_share: Share = 0.4
    gap: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 0.12
    scored_at_end: Count = 3
