"""The run loop, confirming and exporting, with made-up answers and a made-up clock."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from optuna.trial import TrialState

from common.errors import EvaluationError, InputError
from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from evaluators.accuracy.error_rate import ErrorRate, GroupKey
from search.engines.local_steps import MOST_REPEATS, LocalSteps
from search.engines.optuna_engine import OptunaEngine
from search.engines.proposals import is_hopeless
from search.limits.budget import WerLimit
from search.outcome import ArtifactFigures, ArtifactRecord, Outcome
from search.records.ledger import SCORED, Ledger
from search.records.run_records import RunFacts, load_elapsed, read_outcome, save_facts
from search.records.study_store import StudyStore
from search.run.confirmation import confirm
from search.run.exporting import export_front
from search.run.interrupts import Interruption
from search.run.loop import MAX_DEATHS, Run
from search.run.own_recipes import OwnRecipes
from search.run.time_budget import MEASURING_S, End, RunClock, TimeBudget
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
UNSCORED = 25
"""Instead of MAX_UNSCORED, so that a test takes seconds."""
NO_END = End(seconds=None, trials=None)


class World:
    """Clock, scorer, exporter and watcher in one, over the processes of one run."""

    def __init__(self, figures: ArtifactFigures) -> None:
        self.figures = figures
        self.now = 1000.0
        self.scored: list[Recipe] = []
        self.confirmed: list[Recipe] = []
        self.exported: list[Recipe] = []
        self.events: list[str] = []
        self.said: list[str] = []
        self.interrupt_at: tuple[int, ...] = ()
        self.unscorable = False
        self.reject = False
        self.dies_of: Recipe | None = None
        self.not_measured: tuple[Recipe, ...] = ()
        self.not_confirmed: tuple[Recipe, ...] = ()

    def score(
        self, number: int, recipe: Recipe, baseline: Baseline | None, divergence: Divergence | None = None
    ) -> Trial:
        assert (baseline is None) == (number == 0)
        self.scored.append(recipe)
        for _ in range(self.interrupt_at.count(len(self.scored))):
            os.kill(os.getpid(), signal.SIGINT)
        if recipe == self.dies_of:
            raise SystemError("as the kernel does it")
        trial = answer(number, recipe)
        if self.unscorable:
            trial = replace(trial, state="failed", accuracy=None, violations={"failed": 1.0}, note="logits are NaN")
        if self.reject and baseline is not None:
            trial = replace(trial, state="rejected", accuracy=None, violations={"size": 2.0})
        self.now += trial.seconds
        return replace(trial, divergence=Divergence(nats=(0.0,), tokens=(100,)) if baseline is None else divergence)

    def stopped(self, number: int, recipe: Recipe, divergence: Divergence, note: str) -> Trial:
        trial = answer(number, recipe)
        return replace(trial, state="stopped", accuracy=None, violations={}, divergence=divergence, note=note)

    def failed(self, number: int, recipe: Recipe, note: str) -> Trial:
        trial = answer(number, recipe)
        return replace(trial, state="failed", accuracy=None, violations={"failed": 1.0}, note=note, seconds=0.0)

    def objective(self, recipe: Recipe) -> float:
        return answer(0, recipe).objective

    def rejection(self, recipe: Recipe) -> str | None:
        return "size" if self.reject or answer(0, recipe).state == "rejected" else None

    def baseline(self, trial: Trial) -> Baseline:
        if trial.accuracy is None:
            raise EvaluationError(f"the original model cannot be scored: {trial.note}")
        return Baseline(accuracy=trial.accuracy, wer_limit=self.wer_limit(trial.accuracy.rate))

    def wer_limit(self, baseline: ErrorRate) -> WerLimit:
        return WerLimit(rate=Fraction(str(WER_LIMIT)), words=baseline.words)

    def confirm(self, recipe: Recipe) -> TrialAccuracy:
        if recipe in self.not_confirmed:
            raise EvaluationError("logits are NaN")
        self.confirmed.append(recipe)
        self.now += SECONDS / 2
        accuracy = answer(0, recipe).accuracy
        assert accuracy
        return accuracy

    def started(self, number: int, recipe: Recipe) -> None:
        self.events.append("started")

    def finished(self, outcome: object, elapsed_s: float) -> None:
        self.events.append("finished")

    def confirming(self, trial: Trial) -> None:
        self.events.append("confirming")

    def exporting(self, trial: Trial) -> None:
        self.events.append("exporting")

    def make_artifact(self, trial: Trial, folder: Path) -> ArtifactRecord:
        recipe = trial.recipe
        for _ in range(self.interrupt_at.count(-len(self.exported))):
            os.kill(os.getpid(), signal.SIGINT)
        self.exported.append(recipe)
        self.now += EXPORT_S
        folder.mkdir(parents=True, exist_ok=True)
        if recipe in self.not_measured:
            raise EvaluationError("the measuring process ended")
        return ArtifactRecord(figures=self.figures, note=recipe.id)

    def say(self, text: str) -> None:
        self.said.append(text)

    def interrupted(self) -> None:
        self.events.append("interrupted")


@pytest.fixture
def world(artifact_figures: ArtifactFigures) -> World:
    return World(artifact_figures)


class Process:
    """What one process does with a run; the confirm set is half as long as the search set."""

    def __init__(self, folder: Path, world: World, choices: dict[str, tuple[Value, ...]], *, confirms: bool) -> None:
        self.store = StudyStore(folder / "study.db")
        save_facts(self.store, FACTS)
        self.ledger = Ledger(self.store)
        self.world = world
        self.confirms = confirms
        self.clock = RunClock(self.store, lambda: world.now, started=world.now)
        self.interruption = Interruption(world.interrupted)
        space = toy_space(choices)
        sampler = OptunaEngine(self.store, space, sampler="tpe", seed=0)
        self.engine = LocalSteps(sampler, space, self.ledger, world)
        self.run = Run(
            space=space,
            engine=self.engine,
            scorer=world,
            ledger=self.ledger,
            clock=self.clock,
            watcher=world,
            interruption=self.interruption,
            own=OwnRecipes(self.store),
            max_unscored=UNSCORED,
        )

    def search(self, end: End) -> bool:
        share = 0.5 if self.confirms else 0.0
        return self.run.search(TimeBudget(ledger=self.ledger, end=end, confirm_share=share)) != "interrupted"

    def confirm(self) -> bool:
        return confirm(self.ledger, self.world.confirm, self.world, self.interruption)

    def export(self, models: Path) -> bool:
        return export_front(self.ledger, self.world.make_artifact, models, self.world, self.interruption)


def open_run(
    folder: Path, world: World, *, choices: dict[str, tuple[Value, ...]] = CHOICES, confirms: bool = False
) -> tuple[Process, StudyStore]:
    """As a new process does."""
    process = Process(folder, world, choices, confirms=confirms)
    return process, process.store


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
    assert 305 - 2 * SECONDS - EXPORT_S < run.clock.elapsed_s <= 305
    run.clock.save()
    assert load_elapsed(store) == pytest.approx(run.clock.elapsed_s)


def test_the_front_is_exported_once_and_what_is_gone_again(tmp_path, world):
    run, store = open_run(tmp_path, world)
    assert run.search(End(seconds=None, trials=9))
    assert run.export(tmp_path / "models")
    outcome = read_outcome(store)
    ends = {outcome.baseline.recipe, *(trial.recipe for trial in outcome.front)}
    assert set(world.exported) == ends
    assert len(world.exported) == len(ends)
    assert outcome.artifacts == {recipe.id: ArtifactRecord(figures=world.figures, note=recipe.id) for recipe in ends}
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
    run, store = open_run(tmp_path, world, confirms=True)
    assert run.search(End(seconds=350.0, trials=None))
    searched = run.clock.elapsed_s
    assert run.confirm()
    assert searched < run.clock.elapsed_s <= 350
    outcome = read_outcome(store)
    confirmed = {outcome.baseline.recipe, *(trial.recipe for trial in outcome.front)}
    assert set(world.confirmed) == confirmed == set(map(_recipe_of(outcome), outcome.confirmations))
    assert len(world.confirmed) == len(confirmed)
    assert run.clock.elapsed_s == pytest.approx(searched + len(confirmed) * SECONDS / 2)


def _recipe_of(outcome):
    recipes = {trial.recipe.id: trial.recipe for trial in outcome.trials}
    return recipes.__getitem__


def test_what_was_confirmed_is_not_confirmed_again(tmp_path, world):
    run, _ = open_run(tmp_path, world, confirms=True)
    run.search(End(seconds=None, trials=4))
    run.confirm()
    before = list(world.confirmed)
    again, _ = open_run(tmp_path, world, confirms=True)
    assert again.confirm()
    assert world.confirmed == before


@pytest.mark.parametrize(("errors", "kept"), [(26, True), (27, False)])
def test_on_the_confirm_set_the_worst_group_counts_too(errors, kept, tmp_path, world, monkeypatch):
    """The original has 20 errors in 200 words there, every other recipe `errors`."""
    run, store = open_run(tmp_path, world, confirms=True)
    run.ledger.facts = replace(FACTS, group_budget="+30%")
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
    assert (world.confirmed, read_outcome(store).confirmations) == ([], {})


def test_ends_when_the_space_is_used_up(tmp_path, world):
    choices = {"embedding_bits": (16, 8), "decoder.heads_removed": (0, 1)}
    run, _ = open_run(tmp_path, world, choices=choices)
    assert run.search(NO_END)
    space = toy_space(choices)
    everything = {
        space.decode({"embedding_bits": bits, "decoder.heads_removed": heads}) for bits in (16, 8) for heads in (0, 1)
    }
    assert set(world.scored) == everything
    assert len(world.scored) == len(everything)


def test_ends_when_every_recipe_is_rejected(tmp_path, world):
    world.reject = True
    run, store = open_run(tmp_path, world)
    assert run.search(End(seconds=None, trials=5))
    assert len(world.scored) <= UNSCORED + 1
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
    assert again.clock.elapsed_s == pytest.approx(sum(trial.seconds for trial in first))
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


def test_a_recipe_that_ends_the_process_again_and_again_is_failed_and_the_run_goes_on(tmp_path, world):
    first, _ = open_run(tmp_path, world)
    first.search(End(seconds=None, trials=3))
    world.dies_of = LETHAL
    for deaths in range(1, MAX_DEATHS + 1):
        dying, store = open_run(tmp_path, world)
        dying.engine.enqueue(LETHAL_GENES)
        with pytest.raises(SystemError):
            dying.search(End(seconds=None, trials=30))
        [running] = store.study.get_trials(states=[TrialState.RUNNING])
        assert running.user_attrs == {"summary": LETHAL.summary(), "begun": deaths}
    tried = world.scored.count(LETHAL)
    run, store = open_run(tmp_path, world)
    before = count_scored(store)
    assert run.search(End(seconds=None, trials=before + 2))
    assert world.scored.count(LETHAL) == tried == MAX_DEATHS
    [failed] = [trial for trial in store.trials() if trial.recipe == LETHAL]
    assert (failed.state, failed.accuracy, failed.feasible) == ("failed", None, False)
    assert f"it ended the process {MAX_DEATHS} times" in failed.note
    assert count_scored(store) == before + 2


LETHAL_GENES = {name: values[-1] for name, values in CHOICES.items()}
LETHAL = toy_space().decode(LETHAL_GENES)


def test_what_the_user_drops_is_no_death(tmp_path, world):
    for n in range(MAX_DEATHS + 1):
        world.interrupt_at = (n + 1, n + 1)
        with pytest.raises(KeyboardInterrupt):
            open_run(tmp_path, world)[0].search(End(seconds=None, trials=4))
    world.interrupt_at = ()
    run, store = open_run(tmp_path, world)
    assert run.search(End(seconds=None, trials=4))
    assert world.scored[: MAX_DEATHS + 2] == [toy_space().original] * (MAX_DEATHS + 2)
    assert store.trials()[0].state == "complete"


def test_what_was_not_measured_leaves_no_record_and_is_measured_by_the_next_session(tmp_path, world):
    run, store = open_run(tmp_path, world)
    assert run.search(End(seconds=None, trials=9))
    pick = read_outcome(store).recommended
    assert pick
    world.not_measured = (pick.recipe,)
    assert run.export(tmp_path / "models")
    outcome = read_outcome(store)
    assert pick.recipe.id not in outcome.artifacts
    assert outcome.recommended == pick, "nothing was held against it"
    assert any(f"trial {pick.number} is not measured" in text for text in world.said)

    world.not_measured, before = (), len(world.exported)
    again, store = open_run(tmp_path, world)
    assert again.export(tmp_path / "models")
    assert world.exported[before:] == [pick.recipe]
    assert pick.recipe.id in read_outcome(store).artifacts


def test_a_failure_that_an_earlier_version_remembered_is_measured_again(tmp_path, world):
    run, store = open_run(tmp_path, world)
    run.search(End(seconds=None, trials=9))
    run.export(tmp_path / "models")
    last = run.ledger.baseline_and_front[-1]
    run.ledger.keep_artifact(
        last, ArtifactRecord(figures=None, note="no artifact: cannot be measured: KeyboardInterrupt")
    )
    before = len(world.exported)
    again, store = open_run(tmp_path, world)
    again.export(tmp_path / "models")
    assert world.exported[before:] == [last.recipe]
    assert read_outcome(store).artifacts[last.recipe.id].figures


def test_without_the_original_confirmed_nothing_is(tmp_path, world):
    run, store = open_run(tmp_path, world, confirms=True)
    run.search(End(seconds=None, trials=9))
    world.not_confirmed = (toy_space().original,)
    assert run.confirm()
    assert (world.confirmed, read_outcome(store).confirmations) == ([], {})
    assert world.said == ["trial 0 is not confirmed: logits are NaN"]
    world.not_confirmed = ()
    again, store = open_run(tmp_path, world, confirms=True)
    assert again.confirm()
    ends = again.ledger.baseline_and_front
    assert set(read_outcome(store).confirmations) == {trial.recipe.id for trial in ends}


def test_what_cannot_be_confirmed_does_not_keep_the_others(tmp_path, world):
    run, store = open_run(tmp_path, world, confirms=True)
    run.search(End(seconds=None, trials=14))
    ends = run.ledger.baseline_and_front
    world.not_confirmed = (ends[1].recipe,)
    assert run.confirm()
    assert len(ends) > 2
    assert set(read_outcome(store).confirmations) == {trial.recipe.id for trial in ends} - {ends[1].recipe.id}


class Monotonous(OptunaEngine):
    """A sampler with one idea: whatever was not enqueued is the original again."""

    def _next(self):
        waiting = self._study.get_trials(deepcopy=False, states=[TrialState.WAITING])
        if not waiting:
            self._study.enqueue_trial(self._indices(self._space.default_genes))
        return super()._next()


def test_a_sampler_that_repeats_itself_does_not_end_the_run_while_neighbours_are_untried(tmp_path, world):
    process, store = open_run(tmp_path, world)
    space = toy_space()
    engine = LocalSteps(Monotonous(store, space, sampler="random", seed=0), space, process.ledger, world)
    process.run._engine = engine
    process.run._max_unscored = MOST_REPEATS + 5
    assert process.search(NO_END)
    trials = store.trials()
    recipes = {trial.recipe for trial in trials}
    hopeless = [trial.recipe for trial in trials if is_hopeless(trial)]
    for end in process.ledger.front:
        genes = space.encode(end.recipe)
        assert genes
        for name, values in space.choices.items():
            at = values.index(genes[name])
            for value in (*values[max(0, at - 1) : at], *values[at + 1 : at + 2]):
                neighbour = space.decode(genes | {name: value})
                ruled_out = any(space.rules_out(recipe, neighbour) for recipe in hopeless)
                assert neighbour in recipes or ruled_out or world.rejection(neighbour)


def test_the_ledger_is_what_the_store_holds_and_the_store_is_read_once(tmp_path, world, monkeypatch):
    run, store = open_run(tmp_path, world, confirms=True)
    seen: list[Outcome] = []
    monkeypatch.setattr(world, "finished", lambda outcome, _: seen.append(outcome))
    with reading_nothing(store):
        run.search(End(seconds=None, trials=14))
        run.confirm()
        run.export(tmp_path / "models")
    assert run.ledger.outcome() == read_outcome(store) == Ledger(store).outcome()
    assert [len(outcome.trials) for outcome in seen] == list(range(1, len(store.trials()) + 1))
    assert seen[-1].front == read_outcome(store).front


@contextmanager
def reading_nothing(store: StudyStore) -> Iterator[None]:
    def read() -> None:
        raise AssertionError("the study is read again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "trials", read)
        patch.setattr(store, "texts", read)
        yield
