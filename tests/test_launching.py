"""The examples of starting workers elsewhere: the commands in them are ones that this program takes."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from search.cli import app
from search.configuration.study_address import StudyAddress

LAUNCHING = Path(__file__).parents[1] / "docs" / "launching"


def of_systemd() -> list[str]:
    lines = (LAUNCHING / "whisperfit-worker.service").read_text(encoding="utf-8").splitlines()
    return shlex.split(next(line for line in lines if line.startswith("ExecStart=")).removeprefix("ExecStart="))


def of_slurm() -> list[str]:
    lines = (LAUNCHING / "worker.sbatch").read_text(encoding="utf-8").splitlines()
    return shlex.split(next(line for line in lines if line.startswith("exec ")).removeprefix("exec "))


def of_kubernetes() -> list[str]:
    job = yaml.safe_load((LAUNCHING / "worker-job.yaml").read_text(encoding="utf-8"))
    [container] = job["spec"]["template"]["spec"]["containers"]
    return list(container["command"])


@pytest.mark.parametrize("command", [of_systemd, of_slurm, of_kubernetes])
def test_the_command_is_taken(command):
    program, name, *arguments = command()
    assert Path(program).name == "whisperfit"
    parsed = typer.main.get_command(app).commands[name].make_context(name, arguments)
    assert StudyAddress.of_storage(parsed.params["storage"], parsed.params["study"]).name == "night"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit(tmp_path):
    text = (LAUNCHING / "whisperfit-worker.service").read_text(encoding="utf-8")
    unit = tmp_path / "whisperfit-worker.service"
    text = text.replace("/srv/whisperfit/.venv/bin/whisperfit", "/bin/true").replace("User=whisperfit", "User=root")
    unit.write_text(text, encoding="utf-8")
    checked = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert not [line for line in checked.stderr.splitlines() if "whisperfit-worker" in line], checked.stderr


def test_the_array_is_a_shell_script():
    subprocess.run(["bash", "-n", LAUNCHING / "worker.sbatch"], check=True)
