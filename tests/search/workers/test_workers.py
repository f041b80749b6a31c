"""A run whose recipes workers measure, with made-up answers, in threads of the test."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread

import pytest

from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from search.engines.archive import Archive
from search.engines.evolution import Evolution
from search.engines.optuna_engine import OptunaEngine
from search.engines.proposals import starting_genes
from search.memory_errors import MemoryShortageError
from search.outcome import ArtifactFigures
from search.records.ledger import Ledger
from search.records.run_records import read_outcome, save_facts
from search.records.study_store import StudyStore
from search.run.interrupts import Interruption
from search.run.loop import Run
from search.run.measuring import Enough, Job
from search.run.own_recipes import OwnRecipes
from search.run.screening import Screening
from search.run.time_budget import End, RunClock, TimeBudget
from search.scorer import Baseline
from search.trial import Heard, Transcripts, Trial
from search.workers import job_queue, presence, work
from search.workers.executor import Workers
from search.workers.job_queue import JobQueue
from search.workers.work import Worker
from tests.search.answers import answer, toy_space
from tests.search.run.test_loop import FACTS
from tests.search.run.test_screening import Listener

SPACE = toy_space()


class Died(BaseException):
    """Ends a thread as the kernel ends a process."""


class Divided(Listener):
    """Scores in two blocks; what is heard names the recipe."""

    blocks, most_clips = 2, 8

    def __init__(self, figures: ArtifactFigures) -> None:
        super().__init__(figures)
        self.heard: list[tuple[Recipe, int]] = []

    def hear(self, recipe: Recipe, block: int) -> Heard:
        self.heard.append((recipe, block))
        accuracy = answer(0, recipe).accuracy
        assert accuracy
        utterances = accuracy.utterances[:2] if block == 0 else accuracy.utterances[2:]
        return Heard(utterances=utterances, transcripts=Transcripts.of([recipe.id] * len(utterances)))

    def over(self, heard: Sequence[Heard], _: Baseline) -> str | None:
        [of_first] = heard
        names = {recipe.id: recipe for recipe, block in self.heard if block == 0}
        return "over" if answer(0, names[of_first.transcripts.texts[0]]).state == "stopped" else None

    def assembled(
        self,
        number: int,
        recipe: Recipe,
        heard: Sequence[Heard],
        *,
        baseline: Baseline | None,
        divergence: Divergence | None,
        stopped: str | None = None,
    ) -> Trial:
        trial = answer(number, recipe)
        assert trial.accuracy
        assert (baseline is None) == (number == 0)
        assert divergence
        assert divergence.clips == 8
        assert {text for block in heard for text in block.transcripts.texts} == {recipe.id}
        whole = trial.accuracy.utterances
        assert tuple(one for block in heard for one in block.utterances) == (whole[:2] if stopped else whole)
        assert (stopped == "over") == (trial.state == "stopped")
        return replace(trial, divergence=divergence)


class Asked:
    """An interruption that no signal brings: threads have none."""

    asked = False
    caught = staticmethod(nullcontext)


class Leader:
    """The process that leads the run, and the workers' scorer."""

    def __init__(self, folder: Path, world: Divided, *, engine: str = "evolution") -> None:
        self.store = StudyStore(folder / "study.db")
        save_facts(self.store, FACTS)
        self.world, self.queue = world, JobQueue(self.store.engine, "whisperfit")
        self.ledger = Ledger(self.store)
        archive = Archive()
        sampler = OptunaEngine(self.store, SPACE, sampler="random", seed=0)
        for genes in starting_genes(SPACE) if engine == "optuna" else ():
            sampler.enqueue(genes)
        screening = Screening(archive, self.ledger, SPACE, confidence=0.5) if engine == "evolution" else None
        self.said: list[str] = []
        self.interruption = Interruption(world.interrupted)
        self.executor = Workers(
            self.queue, world, self.baseline, self.said.append, lambda: self.interruption.asked, poll_s=0.01
        )
        self.run = Run(
            space=SPACE,
            engine=Evolution(sampler, SPACE, archive, world, target=screening.target, seed=0) if screening else sampler,
            scorer=world,
            ledger=self.ledger,
            clock=RunClock(self.store, time.monotonic, started=time.monotonic()),
            watcher=world,
            interruption=self.interruption,
            screening=screening,
            own=OwnRecipes(self.store),
            executor=self.executor,
        )

    def baseline(self) -> Baseline | None:
        return self.world.baseline(self.ledger.trials[0]) if self.ledger.trials else None

    def search(self, trials: int) -> str:
        end = End(seconds=None, trials=trials)
        return self.run.search(TimeBudget(ledger=self.ledger, end=end, confirm_share=0.0))

    @contextmanager
    def workers(self, count: int) -> Iterator[None]:
        asked = [Asked() for _ in range(count)]
        threads = [Thread(target=self._work, args=(f"worker {index}", one)) for index, one in enumerate(asked)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for one in asked:
                one.asked = True
            for thread in threads:
                thread.join()

    def _work(self, name: str, asked: Asked) -> None:
        store = StudyStore(self.store.address)
        queue = JobQueue(store.engine, "whisperfit")
        with suppress(Died, MemoryShortageError):
            Worker(store, queue, self.world, asked, self.said.append, name=name, poll_s=0.01).work()


@pytest.fixture
def world(artifact_figures: ArtifactFigures) -> Divided:
    return Divided(artifact_figures)


@pytest.mark.parametrize("engine", ["evolution", "optuna"])
def test_each_recipe_is_measured_once_by_one_of_the_workers(engine, tmp_path, world):
    leader = Leader(tmp_path, world, engine=engine)
    with leader.workers(4):
        assert leader.search(40) == "trials"
    trials = leader.store.trials()
    assert len({trial.recipe for trial in trials}) == len(trials) >= 40
    assert max(Counter(world.heard).values()) == max(Counter(world.judged).values()) == 1
    assert trials[0].recipe == SPACE.original
    assert {trial.state.name for trial in leader.store.study.get_trials()} <= {"COMPLETE", "PRUNED"}
    assert leader.queue.workers() == []


def test_several_workers_find_as_good_a_pick_as_this_process(tmp_path, world, artifact_figures):
    (tmp_path / "one").mkdir()
    alone = Leader(tmp_path / "one", Divided(artifact_figures))
    with alone.workers(1):
        alone.search(90)
    together = Leader(tmp_path, world)
    with together.workers(4):
        together.search(90)
    picks = [read_outcome(leader.store).recommended for leader in (alone, together)]
    assert all(picks)
    assert picks[1].objective <= 1.05 * picks[0].objective


def test_starting_points_are_all_judged_before_single_steps_begin(tmp_path, world):
    leader = Leader(tmp_path, world)
    original = world.divergence
    order: list[Recipe] = []

    def divergence(recipe: Recipe, *others: object) -> Divergence:
        order.append(recipe)
        return original(recipe, *others)

    world.divergence = divergence  # type: ignore[method-assign]
    with leader.workers(3):
        leader.search(30)
    numbers = {trial.recipe: trial.number for trial in leader.store.trials()}
    found = [numbers[recipe] for recipe in order]
    starts = max(i for i, number in enumerate(found) if number <= 7)
    assert min(found[starts + 1 :]) > 7


def test_a_recipe_that_ends_its_workers_is_a_failed_trial_and_the_run_goes_on(tmp_path, world, monkeypatch):
    monkeypatch.setattr(job_queue, "LEASE_S", 0.3)
    leader, deaths = Leader(tmp_path, world), []
    deadly = SPACE.decode({**SPACE.default_genes, "decoder.heads_removed": 2})
    OwnRecipes(leader.store).give([deadly])
    leader = Leader(tmp_path, world)
    hear = world.hear

    def deadly_hearing(recipe: Recipe, block: int) -> Heard:
        if recipe == deadly and block == 1:
            deaths.append(block)
            raise Died
        return hear(recipe, block)

    monkeypatch.setattr(world, "hear", deadly_hearing)
    with leader.workers(4):
        assert leader.search(20) == "trials"
    assert len(deaths) == 2
    [failed] = [trial for trial in leader.store.trials() if trial.state == "failed"]
    assert failed.recipe == deadly
    assert "it ended 2 workers" in failed.note


def test_an_interrupted_leader_waits_for_what_was_taken_and_the_next_one_goes_on(tmp_path, world, monkeypatch):
    leader, judge = Leader(tmp_path, world), world.divergence

    def slow(recipe: Recipe, *others: object) -> Divergence:
        time.sleep(0.05)
        if len(world.judged) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return judge(recipe, *others)

    monkeypatch.setattr(world, "divergence", slow)
    with leader.workers(2):
        assert leader.search(500) == "interrupted"
    before = [trial.recipe for trial in leader.store.trials()]
    again = Leader(tmp_path, world)
    with again.workers(2):
        again.search(len(before) + 20)
    assert max(Counter(world.judged).values()) == 1


def test_an_interrupted_leader_without_workers_ends_and_loses_nothing(tmp_path, world):
    leader = Leader(tmp_path, world)
    with leader.workers(1):
        leader.search(3)
    known = len(leader.ledger.trials)
    alone = Leader(tmp_path, world)
    Thread(target=lambda: (time.sleep(0.3), os.kill(os.getpid(), signal.SIGINT))).start()
    assert alone.search(500) == "interrupted"
    again = Leader(tmp_path, world)
    with again.workers(2):
        assert again.search(known + 10) == "trials"
    assert max(Counter(world.judged).values()) == 1


def test_the_user_is_told_once_where_no_worker_comes(tmp_path, world, monkeypatch):
    monkeypatch.setattr("search.workers.executor.ALONE_S", 0.1)
    leader = Leader(tmp_path, world)

    def come_later() -> None:
        time.sleep(0.6)
        with leader.workers(1):
            while len(leader.ledger.trials) < 3:
                time.sleep(0.02)

    late = Thread(target=come_later)
    late.start()
    leader.search(3)
    late.join()
    assert [line for line in leader.said if "No worker" in line] == [
        "No worker is there: the run waits for one (whisperfit worker)"
    ]


def test_a_job_that_hangs_ends_its_worker(tmp_path, world, monkeypatch):
    """Where nothing in Python could end it: the whole process goes, which here only says so."""
    gone: list[int] = []
    monkeypatch.setattr(presence, "BEAT_S", 0.05)
    monkeypatch.setattr(work, "LEAST_DEADLINE_S", 0.2)
    monkeypatch.setattr(work.os, "_exit", gone.append)
    leader = Leader(tmp_path, world)
    with leader.workers(1):
        leader.search(1)
        assert not gone  # what the original needs is what hanging is told by
        hear = world.hear
        world.hear = lambda *given: (time.sleep(0.6), hear(*given))[1]  # type: ignore[method-assign]
        monkeypatch.setattr(work, "TIMES_THE_ORIGINAL", 0.001)
        leader.search(8)
    assert set(gone) == {work.HUNG_EXIT}


def test_a_worker_that_lacks_memory_ends_and_another_one_does_its_job(tmp_path, world, monkeypatch):
    hear, short = world.hear, []

    def short_once(recipe: Recipe, block: int) -> Heard:
        if not short:
            short.append((recipe, block))
            raise MemoryShortageError("not enough memory")
        return hear(recipe, block)

    monkeypatch.setattr(world, "hear", short_once)
    leader = Leader(tmp_path, world)
    with leader.workers(2):
        assert leader.search(10) == "trials"
        assert len(leader.queue.workers()) == 1
    assert short[0] in world.heard
    assert not [trial for trial in leader.store.trials() if trial.state == "failed"]


def test_the_blocks_of_one_recipe_are_scored_by_several_workers_at_a_time(tmp_path, world):
    """The second block of the original begins before its first one ends."""
    both, hear = Barrier(2, timeout=30), world.hear

    def together(recipe: Recipe, block: int) -> Heard:
        if recipe == SPACE.original:
            both.wait()
        return hear(recipe, block)

    world.hear = together
    leader = Leader(tmp_path, world)
    with leader.workers(2):
        assert leader.search(1) == "trials"
    assert sorted(block for recipe, block in world.heard if recipe == SPACE.original) == [0, 1]


def test_there_is_never_less_than_no_room(tmp_path, world):
    """Of four workers three wait: the parts of one recipe are more than there was room for."""
    leader = Leader(tmp_path, world)
    for name in ("a", "b", "c", "d"):
        leader.queue.greet(name)
    leader.executor._count_workers()
    rooms = []
    for number, recipe in enumerate(SPACE.decode({**SPACE.default_genes, "window_s": s}) for s in (30.0, 20.0, 15.0)):
        leader.executor.submit(Job(number=number, recipe=recipe))
        rooms.append(leader.executor.room)
    leader.executor.submit(Job(number=4, recipe=recipe, enough=Enough(clips=8, first=8, margin=1.0)))
    assert rooms == [5, 4, 3]  # three parts of the first, one of each other
    leader.queue.leave("b")
    leader.queue.leave("c")
    leader.queue.leave("d")
    leader.executor._count_workers()
    assert leader.executor.room == 0


def test_what_is_surely_over_leaves_the_rest_of_its_blocks_alone(tmp_path, world):
    bits = {"encoder.ffn_bits": 4, "decoder.ffn_bits": 4}
    over = SPACE.decode({**SPACE.default_genes, "decoder.heads_removed": 3, **bits})
    assert answer(1, over).state == "stopped"
    OwnRecipes(Leader(tmp_path, world).store).give([over])
    leader = Leader(tmp_path, world)
    with leader.workers(1):
        leader.search(2)
    assert [block for recipe, block in world.heard if recipe == over] == [0]
