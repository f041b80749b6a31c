"""This machine, as a device."""

import shutil
import sys
from pathlib import Path

from common.errors import InputError
from devices.profiler.base import Connection


class Local(Connection):
    """This machine; `python` is the one that runs now unless another is named."""

    def __init__(self, *, host: str = "local", python: str | None = None) -> None:
        super().__init__(host=host, python=python or sys.executable)

    def put(self, local: Path, remote: str) -> None:
        try:
            if local.is_dir():
                shutil.copytree(local, remote)
            else:
                shutil.copyfile(local, remote)
        except OSError as error:
            raise InputError(f"{self.host}: {local} could not be copied: {error}") from error

    def _command(self, script: str) -> list[str]:
        return ["sh", "-c", script]

    def _scratch(self) -> str:
        return "${TMPDIR:-/tmp}"
