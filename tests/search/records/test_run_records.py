import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from common.errors import InputError
from evaluators.accuracy.error_rate import GroupKey
from search.configuration.config import SearchConfig
from search.engines.base import Proposal
from search.engines.optuna_engine import OptunaEngine
from search.limits.budget import CostLimits
from search.outcome import Outcome
from search.records.run_records import (
    RunFacts,
    check_configuration,
    find_outcome,
    load_confirmations,
    load_elapsed,
    load_facts,
    normaliser_note,
    read_outcome,
    save_artifact,
    save_configuration,
    save_confirmation,
    save_elapsed,
    save_facts,
)
from search.records.study_store import StudyStore
from search.report.csv_files import artifacts_frame, trials_frame
from search.trial import GroupErrors, Trial
from tests.search.answers import toy_space
from tests.search.conftest import DIMENSIONS, make_rate

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
def store(tmp_path: Path) -> StudyStore:
    return StudyStore(tmp_path / "study.db")


def tell(store: StudyStore, trials: tuple[Trial, ...]) -> None:
    engine = OptunaEngine(store, toy_space(), sampler="random", seed=0)
    for trial in trials:
        proposal: Proposal = engine.ask()
        engine.tell(proposal, trial)


def test_an_outcome_comes_back_from_memory_as_it_was(store, outcome: Outcome):
    save_facts(store, FACTS)
    tell(store, outcome.trials)
    for trial in outcome.trials:
        if trial.recipe.id in outcome.confirmations:
            save_confirmation(store, trial.recipe, outcome.confirmations[trial.recipe.id])
        if trial.recipe.id in outcome.artifacts:
            save_artifact(store, trial.recipe, outcome.artifacts[trial.recipe.id])
    found = read_outcome(store)
    assert found.limits == FACTS.limits
    assert replace(found, limits=None) == outcome


