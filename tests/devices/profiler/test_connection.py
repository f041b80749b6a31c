"""What holds for each way of reaching a device, and what goes wrong on the way."""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from common.errors import InputError
from devices.profiler.adb import Adb
from devices.profiler.base import ConnectionLostError
from devices.profiler.connection import connect
from devices.profiler.local import Local
from devices.profiler.ssh import SshAddress

NASTY = ["", "two words", "it's", '"quoted"', "$HOME `id` $(id)", "a\nb", "*", "\\", "; exit 9", "-n", "ä€"]
# ends the program that has us run: sshd's process for this session, or adb
CUT_THE_LINK = """
import os, signal, time
print("first", flush=True)
print("second", flush=True)
time.sleep(0.2)
pid = os.getppid()
for _ in range(10):
    program = open(f"/proc/{pid}/cmdline").read().split("\\0")[:2]
    if any(word.startswith("sshd") or word.endswith("fake_adb.py") for word in program):
        os.kill(pid, signal.SIGKILL)
        break
    pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
time.sleep(5)
print("never seen", flush=True)
"""


def python(code):
    return [sys.executable, "-c", code]


# --- the contract ---


def test_the_python_there_is_described(host):
    with connect(host) as connection:
        found = connection.test()
    assert found.python_version == platform.python_version()
    assert found.machine == platform.machine()
    assert found.onnxruntime_version == version("onnxruntime")
    assert found.numpy_version == version("numpy")


def test_arguments_arrive_as_they_are(host):
    with connect(host) as connection:
        done = connection.run([*python("import json, sys; print(json.dumps(sys.argv[1:]))"), *NASTY])
    assert json.loads(done.stdout) == NASTY
    assert (done.stderr, done.code) == ("", 0)


@pytest.mark.parametrize("code", [0, 1, 77, 255])
def test_output_and_exit_code(host, code):
    program = f"import sys; sys.stdout.write('no newline'); sys.stderr.write('one\\nwhy\\n\\n'); sys.exit({code})"
    with connect(host) as connection:
        done = connection.run(python(program))
    assert (done.stdout, done.code, done.last_error) == ("no newline", code, "why")


def test_a_program_that_is_not_there(host):
    with connect(host) as connection:
        assert connection.run(["/no/such/program"]).code == 127


def test_an_answer_is_not_awaited_for_ever(host):
    with connect(host) as connection, pytest.raises(ConnectionLostError, match=r"no answer within 0\.5 s"):
        connection.run(["sleep", "30"], timeout_s=0.5)


def test_lines_come_as_they_are_printed(host):
    code = "import time\nfor i in range(3): print(i, flush=True); time.sleep(0.5)"
    with connect(host) as connection:
        came = [(line, time.monotonic()) for line in connection.stream(python(code))]
    assert [line for line, _ in came] == ["0", "1", "2"]
    assert came[2][1] - came[0][1] > 0.8


def test_a_last_line_without_its_end_is_a_line(host):
    with connect(host) as connection:
        assert list(connection.stream(["printf", "a\\n\\nb"])) == ["a", "", "b"]


def test_standard_input_reaches_the_program(host):
    with connect(host) as connection, tempfile.TemporaryFile() as given:
        given.write(b"one\ntwo\n")
        given.seek(0)
        assert list(connection.stream(["cat"], stdin=given)) == ["one", "two"]


def test_lines_before_a_failure_are_delivered(host):
    code = "import sys; print('kept', flush=True); sys.stdout.write('half'); sys.exit('out of memory')"
    with connect(host) as connection:
        lines = connection.stream(python(code))
        assert next(lines) == "kept"
        with pytest.raises(InputError, match="exit code 1: out of memory$") as error:
            next(lines)
    assert not isinstance(error.value, ConnectionLostError)


@pytest.mark.parametrize("host", ["ssh", "adb"], indirect=True)
def test_lines_before_the_link_drops_are_delivered(host):
    with connect(host) as connection:
        lines = connection.stream(python(CUT_THE_LINK))
        assert [next(lines), next(lines)] == ["first", "second"]
        with pytest.raises(ConnectionLostError, match="no connection"):
            next(lines)


def test_a_stream_that_is_closed_ends_a_local_program():
    lines = Local().stream(python("import os, time; print(os.getpid(), flush=True); time.sleep(60)"))
    pid = int(next(lines))
    lines.close()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.05)
    raise TimeoutError(f"process {pid} still runs")


