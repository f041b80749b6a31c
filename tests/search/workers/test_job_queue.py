"""The queue of jobs: who gets which, in SQLite and in PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import sleep
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine

from compression.recipe.recipe import Recipe
from evaluators.accuracy.divergence import Divergence
from search.run.loop import MAX_DEATHS
from search.run.measuring import Answer, Enough, Job
from search.trial import Heard, Transcripts, UtteranceErrors
from search.workers import job_queue
from search.workers.job_queue import JobQueue, Lease
from tests.postgres import postgres
from tests.search.answers import toy_space

__all__ = ["postgres"]

ENOUGH = Enough(clips=16, first=4, margin=1.2, better=(0.25, 0.5))
JUDGED = Answer(divergence=Divergence(nats=(1.0, 2.5), tokens=(10, 20)), seconds=1.5)


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    server = request.getfixturevalue("postgres") if request.param == "postgres" else None
    made = create_engine(server.storage if server else f"sqlite:///{tmp_path / 'study.db'}")
    yield made
    made.dispose()


@pytest.fixture
def queue(engine: Engine) -> JobQueue:
    return JobQueue(engine, uuid4().hex)


def jobs(count: int) -> list[Job]:
    original = toy_space().original
    recipes: list[Recipe] = [replace(original, window_s=5.0 + number / 4) for number in range(count)]
    return [Job(number=number, recipe=recipe, enough=ENOUGH) for number, recipe in enumerate(recipes)]


def test_a_job_and_its_answer_come_through_as_they_were(queue):
    original = toy_space().original
    block = Job(number=7, recipe=original, divergence=JUDGED.divergence, block=3)
    utterance = UtteranceErrors(id="a", insertions=1, deletions=0, substitutions=2, words=9, speaker="s", ran_on=True)
    heard = Answer(heard=Heard(utterances=(utterance,), transcripts=Transcripts.of(["Grüße"])), seconds=2.0)
    for job in (*jobs(1), block):
        number = queue.put(job)
        lease = queue.take("one")
        assert lease.job == job
        assert queue.answers([number]) == []
        told = JUDGED if job.enough else heard
        assert queue.answer(lease, "one", told)
        assert queue.answers([number]) == [(number, told)]


def test_jobs_are_taken_in_order_each_by_one_worker(queue):
    put = jobs(40)
    for job in put:
        queue.put(job)

    def take(worker: int) -> list[int]:
        found = []
        while lease := queue.take(f"worker {worker}"):
            found.append(lease.job.number)
        return found

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(take, range(4)))
    assert sorted(number for numbers in taken for number in numbers) == list(range(40))
    assert all(numbers == sorted(numbers) for numbers in taken)


def test_a_job_whose_encoder_is_at_hand_goes_before(queue):
    put = jobs(4)  # another window, another encoder
    for job in put:
        queue.put(job)
    assert queue.take("one", [put[2].recipe.encoder_key]).job == put[2]
    assert queue.take("one", [put[2].recipe.encoder_key]).job == put[0]


def test_what_a_dead_worker_had_is_taken_by_another_and_its_late_answer_is_counted(queue, monkeypatch):
    monkeypatch.setattr(job_queue, "LEASE_S", 0.2)
    [job] = jobs(1)
    number = queue.put(job)
    first = queue.take("one")
    assert queue.take("two") is None
    sleep(0.3)
    second = queue.take("two")
    assert second.job == job
    assert not queue.renew(first, "one")
    assert queue.renew(second, "two")
    assert queue.answer(second, "two", JUDGED)
    assert not queue.answer(first, "one", Answer(problem="late", seconds=0.0))
    assert queue.answers([number]) == [(number, JUDGED)]
    assert queue.late_answers == 1


def test_a_lease_that_is_renewed_stays(queue, monkeypatch):
    monkeypatch.setattr(job_queue, "LEASE_S", 0.4)
    queue.put(*jobs(1))
    lease = queue.take("one")
    for _ in range(4):
        sleep(0.2)
        assert queue.renew(lease, "one")
        assert queue.take("two") is None


def test_what_ends_its_workers_is_given_up(queue, monkeypatch):
    monkeypatch.setattr(job_queue, "LEASE_S", 0.05)
    number = queue.put(*jobs(1))
    for death in range(MAX_DEATHS):
        assert queue.take(f"worker {death}")
        assert queue.answers([number]) == []
        sleep(0.1)
    assert queue.take("another") is None
    [(found, told)] = queue.answers([number])
    assert found == number
    assert "ended 2 workers" in told.problem


def test_what_its_workers_cannot_do_is_given_up_at_once(queue):
    number = queue.put(*jobs(1))
    for death in range(MAX_DEATHS):
        queue.drop(queue.take(f"worker {death}"), f"worker {death}")
    [(found, told)] = queue.answers([number])
    assert (found, queue.take("another")) == (number, None)
    assert "ended 2 workers" in told.problem


def test_one_recipe_has_several_jobs(queue):
    [judged] = jobs(1)
    blocks = [replace(judged, enough=None, block=number) for number in range(3)]
    numbers = [queue.put(job) for job in (judged, *blocks, replace(judged, enough=replace(ENOUGH, clips=32)))]
    assert len(set(numbers)) == 5
    assert queue.put(blocks[1]) == numbers[2]


def test_a_worker_that_gives_back_has_not_died(queue):
    queue.put(*jobs(1))
    for _ in range(2 * MAX_DEATHS):
        queue.give_back(queue.take("one"), "one")
    assert queue.take("two")


def test_a_job_that_was_put_before_keeps_its_answer(queue):
    [job] = jobs(1)
    number = queue.put(job)
    queue.answer(queue.take("one"), "one", JUDGED)
    assert queue.put(replace(job, number=99)) == number
    assert queue.answers([number]) == [(number, JUDGED)]


def test_only_what_nobody_has_taken_is_withdrawn(queue):
    numbers = [queue.put(job) for job in jobs(3)]
    taken = queue.take("one")
    assert set(queue.withdraw(numbers)) == set(numbers[1:])
    assert queue.take("two") is None
    assert queue.answer(taken, "one", JUDGED)


def test_studies_in_one_database_do_not_meet(engine):
    mine, other = (JobQueue(engine, uuid4().hex) for _ in range(2))
    number = mine.put(*jobs(1))
    mine.greet("one")
    assert other.take("two") is None
    assert other.answers([number]) == []
    assert other.workers() == []
    assert mine.workers() == ["one"]


def test_workers_count_while_they_are_heard_of(queue, monkeypatch):
    queue.greet("one")
    queue.greet("two")
    queue.greet("one")
    assert queue.workers() == ["one", "two"]
    queue.leave("two")
    assert queue.workers() == ["one"]
    monkeypatch.setattr(job_queue, "ALIVE_S", 0.05)
    sleep(0.1)
    assert queue.workers() == []


def test_one_process_leads(queue, monkeypatch):
    assert queue.leader is None
    assert queue.lead("one")
    assert queue.lead("one")
    assert not queue.lead("two")
    assert queue.leader == "one"
    queue.follow("two")
    assert queue.leader == "one"
    monkeypatch.setattr(job_queue, "ALIVE_S", 0.05)
    sleep(0.1)
    assert queue.lead("two")
    assert not queue.lead("one")
    queue.follow("two")
    assert queue.leader is None


def test_who_only_looks_makes_no_tables(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'study.db'}")
    assert JobQueue.find(engine, "run") is None
    JobQueue(engine, "run")
    assert JobQueue.find(engine, "run").workers() == []
    engine.dispose()


def test_a_connection_that_breaks_in_the_middle_is_no_error(postgres):
    engine = create_engine(postgres.storage, pool_pre_ping=False)
    queue = JobQueue(engine, uuid4().hex)
    number = queue.put(*jobs(1))
    with engine.connect() as connection:  # goes back into the pool, and is what comes out of it next
        mine = connection.exec_driver_sql("select pg_backend_pid()").scalar()
    with create_engine(postgres.storage).connect() as other:
        other.exec_driver_sql(f"select pg_terminate_backend({mine})")
        other.engine.dispose()
    assert queue.take("one").id == number
    assert queue.answer(queue_lease(number), "one", JUDGED)
    assert queue.answer(queue_lease(number), "one", JUDGED)  # as after a break between its commit and its end
    assert queue.late_answers == 0
    engine.dispose()


def queue_lease(number: int) -> Lease:
    return Lease(id=number, job=jobs(1)[0])
