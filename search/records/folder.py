"""A run's folder: made once for one configuration, opened again to go on."""

import json
import os
import platform
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from common.errors import InputError
from common.files import write_text_whole
from common.parsing import parse_json, parse_toml
from search.configuration.config import SearchConfig
from search.configuration.study_address import STUDY_NAME, StudyAddress

PACKAGES = ("whisperfit", "torch", "openai-whisper", "onnxruntime", "optuna", "jiwer", "fvcore", "numpy", "pandas")
DECIDING = {
    "whisperfit": "what was decided before may be decided otherwise now",
    "torch": "WERs may differ in the last digits from those before",
    "openai-whisper": "WERs may differ from those before: it normalises transcripts and computes features",
    "onnxruntime": "artifacts may be faster or slower, and transcribe otherwise, than before",
    "jiwer": "errors may be counted otherwise than before",
    "numpy": "costs may differ in the last digits from those before",
}
"""Packages whose change a run should know of when it goes on, and why."""
_ENVIRONMENT = TypeAdapter(dict[str, str])
LATER = "{} (resumed)"
"""The environment's key for the versions that a run went on with, oldest first."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run's files lie; see docs/architecture.md."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.toml"

    @property
    def environment_file(self) -> Path:
        return self.path / "environment.json"

    @property
    def study_file(self) -> Path:
        """Of a run that names no storage."""
        return self.path / "study.db"

    @property
    def study(self) -> StudyAddress:
        """Where the run's study is: its own file, unless its configuration names a storage. Raises InputError."""
        storage, study = self._storage
        return StudyAddress.of_storage(storage, study) if storage else StudyAddress.of_file(self.study_file)

    @property
    def _storage(self) -> tuple[str | None, str]:
        """As the configuration names it, and the study in it, without what else it must be to be a configuration."""
        try:
            values = parse_toml(self.config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # whoever needs the configuration says what is wrong with it
            values = {}
        return values.get("storage"), values.get("study", STUDY_NAME)

    @property
    def models(self) -> Path:
        """The exported front: one artifact by recipe id."""
        return self.path / "models"

    @property
    def recovered(self) -> Path:
        """What training made of recipes: weights, recipe and curve, one folder by recipe id."""
        return self.path / "recovered"

    @property
    def lock_file(self) -> Path:
        """Locked by the process that writes into the run; its text is nothing."""
        return self.path / "run.lock"

    @property
    def owner_file(self) -> Path:
        """The id of that process, for others to name it."""
        return self.path / "run.pid"

    @property
    def holds_run(self) -> bool:
        """Whether there is a configuration, and a study of its own unless the configuration names a storage."""
        return self.config_file.is_file() and (self.study_file.is_file() or self._storage[0] is not None)

    @classmethod
    def check_free(cls, path: Path, config: SearchConfig) -> None:
        """Raise InputError unless a run of this configuration can begin in the folder.

        It must be new or empty: not hold a run (of this or of another configuration) nor other files.
        """
        folder = cls(path)
        if folder.lock_file.exists() and os.access(path, os.W_OK):
            with folder.locked():
                pass
        folder._check_empty(config)
        writable = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
        if not writable.is_dir():
            raise InputError(f"--out {path}: cannot be made, {writable} is a file")
        if not os.access(writable, os.W_OK):
            raise InputError(f"--out {path}: cannot be written (no permission to write in {writable})")

    def _check_empty(self, config: SearchConfig) -> None:
        if self.holds_run:
            raise self._occupied(config)
        of_lock = (self.lock_file, self.owner_file)
        if self.path.exists() and (not self.path.is_dir() or set(self.path.iterdir()).difference(of_lock)):
            raise InputError(f"--out {self.path}: exists and is no run; give a new or an empty folder")

    @classmethod
    def create(cls, path: Path, config: SearchConfig) -> "RunFolder":
        """Make the folder and write its configuration. Raises InputError when it cannot be written."""
        folder = cls(path)
        with folder._being_made():
            write_text_whole(folder.config_file, config.to_toml(path))
        return folder

    @classmethod
    @contextmanager
    def begun(cls, path: Path, config: SearchConfig) -> Iterator["RunFolder"]:
        """A new run's folder, locked while the block lasts: of two processes that come at once, one is refused.

        Raises InputError as `check_free`, `create` and `locked`.
        """
        folder = cls(path)
        with folder._being_made():
            pass
        with folder.locked():
            folder._check_empty(config)
            yield cls.create(path, config)

    @contextmanager
    def _being_made(self) -> Iterator[None]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise InputError(f"--out {self.path}: cannot be written ({error.strerror})") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one process that writes into the run while the block lasts. The lock of a dead process is none.

        Raises InputError that names the other process, or when the file system has no locks.
        """
        lock = FileLock(self.lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{self.path} is in use by {self._owner()}: wait for it, or end it") from None
        except (OSError, NotImplementedError) as error:
            raise InputError(f"{self.lock_file} cannot be locked ({error}): put the run elsewhere") from error
        try:
            self.owner_file.write_text(f"{os.getpid()}\n", encoding="utf-8")
            yield
        finally:
            self.owner_file.unlink(missing_ok=True)
            lock.release()

    @property
    def writer(self) -> str | None:
        """The process that writes into the run now, for people; None where there is none."""
        if not self.lock_file.exists():
            return None
        lock = FileLock(self.lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return self._owner()
        except (OSError, NotImplementedError):  # a folder that cannot be written has nobody who writes
            return None
        lock.release()
        return None

    def _owner(self) -> str:
        pid = self.owner_file.read_text(encoding="utf-8").strip() if self.owner_file.exists() else ""
        return f"process {pid}" if pid else "another process"

    def _occupied(self, config: SearchConfig) -> InputError:
        there = tomllib.loads(self.config().to_toml(self.path))
        asked = tomllib.loads(config.to_toml(self.path))
        if there == asked:
            return InputError(f"--out {self.path}: this run exists; go on with it: whisperfit resume {self.path}")
        differing = sorted(key for key in there.keys() | asked.keys() if there.get(key) != asked.get(key))
        return InputError(
            f"--out {self.path}: holds a run with another configuration (it differs in {', '.join(differing)}); "
            "give a new folder"
        )

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Raises InputError when there is no run in the folder."""
        folder = cls(path)
        if not folder.holds_run:
            raise InputError(f"{path} holds no run (no config.toml and study.db): start one with whisperfit search")
        return folder

    @classmethod
    def open_to_write(cls, path: Path) -> "RunFolder":
        """The same for what writes into it. Raises InputError also where that cannot be done."""
        folder = cls.open(path)
        if not os.access(path, os.W_OK):
            raise InputError(f"{path} cannot be written (no permission, or a read-only disk): copy the run elsewhere")
        return folder

    def config(self) -> SearchConfig:
        return SearchConfig.build(self.config_file, {})

    def write_environment(self, digests: Mapping[str, str], compute: str = "cpu") -> None:
        """Versions, machine, where torch computes, and the digests of everything that the results depend on."""
        environment = {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
            "machine": platform.machine(),
            "system": platform.platform(),
            "processor": processor(),
            "compute": compute,
            **digests,
        }
        self.keep_environment(environment)

    def version_changes(self) -> list[str]:
        """One line for each package that has another version than when the run last went on."""
        return [
            f"{name} {before} -> {version(name)}: {DECIDING[name]}" for name, before in self._other_versions().items()
        ]

    def record_versions(self) -> None:
        """Keep what changed beside what was, so that the report tells."""
        environment = self.environment()
        for name in self._other_versions():
            known = environment.get(LATER.format(name))
            environment[LATER.format(name)] = f"{known}, {version(name)}" if known else version(name)
        if environment != self.environment():
            self.keep_environment(environment)

    def _other_versions(self) -> dict[str, str]:
        """The latest version that the run knew of each package that is another one today."""
        environment = self.environment()
        latest = {
            name: environment.get(LATER.format(name), environment[name]).split(", ")[-1]
            for name in DECIDING
            if name in environment
        }
        return {name: before for name, before in latest.items() if before != version(name)}

    def keep_environment(self, environment: Mapping[str, str]) -> None:
        """In place of what was kept before."""
        write_text_whole(self.environment_file, json.dumps(environment, indent=2) + "\n")

    def environment(self) -> dict[str, str]:
        """What `write_environment` wrote; empty before."""
        if not self.environment_file.exists():
            return {}
        try:
            return _ENVIRONMENT.validate_python(parse_json(self.environment_file.read_text(encoding="utf-8")))
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{self.environment_file} is damaged ({reason}): put it back, or delete it") from error


def processor() -> str:
    """The processor's name as Linux tells it, else as Python does."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
