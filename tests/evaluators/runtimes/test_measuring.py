"""The process that measures an artifact: whose it is, and what its death means."""

import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.runtimes import own
from evaluators.runtimes.own import MeasurementError, measure_apart
from evaluators.speech.speech_set import load_speech_set
from runtime.measure import Plan

PLAN = Plan(threads=1, repeats=1, reference_s=10.0, reference_tokens=5)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("sys.exit('its own session' if os.getsid(0) == os.getpid() else 'our session')", "its own session"),
        ("os.kill(os.getpid(), 9)", f"exit code {-signal.SIGKILL}"),
    ],
    ids=["Ctrl-C in a terminal reaches only us", "the kernel needs memory"],
)
def test_a_measuring_process_of_its_own(program, told, tmp_path: Path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nimport os, sys\n{program}\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(own.sys, "executable", str(python))
    sample = load_speech_set(Path("sample"), language="en")
    clip = replace(sample, utterances=sample.utterances[:1]).utterances[0]
    with pytest.raises(MeasurementError, match=f"cannot be measured: {told}"):
        measure_apart(tmp_path, (clip,), PLAN)
