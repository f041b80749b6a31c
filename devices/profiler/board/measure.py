"""Times ONNX models on a board: `python3 measure.py PLAN.json < DONE`, one JSON line per visit of a job.

Copied to the board as one file: it needs Python 3.9, numpy and onnxruntime, and nothing of whisperfit.

The plan is made by `devices.profiler.measuring`. Each job is visited several times, all jobs in turn: what disturbs a
machine for a minute then disturbs a part of every job's runs, and not all runs of a few jobs. Before and after each
visit a fixed load of two kinds, the canary, is timed, by which later visits are compared.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort

Json = dict[str, Any]
Run = Callable[[], Any]

LATER_WARM_UPS = 2
"""Of a visit after the first: a new session, but a warm processor."""
WHOLE_RUNS = 2
"""Of a visit: of an encoder, and of an utterance of many steps, after one of each to warm up."""


def main() -> None:
    """Run what is left of the plan; visits that are done are named by their job and number on standard input."""
    folder = Path(sys.argv[1]).resolve().parent
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    done = {tuple(json.loads(line)) for line in sys.stdin if line.strip()}
    if plan["cpus"]:
        os.sched_setaffinity(0, plan["cpus"])
    canary = [_runner(folder, job, plan) for job in plan["canary"]]
    for visit in range(plan["visits"]):
        for job in plan["jobs"]:
            if visit < job["visits"] and (job["id"], visit) not in done:
                _visit(folder, job, visit, plan, canary)


def _visit(folder: Path, job: Json, visit: int, plan: Json, canary: list[Run]) -> None:
    before = _canary(canary)
    try:
        is_whole = "decoder" in job
        times = _whole(folder, job, plan) if is_whole else _operation(folder, job, visit, plan)
        result = {"times_s": times, "canary_s": [before, _canary(canary)]}
    except Exception as error:  # noqa: BLE001 - whatever onnxruntime refuses is reported, and the next job follows
        result = {"error": " ".join(str(error).split())}
    line = {"id": job["id"], "visit": visit, "threads": plan["threads"], "at": time.time(), **result}
    print(json.dumps(line), flush=True)


def _canary(runs: list[Run]) -> list[float]:
    """Seconds of each load, the median of a few runs."""
    return [median(_timed(run, 5)) for run in runs]


def _operation(folder: Path, job: Json, visit: int, plan: Json) -> dict[str, list[float]]:
    """Seconds of each run of an operation's model."""
    run = _runner(folder, job, plan)
    return {"run": _repeated(run, job, visit, plan)}


def _repeated(run: Run, job: Json, visit: int, plan: Json) -> list[float]:
    """Enough runs that all visits together reach the plan's repeats; the warm-ups are complete on the first visit."""
    for _ in range(plan["warm_ups"] if visit == 0 else LATER_WARM_UPS):
        run()
    return _timed(run, -(-plan["repeats"] // job["visits"]))


def _timed(run: Run, count: int) -> list[float]:
    times = []
    for _ in range(count):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return times


def _runner(folder: Path, job: Json, plan: Json) -> Run:
    """A function that runs a job's model once, on inputs of random values."""
    session = _session(folder / job["model"], plan)
    names = [output.name for output in session.get_outputs()]
    feeds = {graph_input["name"]: _value(graph_input) for graph_input in job["inputs"]}
    return lambda: session.run_with_ort_values(names, feeds)


def _value(graph_input: Json) -> Any:
    """In memory that onnxruntime allocates, as what it hands on is: numpy's comes in huge pages, which are faster."""
    generator = np.random.default_rng(0)
    shape = tuple(graph_input["shape"])
    if graph_input["type"].startswith("float"):
        values = generator.standard_normal(shape).astype(graph_input["type"])
    else:
        values = generator.integers(0, 64, shape).astype(graph_input["type"])
    allocated = ort.OrtValue.ortvalue_from_shape_and_type(shape, values.dtype.type)
    allocated.update_inplace(values)
    return allocated


def _session(file: Path, plan: Json) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = plan["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = False
    for key, value in plan["session"].items():
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _whole(folder: Path, job: Json, plan: Json) -> dict[str, list[float]]:
    """Seconds of each run of an artifact's encoder, and of the median step of its decoder in each utterance.

    The first step of an utterance is slower, as the encoder has taken the caches.
    """
    encoder = _session(folder / job["encoder"], plan)
    decoder = _session(folder / job["decoder"], plan)
    names = [output.name for output in encoder.get_outputs()]
    mel = {"mel": _value({"shape": job["mel"], "type": "float32"})}

    def encode() -> Any:
        return encoder.run_with_ort_values(names, mel)

    encode()
    utterance = _utterance(decoder, dict(zip(names, encode())), job)  # noqa: B905 - strict is newer than 3.9
    utterance()
    return {
        "encoder": _timed(encode, WHOLE_RUNS),
        "token": [median(utterance()) for _ in range(WHOLE_RUNS)],
    }


def _utterance(decoder: Any, audio: dict[str, Any], job: Json) -> Callable[[], list[float]]:
    """A function that decodes so many steps, each with the choice of its token, as `runtime.model` does.

    It returns the seconds of each.
    """
    start = {
        graph_input.name: graph_input.shape
        for graph_input in decoder.get_inputs()
        if graph_input.name.startswith("past_")
    }
    token = np.array([[job["token"]]])

    def run() -> list[float]:
        times = []
        past = {
            name: ort.OrtValue.ortvalue_from_numpy(np.empty((1, shape[1], 0, shape[3]), np.float32))
            for name, shape in start.items()
        }
        for _ in range(job["steps"]):
            started = time.perf_counter()
            names = ["logits"] + [name[len("past_") :] for name in past]
            feeds = {"tokens": ort.OrtValue.ortvalue_from_numpy(token)}
            feeds.update(audio)
            feeds.update(past)
            values = decoder.run_with_ort_values(names, feeds)
            values[0].numpy().argmax()
            past = dict(zip(past, values[1:]))  # noqa: B905
            times.append(time.perf_counter() - started)
        return times

    return run


if __name__ == "__main__":
    main()
