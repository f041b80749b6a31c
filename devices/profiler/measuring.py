"""Runs the measuring program on a device, keeps every line it prints, and reduces them to times of operations."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any

from common.errors import InputError
from common.files import sha256_of_text
from devices.profiler.base import Connection

PROGRAM = Path(__file__).parent / "board" / "measure.py"
OPERATION_VISITS = 8
WHOLE_VISITS = 8
"""A visit loads a model anew: where it lies in memory moves its times by some ten percent."""
WARM_UPS = 10
REPEATS = 40
"""Timed runs of an operation, all visits together."""
CANARY_NEIGHBOURS_S = 5.0
"""The machine's speed at a visit is the canary's median over all visits this close to it."""

_EVERY_LINE = frozenset({"id", "visit", "threads", "at"})
_TIMES = frozenset({"times_s", "canary_s"})
_ERROR = frozenset({"error"})


@dataclass(frozen=True, kw_only=True)
class Feed:
    """A tensor to feed, of any values; `type` is numpy's name."""

    name: str
    shape: tuple[int, ...]
    type: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Models to time. `files`: their bytes by name; `entry`: the job's own keys of the plan (see board/measure.py)."""

    id: str
    files: Mapping[str, bytes | Path] = field(repr=False)
    entry: Mapping[str, Any]
    visits: int


def operation_job(name: str, model: bytes, feeds: Sequence[Feed]) -> Job:
    """One model, run as a whole."""
    file = f"{name}.onnx"
    entry = {"model": file, "inputs": [asdict(feed) for feed in feeds]}
    return Job(id=name, files={file: model}, entry=entry, visits=OPERATION_VISITS)


def artifact_job(name: str, artifact: Path, *, mel: tuple[int, int, int], steps: int, token: int) -> Job:
    """An artifact's encoder on a spectrogram of the shape `mel`, then so many steps of its decoder."""
    files = {f"{name}/{path.name}": path for path in artifact.glob("*.onnx*")}
    entry: dict[str, Any] = {"encoder": f"{name}/encoder.onnx", "decoder": f"{name}/decoder.onnx"}
    entry |= {"mel": mel, "steps": steps, "token": token}
    return Job(id=name, files=files, entry=entry, visits=WHOLE_VISITS)


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions:
    """How a run of the measuring program works: threads pinned to `cpus` (None: wherever), the runtime's options."""

    threads: int
    cpus: tuple[int, ...] | None
    session: Mapping[str, str]
    canary: tuple[Job, ...]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One line of the measuring program: what was timed, in seconds; `canary_s` by load."""

    id: str
    visit: int
    threads: int
    at: float
    times_s: Mapping[str, Sequence[float]]
    canary_s: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Times of one job at the machine's usual speed, in milliseconds. `std_ms`: of a run."""

    median_ms: float
    mean_ms: float
    std_ms: float
    min_ms: float
    repeats: int


