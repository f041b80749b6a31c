"""A run that judges by divergence before it scores, with made-up answers."""

import os
import signal
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
from optuna.trial import TrialState

from common.errors import CompressionError
from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from search.configuration.knobs import ScreeningKnobs
from search.engines.archive import Archive, Judged
from search.engines.enumeration import Enumeration
from search.engines.evolution import Evolution
from search.engines.optuna_engine import OptunaEngine
from search.engines.proof import Proof
from search.outcome import ArtifactFigures
from search.records.ledger import Ledger
from search.records.run_records import read_outcome, save_facts
from search.records.study_store import StudyStore
from search.run.interrupts import Interruption
from search.run.loop import Run
from search.run.own_recipes import OwnRecipes
from search.run.screening import Screening
from search.run.standstill import Standstill
from search.run.time_budget import End, RunClock, TimeBudget
from search.run.unjudged import how_it_ended
from search.scorer import Baseline
from search.trial import Trial
from tests.search.answers import answer, toy_space
from tests.search.run.test_loop import FACTS, World

SPACE = toy_space()
JUDGING_S = 1.0


class Listener(World):
    """As `World`, which also measures divergence: it rises with the WER."""

    def __init__(self, figures: ArtifactFigures) -> None:
        super().__init__(figures)
        self.judged: list[Recipe] = []
        self.clips_heard: list[int] = []
        self.breaks_on: Recipe | None = None
        self.interrupt_judging_at = 0

    def score(
        self, number: int, recipe: Recipe, baseline: Baseline | None, divergence: Divergence | None = None
    ) -> Trial:
        """Measures the divergence of what has none, as the scorer does."""
        if baseline and divergence is None and answer(number, recipe).accuracy:
            try:
                divergence = self.divergence(recipe, lambda _: False)
            except CompressionError as error:
                return self.failed(number, recipe, str(error))
        return super().score(number, recipe, baseline, divergence)

    def divergence(
        self, recipe: Recipe, enough: Callable[[Divergence], bool], known: Divergence | None = None
    ) -> Divergence:
        assert known is None or not enough(known)
        self.judged.append(recipe)
        if len(self.judged) == self.interrupt_judging_at:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        if recipe == self.breaks_on:
            raise CompressionError("it needs calibration")
        self.now += JUDGING_S
        accuracy = answer(0, recipe).accuracy
        mean = 4 * (accuracy.wer - 0.05) if accuracy else 1.0
        whole = Divergence(nats=(90 * mean, 110 * mean) * 4, tokens=(100,) * 8)
        for clips in range(1, 9):
            if enough(whole.of_first(clips)):
                self.clips_heard.append(clips)
                return whole.of_first(clips)
        self.clips_heard.append(8)
        return whole


class Process:
    def __init__(self, folder: Path, world: Listener, *, patience: int | None = None, proves: bool = False) -> None:
        self.store = StudyStore(folder / "study.db")
        save_facts(self.store, FACTS)
        self.ledger, self.archive = Ledger(self.store), Archive()
        self.screening = Screening(self.archive, self.ledger, SPACE, confidence=0.5)
        sampler, target = OptunaEngine(self.store, SPACE, sampler="random", seed=0), self.screening.target
        self.everything = cache(partial(Enumeration.of, SPACE, world))
        self.proof = None
        if proves:
            self.proof = Proof(
                SPACE, self.everything, self.archive, self.ledger, target=target, bound=self.screening.bound, seed=0
            )
        self.run = Run(
            space=SPACE,
            engine=Evolution(sampler, SPACE, self.archive, world, target=target, seed=0, proof=self.proof),
            proof=self.proof,
            scorer=world,
            ledger=self.ledger,
            clock=RunClock(self.store, lambda: world.now, started=world.now),
            watcher=world,
            interruption=Interruption(world.interrupted),
            screening=self.screening,
            standstill=self._standstill(patience) if patience else None,
            own=OwnRecipes(self.store),
        )

    def _standstill(self, patience: int) -> Standstill:
        screening = self.screening
        return Standstill(self.archive, screening.target, screening.cheapest_within, patience=patience, most=1.0)

    def search(self, trials: int) -> bool:
        end = End(seconds=None, trials=trials)
        return self.run.search(TimeBudget(ledger=self.ledger, end=end, confirm_share=0.0)) != "interrupted"


@pytest.fixture
def world(artifact_figures: ArtifactFigures) -> Listener:
    return Listener(artifact_figures)


def test_only_what_nothing_cheaper_beats_is_scored_and_all_is_recorded(tmp_path, world):
    process = Process(tmp_path, world)
    assert process.search(60)
    trials = process.store.trials()
    assert len(world.scored) < len(world.judged) / 2
    assert len({trial.recipe for trial in trials}) == len(trials) >= 60
    assert {trial.recipe for trial in trials} >= set(world.judged)
    assert all(trial.divergence for trial in trials if trial.state in {"complete", "stopped"})
    dominated = [trial for trial in trials if trial.state == "stopped" and trial.accuracy is None]
    assert dominated
    assert all(trial.note.startswith(("dominated", "not scored")) for trial in dominated)
    assert not any(trial.feasible for trial in dominated)
    assert not process.store.study.get_trials(states=[TrialState.RUNNING])


