"""What the report says of the inventory's FLOPs where fvcore counts others in the network."""

from dataclasses import replace

import pytest

from compression.compress import compress
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.whisper.load import LoadedModel
from devices.profile import load_profile
from evaluators.costs import inventory
from evaluators.costs.price import price
from evaluators.flops_check import count_flops
from search.outcome import ArtifactFigures, ArtifactRecord, Outcome
from search.report.csv_files import trials_frame
from search.report.problems import problems
from tests.networks import random_network
from tests.strategies import small_dimensions

SMALL = small_dimensions(state=64, layers=1)


def counted(outcome: Outcome, figures: ArtifactFigures, number: int, flops_g: float | None) -> Outcome:
    """The outcome with an artifact of a trial in which fvcore counted so much."""
    record = ArtifactRecord(figures=replace(figures, flops_fvcore_g=flops_g), note="")
    return replace(outcome, artifacts=outcome.artifacts | {outcome.trials[number].recipe.id: record})


@pytest.mark.parametrize("ratio", [None, 0.992, 1.0, 1.008])
def test_nothing_is_said_within_one_per_cent(
    outcome: Outcome, artifact_figures: ArtifactFigures, dimensions: Dimensions, ratio: float | None
) -> None:
    listed = outcome.trials[1].costs.flops_g
    found = counted(outcome, artifact_figures, 1, ratio and listed * ratio)
    rows = trials_frame(found, dimensions).set_index("trial")
    assert not any("FLOPs" in problem for problem in problems(found))
    assert "fvcore" not in rows.note[1]
    assert ratio is None or rows.flops_fvcore_g[1] == listed * ratio
    assert rows.flops_fvcore_g.count() == (ratio is not None)


@pytest.mark.parametrize(
    ("number", "ratio", "said"),
    [
        (1, 0.5, "fvcore counts 2.4 GFLOP in the network, the inventory 4.8, 100.0 % more"),
        (0, 1.25, "fvcore counts 15 GFLOP in the network, the inventory 12, 20.0 % less"),
    ],
)
def test_a_disagreement_is_a_problem_and_in_the_note(
    outcome: Outcome, artifact_figures: ArtifactFigures, dimensions: Dimensions, *, number: int, ratio: float, said: str
) -> None:
    found = counted(outcome, artifact_figures, number, ratio * outcome.trials[number].costs.flops_g)
    assert f"The FLOPs of trial {number} are in doubt: {said}." in problems(found)
    notes = trials_frame(found, dimensions).set_index("trial").note
    assert said in notes[number]
    assert sum("fvcore" in note for note in notes) == sum(
        trial.recipe.id == outcome.trials[number].recipe.id for trial in outcome.trials
    )


@pytest.mark.parametrize("is_wrong", [False, True])
def test_an_inventory_that_forgets_the_ffn_is_found(
    outcome: Outcome, artifact_figures: ArtifactFigures, monkeypatch: pytest.MonkeyPatch, *, is_wrong: bool
) -> None:
    recipe = Recipe.original(SMALL)
    model = LoadedModel(name="random", digest="0" * 64, dimensions=SMALL, stored_bits=32, network=random_network(SMALL))
    if is_wrong:
        nothing = inventory.Part(stage="encoder", items=())
        monkeypatch.setattr(inventory, "_ffn", lambda *_: nothing)
    listed = price(SMALL, recipe, load_profile("rpi4"), audio_s=1.0, tokens=5).flops / 1e9
    flops = count_flops(compress(model, recipe).network, SMALL, recipe, audio_s=1.0, tokens=5).total / 1e9
    baseline = replace(outcome.baseline, costs=replace(outcome.baseline.costs, flops_g=listed))
    run = replace(outcome, trials=(baseline, *outcome.trials[1:]))
    doubts = [problem for problem in problems(counted(run, artifact_figures, 0, flops)) if "FLOPs" in problem]
    assert len(doubts) == is_wrong
    assert is_wrong or listed == flops
