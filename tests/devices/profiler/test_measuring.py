"""Measurements against a board that is made up: what is kept, what is made again, and how times are reduced."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import IO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from devices.profiler.base import ConnectionLostError
from devices.profiler.local import Local
from devices.profiler.measuring import (
    CANARY_NEIGHBOURS_S,
    OPERATION_VISITS,
    REPEATS,
    WHOLE_VISITS,
    Feed,
    Job,
    Log,
    MeasuringOptions,
    Timings,
    Visit,
    artifact_job,
    measure,
    operation_job,
)
from tests.full_disk import files_of_at_most

DEVICE = "Cortex-A53, onnxruntime 1.32.0"
JOBS = tuple(operation_job(name, name.encode(), [Feed(name="x", shape=(1, 4))]) for name in ("a", "b", "c"))
CANARY = operation_job("canary", b"canary", [])


class Board(Local):
    """Answers as the measuring program does, at once; the link drops after `lines` of them."""

    def __init__(self, *, lines: int = 10_000, refuses: str = "") -> None:
        super().__init__()
        self.left = lines
        self.refuses = refuses
        self.plans: list[dict] = []
        self.files: set[str] = set()
        self.made: list[tuple[str, int]] = []

    def stream(self, arguments: Sequence[str], *, stdin: IO[bytes] | None = None) -> Iterator[str]:
        python, program, plan_file = arguments
        folder = Path(plan_file).parent
        assert (python, Path(program)) == (self.python, folder / "measure.py")
        plan = json.loads(Path(plan_file).read_text())
        self.plans.append(plan)
        self.files |= {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        done = {tuple(json.loads(line)) for line in stdin or ()}
        for visit in range(plan["visits"]):
            for job in plan["jobs"]:
                if visit < job["visits"] and (job["id"], visit) not in done:
                    yield self._line(job["id"], visit, plan["threads"])

    def _line(self, job: str, visit: int, threads: int) -> str:
        if not self.left:
            raise ConnectionLostError("ssh://board: no connection: broken pipe")
        self.left -= 1
        self.made.append((job, visit))
        result = {"times_s": {"run": [0.25, 0.5]}, "canary_s": [[0.5, 1.0], [0.5, 1.0]]}
        return line(job, visit, threads=threads, **({"error": "no kernel"} if job == self.refuses else result))


def line(job: str, visit: int, *, threads: int = 2, **result: object) -> str:
    return json.dumps({"id": job, "visit": visit, "threads": threads, "at": 1000.0 + len(job), **result})


def settings(**changes: object) -> MeasuringOptions:
    values = {"threads": 2, "cpus": (0, 1), "session": {"key": "0"}, "canary": (CANARY,)}
    return MeasuringOptions(**values | changes)


def run(board: Board, log: Log, jobs: Sequence[Job] = JOBS, **changes: object) -> list[str]:
    with board:
        return list(measure(board, jobs, settings(**changes), log))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "board.measurements.jsonl"


ALL = [(job.id, visit) for visit in range(OPERATION_VISITS) for job in JOBS]


def test_every_job_is_visited_in_turn(file: Path) -> None:
    board = Board()
    assert run(board, Log(file, device=DEVICE)) == [job for job, _ in ALL]
    assert board.made == ALL
    (plan,) = board.plans
    assert {key: plan[key] for key in ("threads", "cpus", "visits", "repeats", "session")} == {
        "threads": 2,
        "cpus": [0, 1],
        "visits": OPERATION_VISITS,
        "repeats": REPEATS,
        "session": {"key": "0"},
    }
    assert plan["jobs"][0] == {
        "id": "a",
        "visits": OPERATION_VISITS,
        "model": "a.onnx",
        "inputs": [{"name": "x", "shape": [1, 4], "type": "float32"}],
    }
    assert plan["canary"] == [{"id": "canary", "model": "canary.onnx", "inputs": []}]
    assert board.files == {"measure.py", "plan.json", "a.onnx", "b.onnx", "c.onnx", "canary.onnx"}


def test_an_artifact_is_copied_with_its_weights(file: Path, tmp_path: Path) -> None:
    for name in ("encoder.onnx", "encoder.onnx.data", "decoder.onnx", "decoder.onnx.data", "tokens.txt.gz"):
        (tmp_path / name).write_bytes(name.encode())
    board = Board()
    run(board, Log(file, device=DEVICE), [artifact_job("tiny.en-0", tmp_path, mel=(1, 80, 400), steps=7, token=100)])
    assert board.files == {"measure.py", "plan.json", "canary.onnx"} | {
        f"tiny.en-0/{name}" for name in ("encoder.onnx", "encoder.onnx.data", "decoder.onnx", "decoder.onnx.data")
    }
    (job,) = board.plans[0]["jobs"]
    assert job == {
        "id": "tiny.en-0",
        "visits": WHOLE_VISITS,
        "encoder": "tiny.en-0/encoder.onnx",
        "decoder": "tiny.en-0/decoder.onnx",
        "mel": [1, 80, 400],
        "steps": 7,
        "token": 100,
    }


def test_jobs_may_have_visits_of_their_own(file: Path) -> None:
    whole = artifact_job("whole", file.parent / "absent", mel=(1, 80, 400), steps=7, token=100)
    board = Board()
    run(board, Log(file, device=DEVICE), [JOBS[0], whole])
    assert board.plans[0]["visits"] == WHOLE_VISITS
    assert Counter(job for job, _ in board.made) == {"a": OPERATION_VISITS, "whole": WHOLE_VISITS}
    assert [job for job, _ in board.made[:4]] == ["a", "whole", "a", "whole"]


@pytest.mark.parametrize("lines", range(len(ALL)))
def test_what_was_printed_is_kept_when_the_link_drops_and_only_the_rest_is_made(file: Path, lines: int) -> None:
    lost = Board(lines=lines)
    with pytest.raises(ConnectionLostError, match="broken pipe"):
        run(lost, Log(file, device=DEVICE))
    assert lost.made == ALL[:lines]
    again = Log(file, device=DEVICE)
    assert again.done(2) == set(ALL[:lines])
    board = Board()
    run(board, again)
    assert sorted(board.made) == sorted(set(ALL) - set(lost.made))
    assert Log(file, device=DEVICE).done(2) == set(ALL)


def test_jobs_that_are_done_are_not_copied_again(file: Path) -> None:
    log = Log(file, device=DEVICE)
    run(Board(), log, JOBS[:2])
    board = Board()
    run(board, log)
    assert board.made == [("c", visit) for visit in range(OPERATION_VISITS)]
    assert "a.onnx" not in board.files


def test_a_device_is_left_alone_when_all_is_done(file: Path) -> None:
    log = Log(file, device=DEVICE)
    run(Board(), log)
    board = Board(lines=0)
    assert run(board, Log(file, device=DEVICE)) == []
    assert board.plans == []


def test_other_threads_are_measured_anew(file: Path) -> None:
    log = Log(file, device=DEVICE)
    run(Board(), log)
    board = Board()
    run(board, log, threads=1, cpus=(0,))
    assert board.made == ALL
    assert log.done(1) == log.done(2) == set(ALL)


def test_what_onnxruntime_refuses_is_told_and_not_asked_again(file: Path) -> None:
    log = Log(file, device=DEVICE)
    run(Board(refuses="b"), log)
    assert log.errors() == {"b": "no kernel"}
    assert {visit.id for visit in log.visits(2)} == {"a", "c"}
    assert run(Board(), Log(file, device=DEVICE)) == []


def test_the_working_folder_is_empty_again(file: Path) -> None:
    with Board() as board:
        list(measure(board, JOBS, settings(), Log(file, device=DEVICE)))
        assert list(Path(board.folder()).iterdir()) == []


TIMED = line("a", 0, times_s={"run": [0.5]}, canary_s=[[1.0, 2.0], [3.0, 6.0]])


def test_visits_are_read_back(file: Path) -> None:
    log = Log(file, device=DEVICE)
    log.add(TIMED)
    log.add(line("a", 0, threads=1, times_s={"run": [9.0]}, canary_s=[[1.0], [1.0]]))
    (visit,) = Log(file, device=DEVICE).visits(2)
    assert visit == Visit(
        id="a", visit=0, threads=2, at=1001.0, times_s={"run": [0.5]}, canary_s=(2.0, 4.0)
    )  # before and after, on average


def test_a_log_of_another_device_is_refused_and_kept(file: Path) -> None:
    Log(file, device="Cortex-A72, onnxruntime 1.32.0").add(TIMED)
    before = file.read_bytes()
    with pytest.raises(InputError, match="was measured on 'Cortex-A72, onnxruntime 1.32.0', not on 'Cortex-A53, .*'"):
        Log(file, device=DEVICE)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "hello\n",
        "[]\n",
        "{}\n",
        f'{{"device": "{DEVICE}"}}\nnoise\n',
        f'{{"device": "{DEVICE}"}}\n{{"id": "a"}}\n',
        f'{{"device": "{DEVICE}"}}\n3\n',
        f'{{"device": "{DEVICE}"}}\n\n',
        f'{{"device": "{DEVICE}"}}\n{TIMED[:30]}\n{TIMED}\n',
        "\n",
        b"\xff\xfe\n",
    ],
)
def test_a_damaged_log_is_refused_in_one_line_and_kept(file: Path, text: str | bytes) -> None:
    before = text if isinstance(text, bytes) else text.encode()
    file.write_bytes(before)
    with pytest.raises(InputError, match=r"is no log of measurements \(.*\): move it away to measure anew$") as caught:
        Log(file, device=DEVICE)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no log of measurements"):
        Log(tmp_path, device=DEVICE)


def test_a_log_that_was_cut_anywhere_goes_on(file: Path) -> None:
    """A process that was killed, a disk that was full: the part of a line is dropped, that visit is made again."""
    log = Log(file, device=DEVICE)
    run(Board(), log, JOBS[:2])
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    for size in {*range(200), *range(len(whole) - 200, len(whole) + 1)}:
        file.write_bytes(whole[:size])
        kept = [line for line in lines if whole[:size].startswith(b"".join(lines[: lines.index(line) + 1]))]
        again = Log(file, device=DEVICE)
        assert len(again.done(2)) == max(len(kept) - 1, 0)
        assert file.read_bytes() == b"".join(kept or lines[:1])
        again.add(TIMED)
        assert len(Log(file, device=DEVICE).visits(2)) == len(again.visits(2))


def test_a_full_disk_is_one_line_and_the_log_goes_on(file: Path) -> None:
    log = Log(file, device=DEVICE)
    log.add(TIMED)
    room = file.stat().st_size + 20
    with files_of_at_most(room), pytest.raises(InputError, match=r"cannot be written \(.*\): .* goes on from it") as e:
        log.add(line("b", 0, times_s={"run": [0.5]}, canary_s=[[1.0], [1.0]]))
    assert "\n" not in str(e.value)
    assert file.stat().st_size == room, "a part of the line is there"
    again = Log(file, device=DEVICE)
    assert again.done(2) == {("a", 0)}
    assert file.read_text().endswith("}\n")


def test_a_log_that_cannot_be_begun(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        Log(tmp_path / "absent" / "log.jsonl", device=DEVICE)


@pytest.mark.skipif(os.getuid() == 0, reason="root writes whatever the permissions")
def test_a_log_that_is_read_only(file: Path) -> None:
    Log(file, device=DEVICE).add(TIMED)
    file.chmod(0o444)
    with pytest.raises(InputError, match="cannot be written"):
        Log(file, device=DEVICE).add(TIMED)


@pytest.mark.parametrize("noise", ["Segmentation fault", "{}", "[1]", '{"id": "a", "visit": 0}'])
def test_what_is_no_measurement_stays_out_of_the_log(file: Path, noise: str) -> None:
    log = Log(file, device=DEVICE)
    with pytest.raises(InputError, match="the measuring program printed what is no measurement"):
        log.add(noise)
    Log(file, device=DEVICE).add(TIMED)


def visit(
    job: str, at: float, times_s: Sequence[float], canary_s: Sequence[float] = (1.0, 1.0), part: str = "run"
) -> Visit:
    return Visit(id=job, visit=0, threads=1, at=at, times_s={part: times_s}, canary_s=tuple(canary_s))


FAR = 2 * CANARY_NEIGHBOURS_S
"""Seconds between visits that do not tell about each other."""


def test_a_machine_that_slows_down_changes_nothing() -> None:
    """Half as fast in the second visit of each job: the canary tells, and the times are as in the first."""
    slow = [visit("a", 2 * FAR, [0.2, 0.24], (2.0, 2.0)), visit("b", 3 * FAR, [0.6], (2.0, 2.0))]
    usual = [visit("a", 0, [0.1, 0.12]), visit("b", FAR, [0.3]), *(visit("c", n * FAR, [1.0]) for n in range(4, 9))]
    timings = Timings(visits=(*usual, *slow))
    assert [timings.slowness(slow_row) for slow_row in slow] == [2.0, 2.0]
    assert timings.of("a").median_ms == pytest.approx(110)
    assert timings.of("a").min_ms == pytest.approx(100)
    assert timings.of("a").mean_ms == pytest.approx(110)
    assert timings.of("b").std_ms == pytest.approx(0, abs=1e-9)


def test_slowness_by_hand() -> None:
    """Over two loads: the mean of (median of the neighbours) / (median of all)."""
    canaries = [(1.0, 4.0), (1.2, 4.4), (1.1, 4.0), (3.0, 4.2), (1.0, 8.0)]
    at = [0.0, 2.0, 4.0, 4.0 + CANARY_NEIGHBOURS_S, 100.0]
    visits = [visit("a", when, [1.0], canary) for when, canary in zip(at, canaries, strict=True)]
    timings = Timings(visits=tuple(visits))
    usual = (median(c[0] for c in canaries), median(c[1] for c in canaries))
    for index, neighbours in ((0, (0, 1, 2)), (2, (0, 1, 2, 3)), (3, (2, 3)), (4, (4,))):
        near = [median(canaries[n][load] for n in neighbours) for load in (0, 1)]
        by_hand = (near[0] / usual[0] + near[1] / usual[1]) / 2
        assert timings.slowness(visits[index]) == pytest.approx(by_hand)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.floats(0.2, 5))
def test_a_machine_of_another_speed_throughout_is_what_it_is(canaries: list[float], factor: float) -> None:
    """The usual speed is the machine's own: only changes during the run count."""
    slow = [visit("a", n * FAR, [factor * load], [factor * load] * 2) for n, load in enumerate(canaries)]
    usual = [visit("a", n * FAR, [load], [load] * 2) for n, load in enumerate(canaries)]
    found, expected = Timings(visits=tuple(slow)).of("a"), Timings(visits=tuple(usual)).of("a")
    assert found.median_ms == pytest.approx(factor * expected.median_ms)