def test_a_search_that_stands_still_ends_and_leaves_nothing_waiting(tmp_path, world):
    process = Process(tmp_path, world, patience=40)
    end = End(seconds=None, trials=5000)
    assert process.run.search(TimeBudget(ledger=process.ledger, end=end, confirm_share=0.0)) == "standstill"
    assert 40 < len(process.archive.judged) < 1000
    assert not process.store.study.get_trials(states=[TrialState.RUNNING])


def test_few_clips_are_enough_where_another_recipe_is_clearly_better(tmp_path, world):
    Process(tmp_path, world).search(60)
    assert {4, 8} <= set(world.clips_heard) <= {4, 5, 6, 7, 8}


def test_what_is_worse_by_less_needs_more_clips(tmp_path):
    store = StudyStore(tmp_path / "study.db")
    save_facts(store, FACTS)

    def level(mean: float) -> Divergence:
        return Divergence(nats=(mean,) * 32, tokens=(1,) * 32)

    def clips_of(mean: float) -> int:
        archive = Archive()
        archive.add(Judged(recipe_id="known", genes={}, objective=0.5, divergence=level(1.0)))
        enough = Screening(archive, Ledger(store), SPACE, confidence=0.5).begun(SPACE.original, 0.6)
        return next(n for n in range(1, 32) if enough(level(mean).of_first(n)))

    # 1.2 after 4 clips, then 1 + 0.2 sqrt(4 / clips)
    assert [clips_of(mean) for mean in (1.5, 1.2001, 1.15, 1.11, 1.05, 0.9)] == [4, 4, 8, 14, 16, 16]


def test_no_transcript_before_enough_recipes_were_judged(tmp_path, world, monkeypatch):
    seen: list[int] = []
    score = world.score
    monkeypatch.setattr(world, "score", lambda *given: seen.append(len(world.judged)) or score(*given))
    Process(tmp_path, world).search(40)
    assert seen[0] == 0
    assert min(seen[1:]) >= ScreeningKnobs().least_judged - 1


def test_the_pick_is_the_cheapest_that_is_likely_within_the_budget(tmp_path, world):
    process = Process(tmp_path, world)
    process.search(120)
    outcome = read_outcome(process.store)
    pick = outcome.recommended
    assert pick
    estimate = outcome.estimate(pick)
    assert estimate
    assert estimate.probability >= 0.5
    cheaper = [trial for trial in outcome.front if trial.objective < pick.objective]
    assert all((found := outcome.estimate(trial)) and found.probability < 0.5 for trial in cheaper)
    assert process.ledger.outcome().front == outcome.front


def test_what_waits_when_the_user_stops_comes_again_and_dies_no_death(tmp_path, world):
    world.interrupt_judging_at = 25
    process = Process(tmp_path, world)
    with pytest.raises(KeyboardInterrupt):
        process.search(80)
    running = process.store.study.get_trials(states=[TrialState.RUNNING])
    assert running
    assert all(trial.user_attrs["begun"] == 0 for trial in running)
    world.interrupt_judging_at = 0
    again = Process(tmp_path, world)
    assert again.search(80)
    assert not again.store.study.get_trials(states=[TrialState.RUNNING])
    recipes = [trial.recipe for trial in again.store.trials()]
    assert len(recipes) == len(set(recipes))


def test_what_cannot_be_judged_is_a_failed_trial(tmp_path, world):
    world.breaks_on = SPACE.decode({name: values[1] for name, values in SPACE.choices.items()})
    process = Process(tmp_path, world)
    process.run._engine.enqueue(SPACE.default_genes)
    process.run._engine.enqueue({name: values[1] for name, values in SPACE.choices.items()})
    assert process.search(10)
    [failed] = [trial for trial in process.store.trials() if trial.state == "failed"]
    assert (failed.recipe, failed.note) == (world.breaks_on, "it needs calibration")


def test_at_the_end_only_a_few_are_scored(tmp_path, world):
    process = Process(tmp_path, world)
    process.search(ScreeningKnobs().least_judged - 2)
    assert len(world.scored) <= 1 + ScreeningKnobs().scored_at_end


def test_a_small_space_is_searched_until_its_optimum_is_proven(tmp_path, world):
    process = Process(tmp_path, world, proves=True)
    budget = TimeBudget(ledger=process.ledger, end=End(seconds=None, trials=None), confirm_share=0.0)
    assert process.run.search(budget) == "proven"
    outcome, everything = process.ledger.outcome(), process.everything()
    recipes = [SPACE.decode(everything.genes(place)) for place in range(len(everything))]
    answers = [answer(1, recipe) for recipe in recipes if not world.rejection(recipe)]
    likely = [
        trial
        for trial in answers
        if trial.feasible and outcome.certainty.expected(4 * (trial.accuracy.wer - 0.05)).probability >= 0.5
    ]
    assert outcome.recommended.objective <= min(trial.objective for trial in likely)
    ended = how_it_ended(outcome, SPACE, everything, "proven")
    cheaper = [trial for trial in answers if trial.objective < outcome.recommended.objective]
    assert (ended.open_recipes, ended.judged + ended.excluded) == (0, len(cheaper))
    assert ended.excluded > 0
    assert (ended.contradictions, ended.comparisons > 0) == (0, True)
    assert len(world.judged) < 0.25 * len(recipes)