def test_files_and_folders_are_copied_into_the_working_folder(host, tmp_path):
    data = bytes(range(256)) * 1000
    (tmp_path / "models" / "inner").mkdir(parents=True)
    (tmp_path / "models" / "inner" / "it's a b.onnx").write_bytes(data)
    (tmp_path / "one.bin").write_bytes(data[::-1])
    read = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
    with connect(host) as connection:
        folder = connection.folder()
        assert folder == connection.folder()
        assert folder.startswith("/")
        connection.put(tmp_path / "models", f"{folder}/models of mine")
        connection.put(tmp_path / "one.bin", f"{folder}/other.bin")
        for local, remote in (
            ("models/inner/it's a b.onnx", "models of mine/inner/it's a b.onnx"),
            ("one.bin", "other.bin"),
        ):
            there = connection.run([*python(read), f"{folder}/{remote}"]).stdout.strip()
            here = subprocess.run([*python(read), tmp_path / local], capture_output=True, text=True, check=True)
            assert there == here.stdout.strip()
    with connect(host) as connection:
        assert connection.run(["test", "-e", folder]).code == 1


def test_a_copy_that_cannot_be_written_is_an_error(host, tmp_path):
    (tmp_path / "one.bin").write_bytes(b"x")
    with connect(host) as connection, pytest.raises(InputError, match=r"one\.bin could not be copied: .+"):
        connection.put(tmp_path / "one.bin", "/no/such/folder/one.bin")


# --- a Python that cannot measure ---


@pytest.fixture
def answering(tmp_path):
    """A host whose Python is a shell script of the given text."""

    def make(script):
        path = tmp_path / "python3"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return connect(f"local?python={path}")

    return make


def test_no_python():
    with pytest.raises(InputError, match=r"^local\?python=/no/python: no Python at '/no/python' there; name one"):
        connect("local?python=/no/python").test()


def test_a_python_without_packages(answering):
    connection = answering(f'exec {sys.executable} -I -S "$@"')
    with pytest.raises(InputError, match=r"cannot load numpy: No module named 'numpy'; install it there with `/"):
        connection.test()


def test_a_python_without_onnxruntime(answering):
    connection = answering(
        """echo '{"python": "3.9.2", "machine": "armv7l", "numpy": "1.26", "onnxruntime_error": "bad"}'"""
    )
    with pytest.raises(InputError, match="cannot load onnxruntime: bad; install"):
        connection.test()


def test_a_python_that_is_too_old(answering):
    connection = answering("""echo '{"python": "3.8.10", "machine": "aarch64", "numpy": "1", "onnxruntime": "1"}'""")
    with pytest.raises(InputError, match=r"is Python 3\.8\.10, but 3\.9 or later is needed"):
        connection.test()


def test_a_python_that_crashes(answering):
    connection = answering("echo starting; echo 'cannot find libpython' >&2; kill -ILL $$")
    with pytest.raises(InputError, match=r"fails there with exit code 132: .*"):
        connection.test()


def test_words_of_a_login_shell_before_the_answer_are_ignored(answering):
    connection = answering(
        """echo 'Welcome!'; echo '{"python": "3.10.1", "machine": "m", "numpy": "1", "onnxruntime": "2"}'"""
    )
    assert connection.test().onnxruntime_version == "2"


# --- hosts ---


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://pi@pi4", SshAddress(host="pi4", user="pi")),
        ("ssh://pi4", SshAddress(host="pi4")),
        ("ssh://Board-2.lan:2222/", SshAddress(host="Board-2.lan", port=2222)),
        ("ssh://u.s-er@192.168.1.7:22?python=/opt/p", SshAddress(host="192.168.1.7", user="u.s-er", port=22)),
        ("ssh://root@[fe80::1%eth0]:22", SshAddress(host="fe80::1%eth0", user="root", port=22)),
    ],
)
def test_ssh_addresses(text, address):
    connection = connect(text)
    assert connection._address == address
    assert connection.host == text


def test_the_python_can_be_named():
    assert connect("ssh://pi4").python == "python3"
    assert connect("ssh://pi4?python=venv/bin/python").python == "venv/bin/python"
    assert connect("local").python == sys.executable
    assert connect("adb:R58M").python == "/data/local/tmp/python/bin/python3"
    assert connect("adb:192.168.1.5:5555")._serial == "192.168.1.5:5555"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pi4",
        "pi@pi4",
        "adb:",
        "ssh://",
        "ssh://-oProxyCommand=id",
        "ssh://-l@x",
        "ssh://u:secret@pi4",
        "ssh://pi4:x",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(InputError, match=r"^unknown host .*; there is local, ssh://USER@HOST\[:PORT\], adb:SERIAL"):
        connect(text)


