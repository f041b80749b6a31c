"""The program that is copied to a board, run as a program with real models of onnxruntime."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from compression.compress import compress
from compression.export.onnx_runtime.artifact import export
from compression.recipe.recipe import Recipe
from devices.operation import Operation
from devices.profiler.local import Local
from devices.profiler.measuring import PROGRAM, WHOLE_VISITS, Log, MeasuringOptions, artifact_job, measure
from evaluators.profiling.operation_models import operation_model
from evaluators.profiling.table_maker import canary_jobs
from runtime.model import session_entries
from tests.compression.export.models import COMPACT, changed, compact_calibration, compact_model

OPERATIONS = {
    "norm": Operation(kind="layer_norm", m=20, n=64),
    "rounding": Operation(kind="dynamic_quantise", m=20, k=64, activation_bits=8),
    "look-up": Operation(kind="embedding", n=64, weight_bits=4, group_size=32),
    "codes": Operation(kind="dequantise", m=20, k=64, activation_bits=16),
}
CANARY = {"gelu": Operation(kind="gelu", m=20, n=64), "session": Operation(kind="session", n=4)}
VISITS_HERE, WARM_UPS, REPEATS = 2, 3, 5


def entry(folder: Path, name: str, operation: Operation) -> dict[str, Any]:
    model = operation_model(operation)
    (folder / f"{name}.onnx").write_bytes(model.model)
    return {"id": name, "visits": VISITS_HERE, "model": f"{name}.onnx", "inputs": [asdict(one) for one in model.inputs]}


@pytest.fixture
def plan(tmp_path: Path) -> dict[str, Any]:
    """A small plan beside its models, in `tmp_path`."""
    return {
        "threads": 1,
        "cpus": None,
        "visits": VISITS_HERE,
        "warm_ups": WARM_UPS,
        "repeats": REPEATS,
        "session": session_entries(saturates=False),
        "canary": [entry(tmp_path, name, operation) for name, operation in CANARY.items()],
        "jobs": [entry(tmp_path, name, operation) for name, operation in OPERATIONS.items()],
    }


def run(folder: Path, plan: dict[str, Any], *, done: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "measure.py").write_bytes(PROGRAM.read_bytes())
    (folder / "plan.json").write_text(json.dumps(plan))
    # from another folder, and without whisperfit in reach
    return subprocess.run(
        [sys.executable, "-I", folder / "measure.py", folder / "plan.json"],
        input=done,
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        timeout=120,
    )


def lines(folder: Path, plan: dict[str, Any], *, done: str = "") -> list[dict[str, Any]]:
    ended = run(folder, plan, done=done)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_every_visit_is_a_line(tmp_path: Path, plan: dict[str, Any]) -> None:
    found = lines(tmp_path, plan)
    assert [(line["visit"], line["id"]) for line in found] == [
        (visit, job) for visit in range(VISITS_HERE) for job in OPERATIONS
    ]
    for line in found:
        assert line.keys() == {"id", "visit", "threads", "at", "times_s", "canary_s"}
        assert line["threads"] == 1
        (runs,) = line["times_s"].values()
        assert len(runs) == 3, "5 repeats in 2 visits"
        before, after = line["canary_s"]
        assert len(before) == len(after) == len(CANARY)
        assert all(0 < seconds < 10 for seconds in (*runs, *before, *after))
    times = [line["at"] for line in found]
    assert times == sorted(times)


def test_a_job_may_have_fewer_visits(tmp_path: Path, plan: dict[str, Any]) -> None:
    plan["jobs"][0]["visits"] = 1
    found = [line for line in lines(tmp_path, plan) if line["id"] == "norm"]
    assert [len(line["times_s"]["run"]) for line in found] == [REPEATS]


def test_what_is_done_is_not_made_again(tmp_path: Path, plan: dict[str, Any]) -> None:
    done = [["norm", 0], ["codes", 0], ["codes", 1], ["from an earlier plan", 0]]
    found = lines(tmp_path, plan, done="".join(f"{json.dumps(identity)}\n" for identity in done))
    made = [[line["id"], line["visit"]] for line in found]
    assert sorted(made + done[:3]) == sorted([job, visit] for visit in range(VISITS_HERE) for job in OPERATIONS)


def test_a_model_that_onnxruntime_refuses_does_not_stop_the_others(tmp_path: Path, plan: dict[str, Any]) -> None:
    (tmp_path / "rounding.onnx").write_bytes(b"no model")
    plan["jobs"][2]["inputs"][0]["type"] = "float32"  # of ids, which are int64
    del plan["jobs"][3]["inputs"][0]
    found = lines(tmp_path, plan)
    refused = {line["id"] for line in found if "error" in line}
    assert refused == {"rounding", "look-up", "codes"}
    assert all("\n" not in line["error"] and line["error"] for line in found if "error" in line)
    assert sum("times_s" in line for line in found) == VISITS_HERE


def test_a_core_that_is_not_there_ends_the_program(tmp_path: Path, plan: dict[str, Any]) -> None:
    ended = run(tmp_path, plan | {"cpus": [4095]})
    assert ended.returncode != 0
    assert ended.stdout == ""
    assert "Invalid argument" in ended.stderr.splitlines()[-1]


def test_lines_come_one_by_one(tmp_path: Path, plan: dict[str, Any]) -> None:
    """So that nothing is lost when the link drops: the first line is there while the program still runs."""
    (tmp_path / "measure.py").write_bytes(PROGRAM.read_bytes())
    jobs = [job | {"visits": 10_000} for job in plan["jobs"]]
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"visits": 10_000, "jobs": jobs}))
    with subprocess.Popen(
        [sys.executable, tmp_path / "measure.py", tmp_path / "plan.json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        assert json.loads(program.stdout.readline())["id"] == "norm"
        assert program.poll() is None
        program.kill()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rounded activations and a pruned decoder layer: not every layer has the same shapes."""
    out = tmp_path_factory.mktemp("artifact")
    model = compact_model()
    original = Recipe.original(COMPACT, stored_bits=16)
    recipe = changed(original, bits=8, activation_bits=8, group_size=32, decoder={"heads": 1, "cross_heads": 3})
    export(model, recipe, compress(model, recipe, compact_calibration(model)), out)
    return out


def test_whole_artifacts_beside_operations(artifact: Path, tmp_path: Path) -> None:
    """Through a connection, as `whisperfit profile` does it: copied, pinned, timed, logged."""
    log = Log(tmp_path / "log.jsonl", device="test")
    settings = MeasuringOptions(threads=1, cpus=None, session=session_entries(saturates=False), canary=canary_jobs())
    jobs = [
        artifact_job("compact-0", artifact, mel=(1, 80, 400), steps=5, token=100),
        artifact_job("compact-1", tmp_path / "absent", mel=(1, 80, 400), steps=5, token=100),
    ]
    with Local() as board:
        visits = list(measure(board, jobs, settings, log))
    assert visits == ["compact-0", "compact-1"] * WHOLE_VISITS
    assert log.errors().keys() == {"compact-1"}
    assert len(log.visits(1)) == WHOLE_VISITS
    for visit in log.visits(1):
        assert visit.times_s.keys() == {"encoder", "token"}
        assert [len(runs) for runs in visit.times_s.values()] == [2, 2]
        assert len(visit.canary_s) == 2
        assert all(seconds > 0 for runs in visit.times_s.values() for seconds in runs)