class Log:
    """Every line that the measuring program printed, in a file that only grows. Its first line says where.

    A process that is killed, or a full disk, may leave a part of a last line: it is dropped, and measured again.
    """

    def __init__(self, path: Path, *, device: str) -> None:
        """Begin the log, or go on with it. Raises InputError when it is of another device or is damaged."""
        self._path = path
        self._lines: list[dict[str, Any]] = []
        heading = json.dumps({"device": device})
        text = self._text()
        whole = text[: text.rfind("\n") + 1]
        is_begun = not heading.startswith(text)
        if is_begun:
            self._lines = self._parsed(whole, device)
        if text != whole:
            self._cut(len(whole.encode()))
        if not is_begun:
            self._append(heading)

    def _text(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise self._damaged(error) from error

    def _parsed(self, whole: str, device: str) -> list[dict[str, Any]]:
        heading, *lines = whole.splitlines() or [""]
        try:
            measured = json.loads(heading)["device"]
            parsed = [_parsed_line(line) for line in lines]
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error
        if measured != device:
            raise InputError(
                f"{self._path} was measured on {measured!r}, not on {device!r}: move it away to measure anew"
            )
        return parsed

    def _damaged(self, error: Exception) -> InputError:
        return InputError(f"{self._path} is no log of measurements ({error}): move it away to measure anew")

    def _cut(self, size_bytes: int) -> None:
        try:
            os.truncate(self._path, size_bytes)
        except OSError as error:
            raise self._not_written(error) from error

    def _append(self, line: str) -> None:
        """It is in the file when this returns."""
        try:
            with self._path.open("a", encoding="utf-8") as handle:
                handle.write(f"{line}\n")
        except OSError as error:
            raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> InputError:
        return InputError(
            f"{self._path} cannot be written ({error.strerror}): mend that, then the same command goes on from it"
        )

    def add(self, line: str) -> None:
        """Remember a line; it is in the file when this returns. Raises InputError for one that is no measurement."""
        try:
            parsed = _parsed_line(line)
        except ValueError as error:
            raise InputError(f"the measuring program printed what is no measurement: {line[:200]!r}") from error
        self._append(line)
        self._lines.append(parsed)

    def done(self, threads: int) -> set[tuple[str, int]]:
        """Jobs and visits that need not be made again."""
        return {(line["id"], line["visit"]) for line in self._lines if line["threads"] == threads}

    def errors(self) -> dict[str, str]:
        """By job, why onnxruntime refused it."""
        return {line["id"]: line["error"] for line in self._lines if "error" in line}

    def visits(self, threads: int) -> tuple[Visit, ...]:
        return tuple(
            Visit(
                id=line["id"],
                visit=line["visit"],
                threads=threads,
                at=line["at"],
                times_s=line["times_s"],
                canary_s=tuple(fmean(pair) for pair in zip(*line["canary_s"], strict=True)),
            )
            for line in self._lines
            if line["threads"] == threads and "times_s" in line
        )


def _parsed_line(line: str) -> dict[str, Any]:
    """Raises ValueError unless the line is one that board/measure.py prints."""
    parsed = json.loads(line)
    if not isinstance(parsed, dict):
        raise ValueError(f"{line[:40]!r} is no measurement")  # noqa: TRY004 - as for text that is no JSON
    needed = _EVERY_LINE | (_ERROR if "error" in parsed else _TIMES)
    if not needed <= parsed.keys():
        raise ValueError(f"a measurement without {', '.join(sorted(needed - parsed.keys()))}")
    return parsed


def measure(connection: Connection, jobs: Sequence[Job], settings: MeasuringOptions, log: Log) -> Iterator[str]:
    """Make the visits that the log lacks; yields the job of each.

    Raises InputError when the device is lost: what was measured is in the log.
    """
    done = log.done(settings.threads)
    left = [job for job in jobs if any((job.id, visit) not in done for visit in range(job.visits))]
    if not left:
        return
    remote = f"{connection.folder()}/{sha256_of_text(' '.join(job.id for job in left))[:12]}"
    with tempfile.TemporaryDirectory() as temporary:
        local = Path(temporary) / "jobs"
        _write_jobs(local, left, settings)
        connection.put(local, remote)
        finished = Path(temporary) / "done.jsonl"
        finished.write_text("".join(f"{json.dumps(identity)}\n" for identity in sorted(done)), encoding="utf-8")
        with finished.open("rb") as stdin:
            for line in connection.stream(
                [connection.python, f"{remote}/measure.py", f"{remote}/plan.json"], stdin=stdin
            ):
                log.add(line)
                yield json.loads(line)["id"]
    connection.run(["rm", "-rf", remote])


def _write_jobs(folder: Path, jobs: Sequence[Job], settings: MeasuringOptions) -> None:
    """The measuring program with its plan and its models."""
    folder.mkdir()
    plan = {
        "threads": settings.threads,
        "cpus": settings.cpus,
        "visits": max(job.visits for job in jobs),
        "warm_ups": WARM_UPS,
        "repeats": REPEATS,
        "session": dict(settings.session),
        "canary": [{"id": job.id, **job.entry} for job in settings.canary],
        "jobs": [{"id": job.id, "visits": job.visits, **job.entry} for job in jobs],
    }
    (folder / "measure.py").write_bytes(PROGRAM.read_bytes())
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    for job in (*jobs, *settings.canary):
        for name, content in job.files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())


@dataclass(frozen=True, kw_only=True)
class Timings:
    """The visits of one number of threads, brought to the machine's usual speed.

    A shared machine is faster or slower by some ten percent for seconds or minutes. The canary, two fixed loads that
    are timed with every visit, tells: the usual speed is its median over all visits.
    """

    visits: tuple[Visit, ...]

    @cached_property
    def _usual(self) -> tuple[float, ...]:
        return tuple(median(load) for load in zip(*(visit.canary_s for visit in self.visits), strict=True))

    def slowness(self, visit: Visit) -> float:
        """How much slower than usual the machine was around a visit."""
        near = [other for other in self.visits if abs(other.at - visit.at) <= CANARY_NEIGHBOURS_S]
        loads = [median(load) for load in zip(*(neighbour.canary_s for neighbour in near), strict=True)]
        return fmean(now / usual for now, usual in zip(loads, self._usual, strict=True))

    @cached_property
    def _by_job(self) -> dict[str, list[tuple[Visit, float]]]:
        found: dict[str, list[tuple[Visit, float]]] = {}
        for visit in self.visits:
            found.setdefault(visit.id, []).append((visit, self.slowness(visit)))
        return found

    def of(self, job: str, part: str = "run") -> Timing | None:
        """A job's times: the median of its visits' medians. None when it was never timed."""
        visits = self._by_job.get(job)
        if not visits:
            return None
        runs_ms = [[1000 * run / slowness for run in visit.times_s[part]] for visit, slowness in visits]
        every = [run for visit in runs_ms for run in visit]
        middle = median(median(visit) for visit in runs_ms)
        return Timing(
            median_ms=middle,
            mean_ms=fmean(every),
            std_ms=_robust_std(every, middle),
            min_ms=min(every),
            repeats=len(every),
        )


def _robust_std(values: Iterable[float], middle: float) -> float:
    """1.4826 times the median distance from the middle: a few runs during which something else ran do not count."""
    return 1.4826 * median(abs(value - middle) for value in values)
