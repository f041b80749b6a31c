import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from common.errors import InputError
from search.engines.base import Proposal
from search.engines.optuna_engine import OptunaEngine
from search.engines.study_store import Memory
from search.limits.budget import CostLimits
from search.outcome import Outcome
from search.report.csv_files import artifacts_frame, trials_frame
from search.run_records import (
    RunFacts,
    find_outcome,
    read_outcome,
    recall_confirmation,
    recall_elapsed,
    recall_facts,
    remember_artifact,
    remember_confirmation,
    remember_elapsed,
    remember_facts,
)
from search.trial import GroupErrors, Trial
from tests.search.answers import toy_space
from tests.search.conftest import DIMENSIONS

FACTS = RunFacts(
    model="tiny.en",
    device="imx8mplus",
    speech="search set",
    confirm_speech="confirm set",
    normaliser="English",
    wer_budget="+10%",
    utterances=100,
    broken_lines=2,
    confirm_broken_lines=0,
    dimensions=DIMENSIONS,
    limits=CostLimits(max_memory_mb=512, max_latency_ms=900, latency_confidence=0.9),
)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "study.db")


def tell(memory: Memory, trials: tuple[Trial, ...]) -> None:
    engine = OptunaEngine(memory, toy_space(), sampler="random", seed=0)
    for trial in trials:
        proposal: Proposal = engine.ask()
        engine.tell(proposal, trial)


def test_an_outcome_comes_back_from_memory_as_it_was(memory, outcome: Outcome):
    remember_facts(memory, FACTS)
    tell(memory, outcome.trials)
    for trial in outcome.trials:
        if trial.recipe.id in outcome.confirmations:
            remember_confirmation(memory, trial.recipe, outcome.confirmations[trial.recipe.id])
        if trial.recipe.id in outcome.artifacts:
            remember_artifact(memory, trial.recipe, outcome.artifacts[trial.recipe.id])
    found = read_outcome(memory)
    assert found.wer_limit == pytest.approx(outcome.wer_limit)
    assert found.limits == FACTS.limits
    assert replace(found, wer_limit=outcome.wer_limit, limits=None) == outcome


def test_what_was_measured_of_a_trial_stays_when_a_better_one_takes_its_place(memory, outcome: Outcome):
    remember_facts(memory, FACTS)
    pick = outcome.recommended
    assert pick
    assert pick.accuracy
    accuracy = replace(pick.accuracy, wer=pick.accuracy.wer / 2)
    better = replace(pick, number=len(outcome.trials), recipe=replace(pick.recipe, window_s=14.0), accuracy=accuracy)
    tell(memory, (*outcome.trials, better))
    remember_confirmation(memory, pick.recipe, outcome.confirmations[pick.recipe.id])
    remember_artifact(memory, pick.recipe, outcome.artifacts[pick.recipe.id])
    found = read_outcome(memory)
    assert pick.number not in [trial.number for trial in found.front]
    row = trials_frame(found, FACTS.dimensions).set_index("trial").loc[pick.number]
    assert row["wer_confirm"] == outcome.confirmations[pick.recipe.id].wer
    assert not {"not confirmed", "not exported"} & set(str(row["note"]).split("; "))
    assert artifacts_frame(found)["trial"].tolist() == [pick.number]


def test_what_a_device_cannot_run_has_nothing_measured(memory, outcome: Outcome):
    pick = outcome.recommended
    assert pick
    remember_confirmation(memory, pick.recipe, outcome.confirmations[pick.recipe.id])
    remember_artifact(memory, pick.recipe, outcome.artifacts[pick.recipe.id])
    cannot = replace(pick, state="rejected", accuracy=None, violations={"runtime": 1.0})
    trials = [cannot if trial.number == pick.number else trial for trial in outcome.trials]
    found = find_outcome(memory, FACTS, trials)
    assert (found.confirmations, found.artifacts) == ({}, {})
    assert set(find_outcome(memory, FACTS, outcome.trials).artifacts) == {pick.recipe.id}


def test_groups_come_back_from_memory(memory, outcome: Outcome):
    rates = dict.fromkeys(("wer", "wer_low", "wer_high"), 0.1)
    groups = (GroupErrors(kind="language", name="de", errors=20, words=200, utterances=9, **rates),)
    remember_facts(memory, replace(FACTS, group_budget="+30%"))
    tell(
        memory,
        tuple(t if not t.accuracy else replace(t, accuracy=replace(t.accuracy, groups=groups)) for t in outcome.trials),
    )
    pick = outcome.trials[1]
    remember_confirmation(memory, pick.recipe, replace(outcome.confirmations[pick.recipe.id], groups=groups))
    remember_artifact(memory, pick.recipe, replace(outcome.artifacts[pick.recipe.id], groups=groups))
    found = read_outcome(memory)
    assert found.group_budget == "+30%"
    assert found.trials[1].accuracy.groups == groups
    assert found.confirmations[pick.recipe.id].groups == found.artifacts[pick.recipe.id].groups == groups
    assert found.worst_group(found.trials[1]).allowed == pytest.approx(26)


def test_without_a_feasible_trial_the_least_violating_one_is_named(memory, outcome: Outcome):
    remember_facts(memory, replace(FACTS, wer_budget="4%"))
    trials = [
        replace(t, violations={"wer": t.accuracy.wer / 0.04 - 1} if t.accuracy else {"x": 1}) for t in outcome.trials
    ]
    tell(memory, tuple(trials))
    found = read_outcome(memory)
    assert (found.front, found.recommended, found.wer_limit) == ((), None, 0.04)
    assert found.least_violating == trials[0]


def test_what_was_not_remembered(memory, outcome: Outcome):
    assert recall_elapsed(memory) == 0
    assert recall_confirmation(memory, outcome.baseline.recipe) is None
    with pytest.raises(InputError, match="ended before its first trial"):
        recall_facts(memory)
    with pytest.raises(InputError, match="ended before its first trial"):
        read_outcome(memory)
    remember_facts(memory, FACTS)
    assert recall_facts(memory) == FACTS
    with pytest.raises(InputError, match="no baseline yet.*whisperfit resume"):
        read_outcome(memory)


def test_a_baseline_that_failed_says_why(memory, outcome: Outcome):
    remember_facts(memory, FACTS)
    tell(memory, (replace(outcome.trials[7], number=0, note="logits are NaN"),))
    with pytest.raises(InputError, match="original model cannot be scored .logits are NaN"):
        read_outcome(memory)


def test_runs_from_before_limits_occupancy_and_missing_power_are_read(memory, outcome: Outcome):
    """Their texts as they were then."""
    facts = asdict(FACTS)
    del facts["limits"]
    memory.remember("facts", json.dumps(facts))
    assert recall_facts(memory) == replace(FACTS, limits=None)
    record = json.loads(outcome.baseline.to_json())
    for name in ("energy_above_idle_mj", "occupancy"):
        del record["costs"][name]
    trial = Trial.from_json(json.dumps(record))
    costs = replace(outcome.baseline.costs, energy_above_idle_mj=None, occupancy=None)
    assert trial == replace(outcome.baseline, costs=costs)


def test_elapsed_is_exact(memory):
    remember_elapsed(memory, 0.1 + 0.2)
    assert recall_elapsed(memory) == 0.1 + 0.2