def test_the_spread_ignores_a_few_disturbed_runs_and_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(0)
    runs = 0.1 + 0.005 * rng.standard_normal(4000)
    disturbed = np.concatenate([runs, np.full(100, 3.0)])
    for values in (runs, disturbed):
        timing = Timings(visits=(visit("a", 0, values.tolist()),)).of("a")
        assert timing.std_ms == pytest.approx(5, rel=0.06)
        assert timing.median_ms == pytest.approx(100, rel=0.01)
        assert timing.repeats == len(values)


def test_the_median_is_that_of_the_visits() -> None:
    """One disturbed visit of many runs does not outvote two that were not."""
    visits = [visit("a", 0, [1.0, 1.1, 1.2]), visit("a", FAR, [1.0]), visit("a", 2 * FAR, [7.0] * 9)]
    timing = Timings(visits=tuple(visits)).of("a")
    assert timing.median_ms == pytest.approx(1100)
    assert timing.repeats == 13


def test_parts_of_whole_artifacts() -> None:
    both = Visit(id="w", visit=0, threads=1, at=0, times_s={"encoder": [0.5], "token": [0.01]}, canary_s=(1.0,))
    timings = Timings(visits=(both,))
    assert (timings.of("w", "encoder").median_ms, timings.of("w", "token").median_ms) == (500, 10)
    assert timings.of("absent") is None
