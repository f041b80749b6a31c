"""Recipes of the user's own: tried right after the original, in the space or not, each once."""

from dataclasses import replace

import pytest
from optuna.trial import TrialState

from search.run.loop import MAX_DEATHS
from search.run.own_recipes import OwnRecipes
from search.run.time_budget import End, TimeBudget
from tests.search.conftest import DIMENSIONS
from tests.search.run.test_loop import open_run
from tests.search.run.test_loop import world as world  # noqa: PLC0414 - a fixture
from tests.search.run.test_screening import SPACE, Listener, Process

INSIDE = SPACE.decode(SPACE.default_genes | {"embedding_bits": 4, "encoder.ffn_bits": 8})
OUTSIDE = replace(INSIDE, convolution_bits=4).canonical(DIMENSIONS)
REJECTED = SPACE.decode(SPACE.default_genes | {"convolution_bits": 8})


@pytest.fixture
def listener(artifact_figures) -> Listener:
    return Listener(artifact_figures)


def test_they_come_right_after_the_original_with_divergence_and_wer(tmp_path, listener):
    OwnRecipes(Process(tmp_path, listener).store).give([OUTSIDE, INSIDE])
    assert SPACE.encode(OUTSIDE) is None
    process = Process(tmp_path, listener)
    process.search(8)
    trials = process.store.trials()
    assert [trial.recipe for trial in trials[:3]] == [SPACE.original, OUTSIDE, INSIDE]
    assert [trial.number for trial in trials[:3]] == [0, 1, 2]
    for trial in trials[1:3]:
        assert trial.accuracy
        assert trial.divergence
        assert trial.divergence.clips == 8
        assert "given by --try" in trial.note
    frozen = process.store.study.get_trials()
    assert frozen[1].state == TrialState.FAIL  # which samplers leave out
    assert frozen[2].params["embedding_bits"] == 2
    assert listener.scored.count(INSIDE) == listener.judged.count(INSIDE) == 1
    assert INSIDE.id in process.archive
    assert OUTSIDE.id not in process.archive


def test_without_screening_too_and_a_later_session_goes_on(tmp_path, world):
    _, store = open_run(tmp_path, world)
    OwnRecipes(store).give([OUTSIDE, INSIDE])
    world.interrupt_at = (2,)
    again, _ = open_run(tmp_path, world)
    assert again.run.search(_budget(again)) == "interrupted"
    assert [trial.recipe for trial in store.trials()] == [SPACE.original, OUTSIDE]
    last, _ = open_run(tmp_path, world)
    assert last.run.search(_budget(last)) == "trials"
    assert world.scored[:3] == [SPACE.original, OUTSIDE, INSIDE]
    assert len({trial.recipe for trial in store.trials()}) == len(store.trials())


def _budget(process):
    return TimeBudget(ledger=process.ledger, end=End(seconds=None, trials=6), confirm_share=0.0)


def test_what_ends_the_process_twice_is_failed(tmp_path, world):
    _, store = open_run(tmp_path, world)
    OwnRecipes(store).give([OUTSIDE, INSIDE])
    world.dies_of = OUTSIDE
    for _ in range(MAX_DEATHS):
        process, _ = open_run(tmp_path, world)
        with pytest.raises(SystemError):
            process.run.search(_budget(process))
    process, _ = open_run(tmp_path, world)
    assert process.run.search(_budget(process)) == "trials"
    by_recipe = {trial.recipe: trial for trial in store.trials()}
    assert by_recipe[OUTSIDE].state == "failed"
    assert "ended the process 2 times" in by_recipe[OUTSIDE].note
    assert by_recipe[INSIDE].state == "complete"


def test_what_the_user_drops_comes_again_and_that_is_no_death(tmp_path, world):
    _, store = open_run(tmp_path, world)
    OwnRecipes(store).give([OUTSIDE])
    world.interrupt_at = (2, 2)
    process, _ = open_run(tmp_path, world)
    with pytest.raises(KeyboardInterrupt):
        process.run.search(_budget(process))
    assert OwnRecipes(store).deaths(OUTSIDE.id) == 0
    process, _ = open_run(tmp_path, world)
    assert process.run.search(_budget(process)) == "trials"
    assert OUTSIDE in {trial.recipe for trial in store.trials()}


def test_one_that_breaks_a_limit_is_rejected_without_being_heard(tmp_path, listener):
    OwnRecipes(Process(tmp_path, listener).store).give([REJECTED])
    process = Process(tmp_path, listener)
    process.search(3)
    trial = process.store.trials()[1]
    assert (trial.recipe, trial.state, trial.divergence) == (REJECTED, "rejected", None)
    assert REJECTED not in listener.judged


def test_one_that_cannot_be_compressed_is_failed(tmp_path, listener):
    OwnRecipes(Process(tmp_path, listener).store).give([OUTSIDE])
    listener.breaks_on = OUTSIDE
    process = Process(tmp_path, listener)
    process.search(3)
    trial = process.store.trials()[1]
    assert (trial.recipe, trial.state) == (OUTSIDE, "failed")
    assert trial.note == "it needs calibration; given by --try"
