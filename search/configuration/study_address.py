"""Where a run's study is: in the run's folder, or in a database that other machines reach."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from common.errors import InputError

STUDY_NAME = "whisperfit"
"""Of the one study in a run's own file."""
POSTGRES = "postgresql+psycopg"
DRIVERS = (POSTGRES, "sqlite")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyAddress:
    """A database and the name of a study in it. The password is the environment's or ~/.pgpass's: never in here."""

    url: URL
    name: str

    @classmethod
    def of_file(cls, file: Path) -> Self:
        """The study of a run's own SQLite file."""
        return cls(url=URL.create("sqlite", database=str(file)), name=STUDY_NAME)

    @classmethod
    def of_storage(cls, storage: str, name: str) -> Self:
        """Raises InputError when it is no such address, or holds a password, which other users would see."""
        try:
            url = make_url(storage)
        except ArgumentError as error:
            raise InputError(
                f"--storage {_shown(storage)}: is no address such as {POSTGRES}://USER@HOST/DATABASE"
            ) from error
        if url.password is not None or "password" in url.query:
            raise InputError(
                f"--storage {_shown(storage)}: holds a password, which every process list and log would show; give it "
                "in PGPASSWORD or ~/.pgpass"
            )
        if url.drivername not in DRIVERS or (url.drivername == "sqlite" and not url.database):
            raise InputError(
                f"--storage {_shown(storage)}: must begin with {POSTGRES}:// (or sqlite:///FILE, on one machine)"
            )
        return cls(url=url, name=name)

    @property
    def file(self) -> Path | None:
        """Of SQLite; None elsewhere."""
        return Path(self.url.database) if self.url.drivername == "sqlite" and self.url.database else None

    @property
    def storage(self) -> str:
        """As `--storage` takes it."""
        return self.url.render_as_string(hide_password=False)  # a path may hold ?, #, %, { and spaces

    def __str__(self) -> str:
        return str(self.file) if self.file else f"study {self.name} in {self.storage}"


def _shown(storage: str) -> str:
    """Without what may be a password."""
    scheme, separator, rest = storage.partition("://")
    before, at, host = rest.rpartition("@")
    user = before.partition(":")[0]
    return f"{scheme}{separator}{user}{at}{host.partition('?')[0]}"
