"""An Android phone reached by the program `adb`."""

import shutil
from pathlib import Path

from common.errors import InputError
from devices.profiler.base import ANSWER_TIMEOUT_S, HELP, RUN_TIMEOUT_S, Connection, last_line

DEFAULT_PYTHON = "/data/local/tmp/python/bin/python3"
SCRATCH = "/data/local/tmp"
"""The one folder where adb's user may write and execute."""

_STATES = {
    "unauthorized": "unlock it and accept this computer's key in the dialog",
    "authorizing": "unlock it and accept this computer's key in the dialog",
    "offline": "unplug it and plug it in again, or run adb kill-server",
    "no permissions": "this user may not use the USB device: see developer.android.com/tools/device.html (udev rules)",
}
"""What `adb devices` says instead of `device`, and what to do."""


class Adb(Connection):
    """A phone with USB or wireless debugging switched on, and a Python that adb's user may run."""

    def __init__(self, serial: str, *, host: str, python: str | None = None) -> None:
        super().__init__(host=host, python=python or DEFAULT_PYTHON)
        self._serial = serial

    def put(self, local: Path, remote: str) -> None:
        done = self._run_here(["adb", "-s", self._serial, "push", str(local), remote], timeout_s=RUN_TIMEOUT_S)
        if done.code:
            raise InputError(f"{self.host}: {local} could not be copied: {last_line(done.stderr or done.stdout)}")

    def _command(self, script: str) -> list[str]:
        return ["adb", "-s", self._serial, "shell", script]

    def _reach(self) -> None:
        if shutil.which("adb") is None:
            raise InputError(f"{self.host}: the program `adb` is not installed here (Debian: apt install adb); {HELP}")
        listed = self._run_here(["adb", "devices"], timeout_s=ANSWER_TIMEOUT_S)
        if listed.code:
            raise InputError(f"{self.host}: `adb devices` fails: {last_line(listed.stderr or listed.stdout)}")
        states = _device_states(listed.stdout)
        state = states.get(self._serial)
        if state is None:
            known = ", ".join(states) or "none: is USB debugging on, and the cable one for data?"
            raise InputError(f"{self.host}: no device {self._serial!r}; `adb devices` lists {known}")
        if state != "device":
            remedy = next((f"; {text}" for sign, text in _STATES.items() if state.startswith(sign)), "")
            raise InputError(f"{self.host}: the device is there but {state!r}{remedy}")

    def _scratch(self) -> str:
        return SCRATCH


def _device_states(listed: str) -> dict[str, str]:
    """Serial to state, of what `adb devices` prints: a heading, then a line each with a tab between the two."""
    rows = (line.split("\t", 1) for line in listed.splitlines() if "\t" in line)
    return {serial.strip(): state.strip() for serial, state in rows}
