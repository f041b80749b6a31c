"""Waiting for a database that has gone away: it is asked again, ever more slowly, until it is back."""

from collections.abc import Callable
from functools import wraps
from time import sleep
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Engine, event
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from common.log import tell

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
Given = ParamSpec("Given")
Found = TypeVar("Found")


def persistent(transaction: Callable[Given, Found]) -> Callable[Given, Found]:
    """Do a transaction again whose connection broke in the middle. Doing it twice must be as good as once."""

    @wraps(transaction)
    def done(*given: Given.args, **named: Given.kwargs) -> Found:
        while True:
            try:
                return transaction(*given, **named)
            except OperationalError as error:
                if not error.connection_invalidated:
                    raise
                sleep(FIRST_WAIT_S)

    return done


def be_patient(engine: Engine) -> None:
    """Let connections of this engine, which was reached before, wait until its database can be reached again."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, _: ConnectionPoolEntry, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        wait_s = FIRST_WAIT_S
        while True:
            try:
                connection = dialect.connect(*given, **named)
            except dialect.loaded_dbapi.OperationalError as error:
                if wait_s == FIRST_WAIT_S:
                    reason = (str(error).splitlines() or ["no reason given"])[0]
                    tell(f"The database cannot be reached ({reason}); asking again until it can")
                sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            else:
                if wait_s > FIRST_WAIT_S:
                    tell("The database can be reached again")
                return connection
