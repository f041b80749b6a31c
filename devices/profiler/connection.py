"""From what the user writes after `--host` to a connection."""

import re
from urllib.parse import parse_qs

from common.errors import InputError
from devices.profiler.adb import Adb
from devices.profiler.base import Connection
from devices.profiler.local import Local
from devices.profiler.ssh import Ssh, SshAddress

_FORMS = "local, ssh://USER@HOST[:PORT], adb:SERIAL; ?python=/path/to/python3 may follow"
_SSH = re.compile(
    r"ssh://(?:(?P<user>[\w.][\w.-]*)@)?(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>\w[\w.-]*))(?::(?P<port>\d{1,5}))?/?"
)


def connect(host: str) -> Connection:
    """A connection to `local`, `ssh://USER@HOST[:PORT]` or `adb:SERIAL`, each perhaps with `?python=/path`.

    Nothing is contacted yet. Raises InputError when `host` has none of these forms.
    """
    where, _, query = host.partition("?")
    python = _python(host, query)
    if where == "local":
        return Local(host=host, python=python)
    if serial := where.removeprefix("adb:") if where.startswith("adb:") else "":
        return Adb(serial, host=host, python=python)
    if address := _SSH.fullmatch(where):
        return Ssh(_address(address), host=host, python=python)
    raise InputError(f"unknown host {host!r}; there is {_FORMS}")


def _python(host: str, query: str) -> str | None:
    given = parse_qs(query, keep_blank_values=True)
    pythons = given.pop("python", [])
    if given or len(pythons) > 1 or "" in pythons or (query and not pythons):
        raise InputError(f"unknown host {host!r}: after the question mark only python=/path/to/python3 is known")
    return pythons[0] if pythons else None


def _address(found: re.Match[str]) -> SshAddress:
    port = found["port"]
    return SshAddress(host=found["ipv6"] or found["host"], user=found["user"], port=int(port) if port else None)
