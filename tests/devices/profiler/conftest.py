"""Devices to reach: this machine, a real sshd on loopback, and a fake adb."""

import os
import pwd
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

FAKE_ADB = Path(__file__).with_name("fake_adb.py")
SSHD_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
"""
SSH_CONFIG = """
IdentityFile {folder}/user_key
IdentitiesOnly yes
UserKnownHostsFile {folder}/known_hosts
"""


@dataclass(frozen=True, kw_only=True)
class SshServer:
    """A running sshd. `programs` holds an `ssh` that uses the test's key and known hosts; put it first on PATH."""

    user: str
    port: int
    folder: Path
    programs: Path

    @property
    def host(self) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}"


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """A real OpenSSH server, run by this user on a free port, without sftp. Skips where it is not installed."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if sshd is None or shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's server and client: apt install openssh-server openssh-client")
    folder = tmp_path_factory.mktemp("ssh")
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder, port=port))
    (folder / "ssh_config").write_text(SSH_CONFIG.format(folder=folder))
    ssh = program(folder / "programs" / "ssh", f'{shutil.which("ssh")} -F {folder}/ssh_config "$@"')
    if os.getuid() == 0:
        # where root's sshd locks itself in before it knows the user
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        wait_for(port)
        yield SshServer(user=pwd.getpwuid(os.getuid()).pw_name, port=port, folder=folder, programs=ssh.parent)
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


@dataclass(frozen=True, kw_only=True)
class FakePhone:
    """Where the fake adb's device keeps /data/local/tmp."""

    serial: str
    scratch: Path

    @property
    def host(self) -> str:
        return f"adb:{self.serial}"


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhone:
    """A phone in state `device`, beside others that are not, with Python at the default place."""
    scratch = tmp_path / "phone"
    adb = program(tmp_path / "programs" / "adb", shlex.join([sys.executable, str(FAKE_ADB)]) + ' "$@"')
    program(scratch / "python/bin/python3", f'{sys.executable} "$@"')
    monkeypatch.setenv("PATH", f"{adb.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_ADB_ROOT", str(scratch))
    monkeypatch.setenv("FAKE_ADB_DEVICES", "R58M123=device,LOCKED=unauthorized,ASLEEP=offline,HELD=no permissions")
    return FakePhone(serial="R58M123", scratch=scratch)


@pytest.fixture(params=["local", "ssh", "adb"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to reach a device whose Python is the one of these tests."""
    if request.param == "local":
        return "local"
    if request.param == "adb":
        return request.getfixturevalue("phone").host
    server = request.getfixturevalue("ssh_server")
    monkeypatch.setenv("PATH", f"{server.programs}:{os.environ['PATH']}")
    return f"{server.host}?python={sys.executable}"


def program(path: Path, command: str) -> Path:
    """An executable shell script that becomes the command."""
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\nexec {command}\n")
    path.chmod(0o755)
    return path
