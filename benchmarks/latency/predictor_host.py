"""A measured profile's predictions against whole artifacts on the same machine.

    python benchmarks/latency/predictor_host.py --out FOLDER [--threads 1] [--json] [--plot FILE.svg]

Makes the profile that `whisperfit profile` makes, FOLDER/host.toml. Random recipes of tiny.en and base, other ones than
those that the profile is made and checked with, are exported and run whole: the encoder, and steps of the decoder with
the choice of the token. They are visited in turn with the operations, since a shared machine is another one an hour
later. FLOPs alone are given the constants that fit these very measurements best.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from prediction import Array, Score, score
from scatter import Group, Panel, scatter_svg

from common.errors import WhisperfitError
from common.files import write_text_whole
from compression.whisper.load import LoadedModel, load_model
from devices.fitting import fit_rates
from devices.profile import DeviceProfile, load_profile
from devices.profiler.connection import connect
from devices.profiler.describe import write_profile
from devices.profiler.machine import inspect
from devices.profiler.measuring import Job, Log, Timings
from evaluators.costs.price import price
from evaluators.profiling.check import check_workloads, whole_jobs
from evaluators.profiling.pool import Pool, items_of
from evaluators.profiling.random_workloads import Workload, random_workloads
from evaluators.profiling.run import MEASURED_RUNTIME, RUNTIME, Device, ProfilePlan, profile_device
from evaluators.profiling.table_maker import TableMaker
from evaluators.profiling.workload_artifacts import noise_calibration, workload_job

SEED = 5
"""Not the profile's (0 and 1), nor 2 to 4, with which the form of the predictor was chosen."""
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
        options.out.mkdir(parents=True, exist_ok=True)
        models = {name: load_model(name) for name in options.models.split(",")}
        workloads = held_out(models, options.recipes)
        profile, timings = measured(models, workloads, options.threads, options.out)
        points = compared(workloads, profile, timings)
        if options.plot:
            write_text_whole(options.plot, plot(points))
    except WhisperfitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    reports = [report(part, [point for point in points if point.part == part]) for part in PARTS]
    if options.json:
        facts = {"profile": profile.title, "digest": profile.digest, "threads": profile.threads, "seed": SEED}
        values = {"parts": [asdict(report) for report in reports], "points": [asdict(point) for point in points]}
        print(json.dumps(facts | values, indent=1))
    else:
        print("\n".join(lines(reports)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the profile; a later run goes on from it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", default="tiny.en,base")
    parser.add_argument("--recipes", type=int, default=30, help="of each model")
    parser.add_argument("--plot", type=Path, help="write predicted against measured to this SVG")
    parser.add_argument("--json", action="store_true", help="all figures and points as JSON")
    return parser


def held_out(models: Mapping[str, LoadedModel], count: int) -> dict[str, Workload]:
    return {
        f"held-out-{name}-{number}": workload
        for name, model in models.items()
        for number, workload in enumerate(islice(random_workloads(model.dimensions, RUNTIME, seed=SEED), count))
    }


def measured(
    models: Mapping[str, LoadedModel], workloads: dict[str, Workload], threads: int, out: Path
) -> tuple[DeviceProfile, Timings]:
    """The profile, and the times of the workloads, all measured in turn."""
    with connect("local") as connection, TemporaryDirectory() as folder:
        device = Device(connection=connection, python=connection.test(), machine=inspect(connection))
        core_set = device.machine.core_sets()[0]
        plan = ProfilePlan(models=tuple(models), core_set=core_set, threads=(threads,), minutes=0, title="host")
        log = Log(out / "host.measurements.jsonl", device=core_set.core)
        bench = device.bench(core_set, threads, log, progress)
        checks = whole_jobs(check_workloads(plan.models, RUNTIME), Path(folder))
        operations = TableMaker(bench, Pool.of(plan.models, MEASURED_RUNTIME)).first_jobs()
        bench.time([*operations, *checks, *held_out_jobs(models, workloads, Path(folder))])
        outcome = profile_device(device, plan, log, progress)
        write_profile(outcome.description, outcome.rows, out / "host.toml")
        return load_profile(str(out / "host.toml")), bench.timings()


def held_out_jobs(models: Mapping[str, LoadedModel], workloads: dict[str, Workload], folder: Path) -> list[Job]:
    calibrations = {name: noise_calibration(model) for name, model in models.items()}
    jobs = []
    for job, workload in workloads.items():
        name = next(name for name, model in models.items() if model.dimensions == workload.dimensions)
        jobs.append(workload_job(job, workload, models[name], calibrations[name], folder / job))
    return jobs


def progress(text: str) -> None:
    print(text, file=sys.stderr)


def compared(workloads: dict[str, Workload], profile: DeviceProfile, timings: Timings) -> list[Point]:
    points = []
    for name, w in workloads.items():
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
    for report in reports:
        rows = {"table": report.table, "FLOPs": report.flops, "FLOPs and a constant": report.flops_affine}
        for name, scored in rows.items():
            coverage = f"{report.coverage:8.1%}" if name == "table" else ""
            found.append(
                f"{report.part:8} {name:20} {scored.within_10_percent:11.1%} {scored.mape:7.1%} "
                f"{scored.median_ape:7.1%} {scored.spearman or 0:8.3f} {coverage}"
            )
    return found


if __name__ == "__main__":
    sys.exit(main())
