"""The jobs of one run in the study's database, beside Optuna's tables: who does which, until when, what came of it.

A worker that takes a job has a lease of it, which it renews while it works; the clock is the database's. What a worker
does not renew, because it died or was cut off, another one takes. Of several answers to one job the first counts.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Self

from sqlalchemy import (
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    case,
    delete,
    func,
    insert,
    inspect,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from search.record_json import RecordFormat
from search.records.patience import persistent
from search.run.loop import MAX_DEATHS
from search.run.measuring import Answer, Job

LEASE_S = 60.0
"""What a worker must renew in; so long a job waits that a worker took with it when it died."""
ALIVE_S = 30.0
"""A worker that has not been heard of for so long does not count."""

_METADATA = MetaData()
_JOBS = Table(
    "whisperfit_jobs",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("study", String(200), nullable=False),
    Column("recipe", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("encoder", String(64), nullable=False),
    Column("job", Text, nullable=False),
    Column("worker", String(200)),
    Column("expires", Float),
    Column("leases", Integer, nullable=False, default=0),
    Column("answer", Text),
    Column("answered_by", String(200)),
    Column("late_answers", Integer, nullable=False, default=0),
    UniqueConstraint("study", "recipe", "kind"),
)
_WORKERS = Table(
    "whisperfit_workers",
    _METADATA,
    Column("study", String(200), primary_key=True),
    Column("worker", String(200), primary_key=True),
    Column("seen", Float, nullable=False),
)
_LEADERS = Table(
    "whisperfit_leaders",
    _METADATA,
    Column("study", String(200), primary_key=True),
    Column("process", String(200), nullable=False),
    Column("seen", Float, nullable=False),
)
_JOB_FORMAT = RecordFormat(Job, "job")
_ANSWER_FORMAT = RecordFormat(Answer, "answer of a worker")


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A job that a worker has taken. `id`: the job's in the queue."""

    id: int
    job: Job


