"""A board reached by the system's `ssh`, with the user's own configuration, keys and known hosts."""

import shlex
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from devices.profiler.base import HELP, Connection, last_line

_OPTIONS = (
    "-T",
    "-oBatchMode=yes",  # a password or a passphrase would be asked for in the midst of a measurement
    "-oConnectTimeout=10",
    "-oStrictHostKeyChecking=accept-new",
    "-oLogLevel=ERROR",
    "-oControlMaster=no",  # one that persists would hold our pipes open
    "-oServerAliveInterval=15",
    "-oServerAliveCountMax=4",
)

_REMEDIES = {
    "could not resolve hostname": "check the name, or use the address",
    "connection refused": "is sshd running there, and on this port?",
    "connection timed out": "is it switched on and in this network?",
    "operation timed out": "is it switched on and in this network?",
    "no route to host": "is it switched on and in this network?",
    "permission denied": "the board must accept your key without a password: run ssh-copy-id",
    "too many authentication failures": "name the key for this host in ~/.ssh/config (IdentityFile, IdentitiesOnly)",
    "host key verification failed": "its host key changed: if it was set up anew, run ssh-keygen -R",
}
"""By what OpenSSH says, in lower case."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SshAddress:
    """Where `ssh` connects to; what is None comes from the user's ssh configuration."""

    host: str
    user: str | None = None
    port: int | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """Those of `ssh`: the port and, after the end of the options, the destination."""
        port = () if self.port is None else ("-p", str(self.port))
        destination = self.host if self.user is None else f"{self.user}@{self.host}"
        return (*port, "--", destination)


class Ssh(Connection):
    """A board with an ssh server, `sh`, `tar` and Python. Its login shell may be any."""

    def __init__(self, address: SshAddress, *, host: str, python: str | None = None) -> None:
        super().__init__(host=host, python=python or "python3")
        self._address = address

    def put(self, local: Path, remote: str) -> None:
        """As `Connection.put`. One stream of `tar`, since small boards (dropbear) have neither `scp` nor sftp."""
        parent, _, name = remote.rpartition("/")
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w") as archive:
                archive.add(local, arcname=name, filter=_without_owner)
            packed.seek(0)
            done = self.run(["tar", "-xf", "-", "-C", parent or "."], stdin=packed)
        if done.code:
            raise InputError(f"{self.host}: {local} could not be copied: {done.last_error}")

    def _command(self, script: str) -> list[str]:
        return ["ssh", *_OPTIONS, *self._address.arguments, f"sh -c {shlex.quote(script)}"]

    def _reach(self) -> None:
        if shutil.which("ssh") is None:
            raise InputError(f"{self.host}: the program `ssh` is not installed here; {HELP}")

    def _scratch(self) -> str:
        # /tmp is memory on many boards, and memory is what measurements may need
        return "$HOME"

    def _why_lost(self, stderr: str) -> str:
        said = stderr.lower()
        remedy = next((f"; {text}" for sign, text in _REMEDIES.items() if sign in said), "")
        return f"{self.host}: no connection: {last_line(stderr) or 'no message'}{remedy}"


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
