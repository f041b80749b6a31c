"""A device and a speech set in one: made-up trials that follow from the recipe alone."""

from compression.recipe.recipe import Recipe
from search.engines.base import Proposal
from search.engines.optuna_engine import OptunaEngine
from search.space.genes import Value
from search.space.space import Space
from search.trial import Trial
from tests.search.conftest import DIMENSIONS, _trial
from tests.search.spaces import make_space

CHOICES: dict[str, tuple[Value, ...]] = {
    "encoder.ffn_bits": (16, 8, 4),
    "decoder.ffn_bits": (16, 8, 4),
    "decoder.heads_removed": (0, 1, 2, 3),
    "embedding_bits": (16, 8, 4),
    "convolution_bits": (16, 8),
    "window_s": (30.0, 20.0, 15.0),
}
WER_LIMIT = 0.065
SECONDS = 10.0
"""What a trial that is scored takes."""


def toy_space(choices: dict[str, tuple[Value, ...]] = CHOICES) -> Space:
    return make_space(DIMENSIONS, choices)


def answer(number: int, recipe: Recipe) -> Trial:
    """Fewer bits are cheaper and err more; heads cost nothing and err; every state but failed comes up."""
    bits = sum(recipe.weight_bits) / len(recipe.weight_bits)
    heads = sum(layer.heads for layer in recipe.decoder if layer)
    wer = round(0.05 + 0.006 * (16 - bits) + 0.004 * (12 - heads), 3)
    objective = (bits + recipe.window_s / 10) / 19
    violations = {"size": objective / 0.99 - 1, "wer": wer / WER_LIMIT - 1}
    if objective < 0.99 and recipe.embedding_bits == 16 and recipe.convolution_bits == 8:
        rejected = {"size": 0.2}
        return _trial(
            number, objective=objective, wer=None, recipe=recipe, state="rejected", violations=rejected, seconds=0.1
        )
    state = "stopped" if wer > 0.08 else "complete"
    violations["size"] = min(0.0, violations["size"])
    return _trial(
        number,
        objective=objective,
        wer=wer,
        utterances=3,
        recipe=recipe,
        state=state,
        violations=violations,
        seconds=SECONDS,
    )


def go_on(engine: OptunaEngine, space: Space, trials: int) -> list[tuple[Proposal, Trial]]:
    """Ask and tell so many times; repeated recipes are told like any others."""
    told = []
    for _ in range(trials):
        proposal = engine.ask()
        trial = answer(proposal.number, space.decode(proposal.genes))
        engine.tell(proposal, trial)
        told.append((proposal, trial))
    return told