class JobQueue:
    """The jobs of one study. All methods are transactions of their own, and done again where the connection breaks."""

    def __init__(self, engine: Engine, study: str) -> None:
        self._engine = engine
        self._study = study
        self._now = _clock(engine)
        _METADATA.create_all(engine)

    @classmethod
    def find(cls, engine: Engine, study: str) -> Self | None:
        """For who only looks: None where the database has no jobs."""
        return cls(engine, study) if inspect(engine).has_table(_JOBS.name) else None

    # of those who ask

    @persistent
    def put(self, job: Job) -> int:
        """Its id; a job that is there, from an earlier session, stays as it is, with its lease and its answer."""
        key = {"study": self._study, "recipe": job.recipe.id, "kind": job.kind}
        with self._engine.begin() as connection:
            found = connection.scalar(select(_JOBS.c.id).filter_by(**key))
            if found is None:
                row = insert(_JOBS).values(**key, encoder=job.recipe.encoder_key, job=_JOB_FORMAT.write(job))
                found = connection.scalar(row.returning(_JOBS.c.id))
        return int(found or 0)

    @persistent
    def answers(self, ids: Iterable[int]) -> list[tuple[int, Answer]]:
        """Those that there are by now, in the order of the jobs; given up jobs have a problem."""
        chosen = self._mine(_JOBS.c.id.in_(list(ids)))
        with self._engine.connect() as connection:
            answered = select(_JOBS.c.id, _JOBS.c.answer).where(chosen, _JOBS.c.answer.is_not(None))
            rows = connection.execute(answered.order_by(_JOBS.c.id)).all()
            died = select(_JOBS.c.id, _JOBS.c.leases).where(
                chosen, _JOBS.c.answer.is_(None), ~self._is_free(), ~self._is_held()
            )
            given_up = connection.execute(died).all()
        return [(row.id, _ANSWER_FORMAT.read(row.answer)) for row in rows] + [
            (row.id, _given_up(row.leases)) for row in given_up
        ]

    @persistent
    def withdraw(self, ids: Iterable[int]) -> list[int]:
        """Take back those that nobody has taken; their ids."""
        free = self._mine(_JOBS.c.id.in_(list(ids)), _JOBS.c.answer.is_(None), ~self._is_held())
        with self._engine.begin() as connection:
            return list(connection.scalars(delete(_JOBS).where(free).returning(_JOBS.c.id)))

    @persistent
    def workers(self) -> list[str]:
        """Names of those that are alive."""
        alive = select(_WORKERS.c.worker).where(_WORKERS.c.study == self._study, _WORKERS.c.seen > self._now - ALIVE_S)
        with self._engine.connect() as connection:
            return list(connection.scalars(alive.order_by(_WORKERS.c.worker)))

    @persistent
    def lead(self, process: str) -> bool:
        """Whether this process now leads the run, for ALIVE_S; another one leads until it has not been seen so long."""
        free = or_(_LEADERS.c.process == process, _LEADERS.c.seen <= self._now - ALIVE_S)
        mine = {"process": process, "seen": self._now}
        with self._engine.begin() as connection:
            taken = update(_LEADERS).where(_LEADERS.c.study == self._study, free).values(**mine)
            if connection.execute(taken).rowcount:
                return True
            if connection.scalar(select(_LEADERS.c.process).filter_by(study=self._study)):
                return False
            connection.execute(insert(_LEADERS).values(study=self._study, **mine))
        return True

    @persistent
    def follow(self, process: str) -> None:
        """The process leads no longer."""
        with self._engine.begin() as connection:
            connection.execute(delete(_LEADERS).filter_by(study=self._study, process=process))

    @property
    @persistent
    def leader(self) -> str | None:
        """The process that leads the run; None where there is none."""
        alive = select(_LEADERS.c.process).where(_LEADERS.c.study == self._study, _LEADERS.c.seen > self._now - ALIVE_S)
        with self._engine.connect() as connection:
            return connection.scalar(alive)

    @property
    @persistent
    def late_answers(self) -> int:
        """Answers to jobs that another worker had answered."""
        with self._engine.connect() as connection:
            return int(connection.scalar(select(func.sum(_JOBS.c.late_answers)).where(self._mine())) or 0)

    # of workers

    @persistent
    def take(self, worker: str, encoders: Collection[str] = ()) -> Lease | None:
        """The oldest job that is free, from now on leased to this worker; None where there is none.

        One with any of these encoders goes before: the worker has their outputs at hand.
        """
        oldest = select(_JOBS.c.id).where(self._mine(_JOBS.c.answer.is_(None), self._is_free()))
        order = case((_JOBS.c.encoder.in_(list(encoders)), 0), else_=1)
        oldest = oldest.order_by(order, _JOBS.c.id).limit(1).with_for_update(skip_locked=True)
        lease = {"worker": worker, "expires": self._now + LEASE_S, "leases": _JOBS.c.leases + 1}
        taking = update(_JOBS).where(_JOBS.c.id == oldest.scalar_subquery()).values(**lease)
        with self._engine.begin() as connection:
            row = connection.execute(taking.returning(_JOBS.c.id, _JOBS.c.job)).one_or_none()
        return None if row is None else Lease(id=row.id, job=_JOB_FORMAT.read(row.job))

    @persistent
    def renew(self, lease: Lease, worker: str) -> bool:
        """Whether the lease is still this worker's, which then has it for longer."""
        renewal = update(_JOBS).where(_JOBS.c.id == lease.id, _JOBS.c.worker == worker)
        with self._engine.begin() as connection:
            return connection.execute(renewal.values(expires=self._now + LEASE_S)).rowcount == 1

    @persistent
    def answer(self, lease: Lease, worker: str, answer: Answer) -> bool:
        """Whether it is the first answer to the job; another one is counted."""
        row = _JOBS.c.id == lease.id
        first = {"answer": _ANSWER_FORMAT.write(answer), "answered_by": worker}
        with self._engine.begin() as connection:
            if connection.execute(update(_JOBS).where(row, _JOBS.c.answer.is_(None)).values(**first)).rowcount:
                return True
            if connection.scalar(select(_JOBS.c.answered_by).where(row)) == worker:
                return True
            connection.execute(update(_JOBS).where(row).values(late_answers=_JOBS.c.late_answers + 1))
        return False

    @persistent
    def drop(self, lease: Lease, worker: str) -> None:
        """The worker cannot do it, and it is free again, which counts as a death."""
        with self._engine.begin() as connection:
            mine = update(_JOBS).where(_JOBS.c.id == lease.id, _JOBS.c.worker == worker)
            connection.execute(mine.values(worker=None, expires=None))

    @persistent
    def give_back(self, lease: Lease, worker: str) -> None:
        """The worker ends and leaves the job to others, which is no death."""
        back = {"worker": None, "expires": None, "leases": _JOBS.c.leases - 1}
        with self._engine.begin() as connection:
            connection.execute(update(_JOBS).where(_JOBS.c.id == lease.id, _JOBS.c.worker == worker).values(**back))

    @persistent
    def greet(self, worker: str) -> None:
        """The worker is alive."""
        key = {"study": self._study, "worker": worker}
        with self._engine.begin() as connection:
            if not connection.execute(update(_WORKERS).filter_by(**key).values(seen=self._now)).rowcount:
                connection.execute(insert(_WORKERS).values(**key, seen=self._now))

    @persistent
    def leave(self, worker: str) -> None:
        """The worker ends."""
        with self._engine.begin() as connection:
            connection.execute(delete(_WORKERS).filter_by(study=self._study, worker=worker))

    # conditions

    def _mine(self, *others: ColumnElement[bool]) -> ColumnElement[bool]:
        return and_(_JOBS.c.study == self._study, *others)

    def _is_held(self) -> ColumnElement[bool]:
        """Leased, and the lease has not run out."""
        return and_(_JOBS.c.worker.is_not(None), _JOBS.c.expires > self._now)

    def _is_free(self) -> ColumnElement[bool]:
        """Not held, and it has not ended too many workers."""
        return and_(or_(_JOBS.c.worker.is_(None), _JOBS.c.expires <= self._now), _JOBS.c.leases < MAX_DEATHS)


def _clock(engine: Engine) -> ColumnElement[float]:
    """Seconds since 1970 by the database's clock, which all workers share."""
    is_sqlite = engine.dialect.name == "sqlite"
    text = "(julianday('now') - 2440587.5) * 86400.0" if is_sqlite else "extract(epoch from clock_timestamp())"
    return literal_column(f"({text})", Float)


def _given_up(leases: int) -> Answer:
    problem = f"not tried again: it ended {leases} workers (out of memory, or it never came to an end?)"
    return Answer(problem=problem, seconds=0.0)