@pytest.mark.parametrize("query", ["?", "?python=", "?threads=4", "?python=a&python=b", "?python=a&x=1"])
def test_only_python_may_follow(query):
    if query == "?":
        assert connect("local?").python == sys.executable
        return
    with pytest.raises(InputError, match="after the question mark only python="):
        connect(f"local{query}")


# --- ssh ---


@pytest.fixture
def ssh_here(ssh_server, monkeypatch):
    monkeypatch.setenv("PATH", f"{ssh_server.programs}:{os.environ['PATH']}")
    return ssh_server


def test_a_host_that_nobody_knows(ssh_here):
    with pytest.raises(
        InputError, match=r"^ssh://nobody\.invalid: no connection: .*resolve hostname.*; check the name"
    ):
        connect("ssh://nobody.invalid").test()


def test_a_port_that_refuses(ssh_here):
    with pytest.raises(InputError, match="Connection refused; is sshd running there"):
        connect("ssh://127.0.0.1:9").test()


def test_a_key_that_is_not_accepted(ssh_here, tmp_path, monkeypatch):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    config = (ssh_here.folder / "ssh_config").read_text().replace("user_key", "no_key")
    (tmp_path / "config").write_text(f"IdentityFile {tmp_path}/other\n{config}")
    use_ssh_config(tmp_path, monkeypatch)
    with pytest.raises(InputError, match=r"Permission denied \(publickey\)\.; the board must accept your key"):
        connect(ssh_here.host).test()


def test_a_host_key_that_changed(ssh_here, tmp_path, monkeypatch):
    key = (ssh_here.folder / "user_key.pub").read_text()
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{ssh_here.port} {key}")
    config = (ssh_here.folder / "ssh_config").read_text()
    config = re.sub(r"UserKnownHostsFile .*", f"UserKnownHostsFile {tmp_path}/known_hosts", config)
    (tmp_path / "config").write_text(config)
    use_ssh_config(tmp_path, monkeypatch)
    with pytest.raises(InputError, match="Host key verification failed.; its host key changed"):
        connect(ssh_here.host).test()


def use_ssh_config(folder, monkeypatch):
    ssh = folder / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {folder}/config "$@"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_the_default_python_is_that_of_the_path_there(ssh_here):
    shown = connect(ssh_here.host).run(["python3", "-c", "import sys; print(sys.version_info >= (3, 9))"])
    assert shown.code in (0, 127)


def test_without_ssh_installed(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="the program `ssh` is not installed here"):
        connect("ssh://pi4").test()


# --- adb ---


def test_without_adb_installed(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="the program `adb` is not installed here"):
        connect("adb:R58M123").test()


def test_a_serial_that_is_not_attached(phone):
    with pytest.raises(InputError, match="no device 'OTHER'; `adb devices` lists R58M123, LOCKED, ASLEEP, HELD$"):
        connect("adb:OTHER").test()


def test_no_device_at_all(phone, monkeypatch):
    monkeypatch.setenv("FAKE_ADB_DEVICES", "")
    with pytest.raises(InputError, match="lists none: is USB debugging on"):
        connect("adb:OTHER").test()


@pytest.mark.parametrize(
    ("serial", "message"),
    [
        ("LOCKED", "'unauthorized'; unlock it and accept"),
        ("ASLEEP", "'offline'; unplug it"),
        ("HELD", "'no permissions'; this user may not"),
    ],
)
def test_a_device_that_is_not_ready(phone, serial, message):
    with pytest.raises(InputError, match=message):
        connect(f"adb:{serial}").test()


def test_a_device_that_goes_offline_later(phone, monkeypatch):
    connection = connect(phone.host)
    connection.test()
    monkeypatch.setenv("FAKE_ADB_DEVICES", f"{phone.serial}=offline")
    with pytest.raises(ConnectionLostError, match="no connection: error: device offline"):
        connection.run(["true"])


def test_a_phone_without_python(phone):
    with pytest.raises(InputError, match="no Python at '/data/local/tmp/none' there; .*see docs/profiling.md"):
        connect(f"{phone.host}?python=/data/local/tmp/none").test()


def test_the_working_folder_is_where_adb_may_execute(phone):
    with connect(phone.host) as connection:
        assert isinstance(connection, Adb)
        folder = connection.folder()
        assert folder.startswith("/data/local/tmp/whisperfit.")
        assert [path.name for path in phone.scratch.glob("whisperfit.*")] == [Path(folder).name]
    assert not list(phone.scratch.glob("whisperfit.*"))
