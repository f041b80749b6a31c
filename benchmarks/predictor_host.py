"""A measured profile's predictions against whole artifacts on the same machine.

    whisperfit profile --host local --out host.toml
    python benchmarks/predictor_host.py --profile host.toml --log host-wholes.jsonl [--json] [--plot FILE.svg]

Random recipes of tiny.en and base, other ones than those that the profile was made and checked with, are exported and
run whole: the encoder, and steps of the decoder with the choice of the token. FLOPs alone are given the constants that
fit these very measurements best.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.prediction import Array, Score, score
from benchmarks.scatter import Group, Panel, scatter_svg
from common.errors import WhisperfitError
from common.files import write_text_whole
from compression.models import load_model
from devices.fitting import fit_rates
from devices.profile import DeviceProfile, load_profile
from devices.profiler.connection import connect
from devices.profiler.machine import inspect
from devices.profiler.measuring import Log, Timings, measure
from evaluators.costs import price
from evaluators.profiling.pool import items_of
from evaluators.profiling.random_workloads import Workload, random_workloads
from evaluators.profiling.run import Device
from evaluators.profiling.workload_artifacts import noise_calibration, workload_job

SEED = 2
"""Not the profile's (0 and 1)."""
PARTS = {"encoder": "encoder", "token": "decoder"}
"""What is timed, and the graph whose operations it is."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One part of one workload. `flops`: of the encoder, or of a step on average."""

    workload: str
    part: str
    recipe: str
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float
    flops: float


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """`coverage`: share of measurements within the stated 90 % interval. `flops`: time = rate x FLOPs;
    `flops_affine`: plus a constant; both fitted to these measurements."""

    part: str
    points: int
    table: Score
    median_factor: float
    coverage: float
    flops: Score
    flops_affine: Score


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        profile = load_profile(options.profile)
        workloads = held_out(options.models.split(","), profile, options.recipes)
        timings = time_wholes(workloads, profile, options.log)
        points = compared(workloads, profile, timings)
        if options.plot:
            write_text_whole(options.plot, plot(points))
    except WhisperfitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    reports = [report(part, [point for point in points if point.part == part]) for part in PARTS]
    if options.json:
        facts = {"profile": profile.title, "digest": profile.digest, "threads": profile.threads, "seed": SEED}
        values = {"parts": [asdict(one) for one in reports], "points": [asdict(point) for point in points]}
        print(json.dumps(facts | values, indent=1))
    else:
        print("\n".join(lines(reports)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", required=True, help="made on this machine by `whisperfit profile`")
    parser.add_argument("--log", type=Path, required=True, help="measurements; a later run goes on from it")
    parser.add_argument("--models", default="tiny.en,base")
    parser.add_argument("--recipes", type=int, default=30, help="of each model")
    parser.add_argument("--plot", type=Path, help="write predicted against measured to this SVG")
    parser.add_argument("--json", action="store_true", help="all figures and points as JSON")
    return parser


def held_out(models: Sequence[str], profile: DeviceProfile, count: int) -> dict[str, tuple[str, Workload]]:
    """By name: the model and the workload."""
    return {
        f"{name}-{number}": (name, workload)
        for name in models
        for number, workload in enumerate(
            islice(random_workloads(load_model(name).dimensions, profile.runtime, seed=SEED), count)
        )
    }


def time_wholes(workloads: dict[str, tuple[str, Workload]], profile: DeviceProfile, path: Path) -> Timings:
    """Export what the log lacks and time it with the profile's threads on the profile's cores."""
    with connect("local") as connection, TemporaryDirectory() as folder:
        device = Device(connection=connection, python=connection.test(), machine=inspect(connection))
        (core_set,) = (one for one in device.machine.core_sets() if one.name == profile.description.execution.core_set)
        log = Log(path, device=f"{profile.digest[:12]} on {core_set.core}")
        bench = device.bench(core_set, profile.threads, log, print)
        models = {name: load_model(name) for name in sorted({name for name, _ in workloads.values()})}
        calibrations = {name: noise_calibration(model) for name, model in models.items()}
        jobs = [
            workload_job(job, workload, models[name], calibrations[name], Path(folder) / job)
            for job, (name, workload) in workloads.items()
        ]
        for number, job in enumerate(measure(connection, jobs, bench.settings, log)):
            if number % 30 == 0:
                print(f"{number} visits, now {job}", file=sys.stderr)
        return bench.timings()


def compared(workloads: dict[str, tuple[str, Workload]], profile: DeviceProfile, timings: Timings) -> list[Point]:
    points = []
    for name, (_, w) in workloads.items():
        costs = price(w.dimensions, w.recipe, profile, audio_s=w.audio_s, tokens=w.tokens)
        for part, predicted in (("encoder", costs.encoder), ("token", costs.token)):
            timing = timings.of(name, part)
            if timing is None:
                raise WhisperfitError(f"{name} was not timed")
            points.append(
                Point(
                    workload=name,
                    part=part,
                    recipe=w.recipe.summary(),
                    predicted_ms=predicted.ms,
                    low_ms=predicted.low_ms,
                    high_ms=predicted.high_ms,
                    measured_ms=timing.median_ms,
                    flops=flops(w, part),
                )
            )
    return points


def flops(workload: Workload, part: str) -> float:
    items = [item for item in items_of(workload) if item.stage == PARTS[part]]
    steps = max(item.count for item in items) if part == "token" else 1
    return sum(item.flops for item in items) / steps


def report(part: str, points: Sequence[Point]) -> PartReport:
    measured = np.array([point.measured_ms for point in points])
    predicted = np.array([point.predicted_ms for point in points])
    counts = np.array([point.flops for point in points])
    inside = [point.low_ms <= point.measured_ms <= point.high_ms for point in points]
    return PartReport(
        part=part,
        points=len(points),
        table=score(predicted, measured),
        median_factor=float(np.median(predicted / measured)),
        coverage=float(np.mean(inside)),
        flops=score(_best(counts[:, None], measured), measured),
        flops_affine=score(_best(np.column_stack([counts, np.ones_like(counts)]), measured), measured),
    )


def _best(work: Array, measured: Array) -> Array:
    """What these measurements themselves would have predicted."""
    return np.asarray(work @ fit_rates(work, measured))


def plot(points: Sequence[Point]) -> str:
    """Predicted against measured, encoder and token."""
    return scatter_svg([_panel(part, [point for point in points if point.part == part]) for part in PARTS])


def _panel(part: str, points: Sequence[Point]) -> Panel:
    def group(model: str, colour: str) -> Group:
        chosen = [point for point in points if point.workload.startswith(model)]
        return Group(
            label=model,
            colour=colour,
            opacity=0.8,
            measured_ms=np.array([point.measured_ms for point in chosen]),
            predicted_ms=np.array([point.predicted_ms for point in chosen]),
        )

    models = sorted({point.workload.rsplit("-", 1)[0] for point in points})
    colours = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
    return Panel(title=part, groups=tuple(group(model, colours[i % 4]) for i, model in enumerate(models)))


def lines(reports: Sequence[PartReport]) -> list[str]:
    head = f"{'part':8} {'predictor':20} {'within 10 %':>11} {'MAPE':>7} {'median':>7} {'Spearman':>8} {'coverage':>8}"
    found = [head]
    for one in reports:
        rows = {"table": one.table, "FLOPs": one.flops, "FLOPs and a constant": one.flops_affine}
        for name, scored in rows.items():
            coverage = f"{one.coverage:8.1%}" if name == "table" else ""
            found.append(
                f"{one.part:8} {name:20} {scored.within_10_percent:11.1%} {scored.mape:7.1%} "
                f"{scored.median_ape:7.1%} {scored.spearman or 0:8.3f} {coverage}"
            )
    return found


if __name__ == "__main__":
    sys.exit(main())
