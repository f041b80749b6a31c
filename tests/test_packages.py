"""The packages have plain names, so nobody else may own them; and the command is light."""

import subprocess
import sys
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PACKAGES = ("common", "compression", "devices", "evaluators", "runtime", "search")
HEAVY = ("torch", "whisper", "pandas", "optuna", "plotly", "onnx", "onnxruntime", "numpy")
COMMANDS = ("search", "resume", "report", "baseline", "devices", "export", "verify", "transcribe")
MAIN = "from search.cli import main; main()"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_no_other_distribution_owns_a_name(name):
    owners = set(packages_distributions().get(name, ()))
    assert owners <= {"whisperfit"}
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin) == CHECKOUT / name / "__init__.py"


def test_the_command_line_loads_nothing_heavy():
    code = f"import sys, search.cli; print([name for name in {HEAVY} if name in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


def test_the_version_is_told_by_itself():
    code = (
        "import sys\nfrom search.cli import app\n"
        "try:\n    app(['--version'])\nexcept SystemExit as ended:\n    print(ended.code)\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    shown = python("-c", code)
    told, ended = shown.stdout.splitlines()
    assert told.startswith(f"whisperfit {version('whisperfit')} (Python 3.")
    assert all(f"{name} {version(name)}" in told for name in ("torch", "openai-whisper", "onnxruntime"))
    assert (ended, shown.stderr.strip()) == ("0", "[]")


def test_help_names_every_command():
    shown = python("-c", MAIN, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert all(command in shown.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_nothing_heavy(command):
    code = (
        "import sys\nfrom search.cli import app\n"
        f"try:\n    app(['{command}', '--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    assert python("-c", code).stderr.strip() == "[]"
