"""The run loop with made-up answers and a made-up clock."""

import os
import signal
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import EvaluationError, InputError
from compression.recipe.recipe import Recipe
from evaluators.accuracy.error_rate import ErrorRate, GroupKey
from search import run as run_module
from search.engines.optuna_engine import OptunaEngine
from search.engines.study_store import StudyStore
from search.limits.budget import WerLimit
from search.outcome import ArtifactRecord
from search.run import MEASURING_S, SCORED, End, Run
from search.run_records import RunFacts, load_elapsed, read_outcome, save_facts
from search.scorer import Baseline
from search.space.genes import Value
from search.trial import GroupErrors, Trial, TrialAccuracy
from tests.search.answers import CHOICES, SECONDS, WER_LIMIT, answer, toy_space
from tests.search.conftest import DIMENSIONS, make_rate

FACTS = RunFacts(
    model="toy",
    device="imx8mplus",
    speech="search set",
    confirm_speech="confirm set",
    normaliser="english",
    wer_budget=f"{100 * WER_LIMIT}%",
    utterances=3,
    broken_lines=0,
    confirm_broken_lines=0,
    dimensions=DIMENSIONS,
)
EXPORT_S = 2 * SECONDS + MEASURING_S
NO_END = End(seconds=None, trials=None)


class World:
    """Clock, scorer and watcher in one, over the processes of one run."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.scored: list[Recipe] = []
        self.confirmed: list[Recipe] = []
        self.exported: list[Recipe] = []
        self.events: list[str] = []
        self.interrupt_at: tuple[int, ...] = ()
        self.unscorable = False
        self.reject = False

    def score(self, number: int, recipe: Recipe, baseline: Baseline | None) -> Trial:
        assert (baseline is None) == (number == 0)
        self.scored.append(recipe)
        for _ in range(self.interrupt_at.count(len(self.scored))):
            os.kill(os.getpid(), signal.SIGINT)
        trial = answer(number, recipe)
        if self.unscorable:
            trial = replace(trial, state="failed", accuracy=None, violations={"failed": 1.0}, note="logits are NaN")
        if self.reject and baseline is not None:
            trial = replace(trial, state="rejected", accuracy=None, violations={"size": 2.0})
        self.now += trial.seconds
        return trial

    def objective(self, recipe: Recipe) -> float:
        return answer(0, recipe).objective

    def baseline(self, trial: Trial) -> Baseline:
        assert trial.accuracy
        return Baseline(accuracy=trial.accuracy, wer_limit=self.wer_limit(trial.accuracy.rate))

    def wer_limit(self, baseline: ErrorRate) -> WerLimit:
        return WerLimit(rate=Fraction(str(WER_LIMIT)), words=baseline.words)

    def confirm(self, recipe: Recipe) -> TrialAccuracy:
        self.confirmed.append(recipe)
        self.now += SECONDS / 2
        accuracy = answer(0, recipe).accuracy
        assert accuracy
        return accuracy

    def started(self, recipe_summary: str) -> None:
        self.events.append("started")

    def finished(self, outcome: object, elapsed_s: float) -> None:
        self.events.append("finished")

    def confirming(self, trial: Trial) -> None:
        self.events.append("confirming")

    def exporting(self, trial: Trial) -> None:
        self.events.append("exporting")

    def make_artifact(self, _: object, recipe: Recipe, folder: Path, heard: object) -> ArtifactRecord:
        for _ in range(self.interrupt_at.count(-len(self.exported))):
            os.kill(os.getpid(), signal.SIGINT)
        self.exported.append(recipe)
        self.now += EXPORT_S
        folder.mkdir(parents=True)
        return ArtifactRecord(figures=None, note=recipe.id)

    def interrupted(self) -> None:
        self.events.append("interrupted")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(run_module, "Scorer", lambda session: world)
    monkeypatch.setattr(run_module, "make_artifact", world.make_artifact)
    return world


def speech_of(seconds: float) -> SimpleNamespace:
    return SimpleNamespace(speech=SimpleNamespace(utterances=[SimpleNamespace(duration_s=seconds)]))


def open_run(
    folder: Path, world: World, *, choices: dict[str, tuple[Value, ...]] = CHOICES, confirm: bool = False
) -> tuple[Run, StudyStore]:
    """As a new process does; the confirm set is half as long as the search set."""
    store = StudyStore(folder / "study.db")
    save_facts(store, FACTS)
    space = toy_space(choices)
    session = SimpleNamespace(space=space, evaluator=speech_of(60), confirm=speech_of(30) if confirm else None)
    engine = OptunaEngine(store, space, sampler="tpe", seed=0)
    run = Run(session, store, engine, clock=lambda: world.now, started=world.now, watcher=world)  # type: ignore[arg-type]
    return run, store


def count_scored(store: StudyStore) -> int:
    return sum(trial.state in SCORED for trial in store.trials())


def test_ends_after_so_many_scored_trials_and_repeats_none(tmp_path, world):
    run, store = open_run(tmp_path, world)
    assert run.search(End(seconds=None, trials=14))
    trials = store.trials()
    assert count_scored(store) == 14
    assert [trial.recipe for trial in trials] == world.scored
    assert len(set(world.scored)) == len(world.scored)
    assert world.scored[0] == toy_space().original
    assert world.events == ["started", "finished"] * len(trials)


def test_ends_before_the_time_is_over(tmp_path, world):
    run, store = open_run(tmp_path, world)
    assert run.search(End(seconds=305.0, trials=None))
    assert run.export(tmp_path / "models")
    assert 305 - 2 * SECONDS - EXPORT_S < run.elapsed_s <= 305
    assert load_elapsed(store) == pytest.approx(run.elapsed_s)


def test_the_front_is_exported_once_and_what_is_gone_again(tmp_path, world):
    run, store = open_run(tmp_path, world)
    assert run.search(End(seconds=None, trials=9))
    assert run.export(tmp_path / "models")
    outcome = read_outcome(store)
    ends = {outcome.baseline.recipe, *(trial.recipe for trial in outcome.front)}
    assert set(world.exported) == ends
    assert len(world.exported) == len(ends)
    assert outcome.artifacts == {recipe.id: ArtifactRecord(figures=None, note=recipe.id) for recipe in ends}
    again, _ = open_run(tmp_path, world)
    (tmp_path / "models" / world.exported[1].id).rmdir()
    assert again.export(tmp_path / "models")
    assert world.exported[len(ends) :] == [world.exported[1]]


def test_exporting_can_be_interrupted(tmp_path, world):
    run, store = open_run(tmp_path, world)
    assert run.search(End(seconds=None, trials=9))
    world.interrupt_at = (0,)
    assert not run.export(tmp_path / "models")
    assert list(read_outcome(store).artifacts) == [world.exported[0].id]


def test_time_is_kept_for_confirming_the_front(tmp_path, world):
    run, store = open_run(tmp_path, world, confirm=True)
    assert run.search(End(seconds=350.0, trials=None))
    searched = run.elapsed_s
    assert run.confirm()
    assert searched < run.elapsed_s <= 350
    outcome = read_outcome(store)
    confirmed = {outcome.baseline.recipe, *(trial.recipe for trial in outcome.front)}
    assert set(world.confirmed) == confirmed == set(map(_recipe_of(outcome), outcome.confirmations))
    assert len(world.confirmed) == len(confirmed)
    assert run.elapsed_s == pytest.approx(searched + len(confirmed) * SECONDS / 2)
    assert load_elapsed(store) == pytest.approx(run.elapsed_s)


def _recipe_of(outcome):
    recipes = {trial.recipe.id: trial.recipe for trial in outcome.trials}
    return recipes.__getitem__


def test_what_was_confirmed_is_not_confirmed_again(tmp_path, world):
    run, _ = open_run(tmp_path, world, confirm=True)
    run.search(End(seconds=None, trials=4))
    run.confirm()
    before = list(world.confirmed)
    again, _ = open_run(tmp_path, world, confirm=True)
    assert again.confirm()
    assert world.confirmed == before


@pytest.mark.parametrize(("errors", "kept"), [(26, True), (27, False)])
def test_on_the_confirm_set_the_worst_group_counts_too(errors, kept, tmp_path, world, monkeypatch):
    """The original has 20 errors in 200 words there, every other recipe `errors`."""
    run, store = open_run(tmp_path, world, confirm=True)
    save_facts(store, replace(FACTS, group_budget="+30%"))
    run.search(End(seconds=None, trials=14))

    def confirm(recipe: Recipe) -> TrialAccuracy:
        accuracy = answer(0, toy_space().original).accuracy
        assert accuracy
        found = 20 if recipe == toy_space().original else errors
        groups = (GroupErrors(key=GroupKey(kind="length", name="below 5 s"), rate=make_rate(found, 200), utterances=9),)
        return replace(accuracy, groups=groups)

    monkeypatch.setattr(world, "confirm", confirm)
    assert run.confirm()
    outcome = read_outcome(store)
    original = outcome.confirmations[outcome.baseline.recipe.id]
    others = [one for recipe_id, one in outcome.confirmations.items() if recipe_id != outcome.baseline.recipe.id]
    assert original.within_budget
    assert others
    assert all(other.within_budget == kept and other.groups[0].rate.errors == errors for other in others)


def test_without_a_confirm_set_there_is_nothing_to_confirm(tmp_path, world):
    run, store = open_run(tmp_path, world)
    run.search(End(seconds=None, trials=2))
    assert run.confirm()
    assert (world.confirmed, read_outcome(store).confirmations) == ([], {})


def test_ends_when_the_space_is_used_up(tmp_path, world, monkeypatch):
    monkeypatch.setattr(run_module, "MAX_UNSCORED", 25)
    choices = {"embedding_bits": (16, 8), "decoder.heads_removed": (0, 1)}
    run, _ = open_run(tmp_path, world, choices=choices)
    assert run.search(NO_END)
    space = toy_space(choices)
    everything = {
        space.decode({"embedding_bits": bits, "decoder.heads_removed": heads}) for bits in (16, 8) for heads in (0, 1)
    }
    assert set(world.scored) == everything
    assert len(world.scored) == len(everything)


def test_ends_when_every_recipe_is_rejected(tmp_path, world, monkeypatch):
    monkeypatch.setattr(run_module, "MAX_UNSCORED", 25)
    world.reject = True
    run, store = open_run(tmp_path, world)
    assert run.search(End(seconds=None, trials=5))
    assert len(world.scored) <= 26
    assert {trial.state for trial in store.trials()[1:]} == {"rejected"}


def test_steps_from_the_best_trial_find_the_optimum_of_a_small_space(tmp_path, world):
    choices = {name: CHOICES[name] for name in ("decoder.ffn_bits", "embedding_bits", "window_s")}
    run, store = open_run(tmp_path, world, choices=choices)
    assert run.search(End(seconds=None, trials=15))
    space = toy_space(choices)
    best = read_outcome(store).front[0]
    improving = [
        genes
        for name, values in space.choices.items()
        for value in values
        if (genes := (space.encode(best.recipe) or {}) | {name: value})
        and (other := answer(0, space.decode(genes))).feasible
        and other.objective < best.objective
    ]
    assert improving == []


def test_ctrl_c_finishes_the_trial_and_the_run_goes_on_later(tmp_path, world):
    world.interrupt_at = (3,)
    before = signal.getsignal(signal.SIGINT)
    run, store = open_run(tmp_path, world)
    assert not run.search(End(seconds=None, trials=8))
    assert signal.getsignal(signal.SIGINT) is before
    assert len(store.trials()) == 3
    assert world.events[-2:] == ["interrupted", "finished"]
    first = store.trials()

    again, store = open_run(tmp_path, world)
    assert again.elapsed_s == pytest.approx(sum(trial.seconds for trial in first))
    assert again.search(End(seconds=None, trials=8))
    trials = store.trials()
    assert trials[:3] == first
    assert count_scored(store) == 8
    numbers = [trial.number for trial in trials]
    assert numbers == sorted(set(numbers))
    assert len(set(world.scored)) == len(world.scored) == len(trials)


def test_a_second_ctrl_c_drops_the_trial_which_comes_again(tmp_path, world):
    world.interrupt_at = (2, 2)
    run, store = open_run(tmp_path, world)
    with pytest.raises(KeyboardInterrupt):
        run.search(End(seconds=None, trials=8))
    assert len(store.trials()) == 1
    again, store = open_run(tmp_path, world)
    again.search(End(seconds=None, trials=2))
    assert world.scored[1] == world.scored[2]
    assert [trial.number for trial in store.trials()] == [0, 1]


@pytest.mark.parametrize("died_at", [1, 2, 5])
def test_after_a_death_the_trial_in_flight_comes_again_and_the_original_stays_the_baseline(died_at, tmp_path, world):
    world.interrupt_at = (died_at, died_at)
    with pytest.raises(KeyboardInterrupt):
        open_run(tmp_path, world)[0].search(End(seconds=None, trials=6))
    lost = world.scored.pop()
    world.interrupt_at = ()
    run, store = open_run(tmp_path, world)
    assert run.search(End(seconds=None, trials=6))
    assert world.scored[died_at - 1] == lost
    assert store.trials()[0].recipe == toy_space().original
    assert [trial.recipe for trial in store.trials()] == world.scored
    assert len(set(world.scored)) == len(world.scored)


def test_an_original_that_cannot_be_scored_ends_the_run_with_the_reason(tmp_path, world):
    world.unscorable = True
    run, _ = open_run(tmp_path, world)
    with pytest.raises((InputError, EvaluationError), match="original model cannot be scored.*logits are NaN"):
        run.search(End(seconds=None, trials=6))


def test_a_run_that_was_long_enough_only_goes_on_when_asked(tmp_path, world):
    run, _ = open_run(tmp_path, world)
    run.search(End(seconds=None, trials=3))
    again, store = open_run(tmp_path, world)
    assert again.search(End(seconds=None, trials=3))
    assert count_scored(store) == 3
    assert again.search(End(seconds=None, trials=5))
    assert count_scored(store) == 5