def test_what_was_measured_of_a_trial_stays_when_a_better_one_takes_its_place(store, outcome: Outcome):
    save_facts(store, FACTS)
    pick = outcome.recommended
    assert pick
    assert pick.accuracy
    accuracy = replace(pick.accuracy, rate=replace(pick.accuracy.rate, errors=pick.accuracy.rate.errors // 2))
    better = replace(pick, number=len(outcome.trials), recipe=replace(pick.recipe, window_s=14.0), accuracy=accuracy)
    tell(store, (*outcome.trials, better))
    save_confirmation(store, pick.recipe, outcome.confirmations[pick.recipe.id])
    save_artifact(store, pick.recipe, outcome.artifacts[pick.recipe.id])
    found = read_outcome(store)
    assert pick.number not in [trial.number for trial in found.front]
    row = trials_frame(found, FACTS.dimensions).set_index("trial").loc[pick.number]
    assert row["wer_confirm"] == outcome.confirmations[pick.recipe.id].rate.wer
    assert not {"not confirmed", "not exported"} & set(str(row["note"]).split("; "))
    assert artifacts_frame(found)["trial"].tolist() == [pick.number]


def test_what_a_device_cannot_run_has_nothing_measured(store, outcome: Outcome):
    pick = outcome.recommended
    assert pick
    save_confirmation(store, pick.recipe, outcome.confirmations[pick.recipe.id])
    save_artifact(store, pick.recipe, outcome.artifacts[pick.recipe.id])
    save_facts(store, FACTS)
    cannot = replace(pick, state="rejected", accuracy=None, violations={"runtime": 1.0})
    trials = [cannot if trial.number == pick.number else trial for trial in outcome.trials]
    found = find_outcome(store, FACTS, trials)
    assert (found.confirmations, found.artifacts) == ({}, {})
    assert set(find_outcome(store, FACTS, outcome.trials).artifacts) == {pick.recipe.id}


def test_groups_come_back_from_memory(store, outcome: Outcome):
    groups = (GroupErrors(key=GroupKey(kind="language", name="de"), rate=make_rate(20, 200), utterances=9),)
    save_facts(store, replace(FACTS, group_budget="+30%"))
    tell(
        store,
        tuple(t if not t.accuracy else replace(t, accuracy=replace(t.accuracy, groups=groups)) for t in outcome.trials),
    )
    pick = outcome.trials[1]
    save_confirmation(store, pick.recipe, replace(outcome.confirmations[pick.recipe.id], groups=groups))
    save_artifact(store, pick.recipe, replace(outcome.artifacts[pick.recipe.id], groups=groups))
    found = read_outcome(store)
    assert found.group_budget == "+30%"
    assert found.trials[1].accuracy.groups == groups
    assert found.confirmations[pick.recipe.id].groups == found.artifacts[pick.recipe.id].groups == groups
    assert found.worst_group(found.trials[1]).limit.errors == 26


def test_without_a_feasible_trial_the_least_violating_one_is_named(store, outcome: Outcome):
    save_facts(store, replace(FACTS, wer_budget="4%"))
    trials = [
        replace(t, violations={"wer": t.accuracy.wer / 0.04 - 1} if t.accuracy else {"x": 1}) for t in outcome.trials
    ]
    tell(store, tuple(trials))
    found = read_outcome(store)
    assert (found.front, found.recommended, found.wer_limit.errors) == ((), None, 40)
    assert found.least_violating == trials[0]


def test_what_was_not_remembered(store, outcome: Outcome):
    assert load_elapsed(store) == 0
    assert load_confirmations(store) == {}
    with pytest.raises(InputError, match="ended before its first trial"):
        load_facts(store)
    with pytest.raises(InputError, match="ended before its first trial"):
        read_outcome(store)
    save_facts(store, FACTS)
    assert load_facts(store) == FACTS
    with pytest.raises(InputError, match="no baseline yet.*whisperfit resume"):
        read_outcome(store)


def test_a_baseline_that_failed_says_why(store, outcome: Outcome):
    save_facts(store, FACTS)
    tell(store, (replace(outcome.trials[7], number=0, note="logits are NaN"),))
    with pytest.raises(InputError, match="original model cannot be scored .logits are NaN"):
        read_outcome(store)


def test_runs_from_before_limits_occupancy_and_missing_power_are_read(store, outcome: Outcome):
    """Their texts as they were then."""
    facts = asdict(FACTS)
    del facts["limits"]
    store.remember("facts", json.dumps(facts))
    assert load_facts(store) == replace(FACTS, limits=None)
    record = json.loads(outcome.baseline.to_json())
    for name in ("energy_above_idle_mj", "occupancy"):
        del record["costs"][name]
    trial = Trial.from_json(json.dumps(record))
    costs = replace(outcome.baseline.costs, energy_above_idle_mj=None, occupancy=None)
    assert trial == replace(outcome.baseline, costs=costs)


def test_a_run_that_goes_on_with_another_normaliser_is_told(store):
    assert normaliser_note(store, FACTS) == ""
    save_facts(store, FACTS)
    assert normaliser_note(store, FACTS) == ""
    note = normaliser_note(store, replace(FACTS, normaliser="English.2"))
    assert note == "earlier errors were counted after the normaliser English, new ones after English.2"


def test_elapsed_is_exact(store):
    save_elapsed(store, 0.1 + 0.2)
    assert load_elapsed(store) == 0.1 + 0.2


CONFIG = {"model": "tiny.en", "device": "imx8mplus", "trials": 4, "max_latency_ms": 900, "latency_confidence": 0.9}


@pytest.mark.parametrize(
    ("key", "value"),
    [("wer_budget", "+20%"), ("group_budget", "+30%"), ("objective", "1,0"), ("max_size_mb", 30), ("seed", 1)],
)
def test_what_trials_are_judged_by_cannot_change(key, value, store):
    save_configuration(store, SearchConfig.build(None, CONFIG))
    with pytest.raises(InputError, match=f"config.toml: {key} is .* and was .* when this run began.*start a new run"):
        check_configuration(store, SearchConfig.build(None, CONFIG | {key: value}))


def test_how_long_a_run_goes_on_and_where_its_speech_lies_may_change(store):
    config = SearchConfig.build(None, CONFIG)
    check_configuration(store, config)
    save_configuration(store, config)
    for changes in ({"trials": 400}, {"hours": 8}, {"threads": 3}, {"data": "elsewhere.jsonl"}, {"model": "./base.pt"}):
        check_configuration(store, SearchConfig.build(None, CONFIG | changes))


def test_a_run_from_before_the_configuration_was_kept_is_compared_with_its_facts(store):
    save_facts(store, FACTS)
    check_configuration(store, SearchConfig.build(None, CONFIG))
    check_configuration(store, SearchConfig.build(None, CONFIG | {"objective": "1,0"}))  # nobody knows
    for key, value in {"wer_budget": "9%", "group_budget": "+9%", "max_latency_ms": 901, "max_rtf": 1}.items():
        with pytest.raises(InputError, match=f"config.toml: {key} is"):
            check_configuration(store, SearchConfig.build(None, CONFIG | {key: value}))


def test_a_key_that_came_later_had_its_default(store):
    config = SearchConfig.build(None, CONFIG)
    kept = {"wer_budget": config.wer_budget, "max_latency_ms": 900.0, "latency_confidence": 0.9}
    store.remember("configuration", json.dumps(kept))
    check_configuration(store, config)
    with pytest.raises(InputError, match="engine is optuna and was evolution"):
        check_configuration(store, SearchConfig.build(None, CONFIG | {"sampler": "nsga2"}))
