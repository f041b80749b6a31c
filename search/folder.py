"""A run's folder: made once for one configuration, opened again to go on."""

import json
import os
import platform
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from common.errors import InputError
from common.files import write_text_whole
from search.config import SearchConfig

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
        return self.path / "study.db"

    @property
    def models(self) -> Path:
        """The exported front: one artifact by recipe id."""
        return self.path / "models"

    @property
    def recovered(self) -> Path:
        """What training made of recipes: weights, recipe and curve, one folder by recipe id."""
        return self.path / "recovered"

    @property
    def holds_run(self) -> bool:
        return self.config_file.is_file() and self.study_file.is_file()

    @classmethod
    def check_free(cls, path: Path, config: SearchConfig) -> None:
        """Raise InputError unless a run of this configuration can begin in the folder.

        It must be new or empty: not hold a run (of this or of another configuration) nor other files.
        """
        folder = cls(path)
        if folder.holds_run:
            raise folder._occupied(config)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"--out {path}: exists and is no run; give a new or an empty folder")
        writable = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
        if not writable.is_dir():
            raise InputError(f"--out {path}: cannot be made, {writable} is a file")
        if not os.access(writable, os.W_OK):
            raise InputError(f"--out {path}: cannot be written (no permission to write in {writable})")

    @classmethod
    def create(cls, path: Path, config: SearchConfig) -> "RunFolder":
        """Make the folder and write its configuration. Raises InputError when it cannot be written."""
        folder = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_text_whole(folder.config_file, config.to_toml(path))
        except OSError as error:
            raise InputError(f"--out {path}: cannot be written ({error.strerror})") from error
        return folder

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

    def write_environment(self, digests: Mapping[str, str]) -> None:
        """Versions, machine and the digests of everything that the results depend on."""
        environment = {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
            "machine": platform.machine(),
            "system": platform.platform(),
            "processor": processor(),
            **digests,
        }
        self._write_environment(environment)

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
            self._write_environment(environment)

    def _other_versions(self) -> dict[str, str]:
        """The latest version that the run knew of each package that is another one today."""
        environment = self.environment()
        latest = {
            name: environment.get(LATER.format(name), environment[name]).split(", ")[-1]
            for name in DECIDING
            if name in environment
        }
        return {name: before for name, before in latest.items() if before != version(name)}

    def _write_environment(self, environment: Mapping[str, str]) -> None:
        write_text_whole(self.environment_file, json.dumps(environment, indent=2) + "\n")

    def environment(self) -> dict[str, str]:
        """What `write_environment` wrote; empty before."""
        if not self.environment_file.exists():
            return {}
        loaded: dict[str, str] = json.loads(self.environment_file.read_text(encoding="utf-8"))
        return loaded


def processor() -> str:
    """The processor's name as Linux tells it, else as Python does."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
