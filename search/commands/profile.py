"""`whisperfit profile`: a device measured into a profile of its own."""

import json
import sys
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from common.errors import INTERRUPTED_EXIT, InputError
from devices.profiler.connection import connect
from devices.profiler.describe import write_profile
from devices.profiler.machine import CoreSet, Machine, inspect
from devices.profiler.measuring import Log
from evaluators.profiling.check import Comparison
from evaluators.profiling.run import Device, ProfileOutcome, ProfilePlan, profile_device

SHOWN_EVERY = 25
"""Visits between two lines of progress."""


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """The command's options; `core_set` None: the fastest; `threads` None: 1, 2, 4, ... up to its cores."""

    host: str
    out: Path
    models: str
    core_set: str | None
    threads: str | None
    minutes: float
    title: str | None


def run_profile(options: ProfileOptions, *, as_json: bool) -> None:
    """Measure, write OUT.toml and OUT.csv, and show predicted against measured."""
    if options.out.suffix != ".toml":
        raise InputError(f"--out {options.out}: a profile's name ends in .toml")
    if not options.out.parent.is_dir():
        raise InputError(f"--out {options.out}: the folder {options.out.parent} does not exist")
    console = Console(stderr=True)
    with connect(options.host) as connection:
        python = connection.test()
        machine = inspect(connection)
        _show_machine(machine, console)
        core_set = _core_set(machine, options.core_set)
        plan = ProfilePlan(
            models=tuple(options.models.split(",")),
            core_set=core_set,
            threads=_threads(options.threads, core_set, machine.quota_cores),
            minutes=options.minutes,
            title=options.title or _title(machine, core_set),
        )
        log_file = options.out.with_suffix(".measurements.jsonl")
        log = Log(log_file, device=f"{core_set.core}, onnxruntime {python.onnxruntime_version}")
        device = Device(connection=connection, python=python, machine=machine)
        try:
            outcome = profile_device(device, plan, log, _Progress(console).say)
        except KeyboardInterrupt:
            console.print(f"Interrupted; the same command goes on from {log_file}")
            sys.exit(INTERRUPTED_EXIT)
    write_profile(outcome.description, outcome.rows, options.out)
    _show_outcome(outcome, options.out, console)
    if as_json:
        print(json.dumps(_values(outcome, machine, options.out)))


class _Progress:
    """A line for every stage, and now and then one for the visits."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._visits = 0

    def say(self, text: str) -> None:
        if " " in text:
            self._console.print(text, highlight=False)
            return
        self._visits += 1
        if self._visits % SHOWN_EVERY == 0:
            self._console.print(f"{self._visits} visits, now {text}", highlight=False)


def _core_set(machine: Machine, name: str | None) -> CoreSet:
    sets = machine.core_sets()
    if not sets:
        raise InputError("the device names no core that programs may use")
    if name is None:
        return sets[0]
    for core_set in sets:
        if core_set.name == name:
            return core_set
    raise InputError(f"--core-set {name}: the device has {', '.join(core_set.name for core_set in sets)}")


def _threads(given: str | None, core_set: CoreSet, quota_cores: float | None) -> tuple[int, ...]:
    """Powers of two and all cores, of those that a container's quota is worth, unless the user names numbers."""
    most = core_set.physical_cores
    if given is None:
        most = most if quota_cores is None else max(1, min(most, ceil(quota_cores)))
        return tuple(sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most}))
    try:
        threads = tuple(int(part) for part in given.split(","))
    except ValueError:
        raise InputError(f"--threads {given}: numbers with commas between them are needed, such as 1,2,4") from None
    if not all(1 <= number <= most for number in threads):
        raise InputError(f"--threads {given}: {core_set.name} has {most} cores")
    return threads


def _title(machine: Machine, core_set: CoreSet) -> str:
    return machine.system.board or core_set.core


def _show_machine(machine: Machine, console: Console) -> None:
    for core_set in machine.core_sets():
        clock = "an unknown clock" if core_set.max_mhz is None else f"{core_set.max_mhz:.0f} MHz"
        console.print(f"{core_set.name}: {core_set.physical_cores} x {core_set.core} at {clock}", highlight=False)
    ram = "unknown" if machine.ram_total_mb is None else f"{machine.ram_total_mb:.0f} MB"
    console.print(f"memory {ram}; instruction sets {', '.join(machine.isa) or 'unknown'}", highlight=False)
    for finding in machine.findings():
        console.print(f"{finding.severity}: {finding.text}", highlight=False, markup=False)


def _show_outcome(outcome: ProfileOutcome, out: Path, console: Console) -> None:
    table = Table(title="whole artifacts, never used in fitting")
    for column in ("workload", "graph", "predicted ms", "90 % interval", "measured ms", "error"):
        table.add_column(column, justify="left" if column in ("workload", "graph") else "right")
    for comparison in outcome.comparisons:
        interval = f"{comparison.predicted.low_ms:.2f} to {comparison.predicted.high_ms:.2f}"
        error = comparison.predicted.ms / comparison.measured_ms - 1
        predicted, measured = f"{comparison.predicted.ms:.2f}", f"{comparison.measured_ms:.2f}"
        table.add_row(comparison.workload, comparison.part, predicted, interval, measured, f"{error:+.1%}")
    console.print(table)
    for name, reason in outcome.refused.items():
        console.print(f"not measured: {name}: {reason}", highlight=False, markup=False)
    console.print(f"{out} and {out.with_suffix('.csv')}: {len(outcome.rows)} rows; use it with --device {out}")


def _values(outcome: ProfileOutcome, machine: Machine, out: Path) -> dict[str, object]:
    facts = outcome.description.facts
    return {
        "profile": str(out),
        "rows": len(outcome.rows),
        "findings": [asdict(finding) for finding in machine.findings()],
        "interval_factor": facts.interval_factor.value,
        "decoder_interval_factor": facts.decoder_interval_factor and facts.decoder_interval_factor.value,
        "threads": outcome.description.threads,
        "comparisons": [_comparison(comparison) for comparison in outcome.comparisons],
        "refused": outcome.refused,
    }


def _comparison(comparison: Comparison) -> dict[str, object]:
    predicted = comparison.predicted
    return {
        "workload": comparison.workload,
        "part": comparison.part,
        "predicted_ms": predicted.ms,
        "low_ms": predicted.low_ms,
        "high_ms": predicted.high_ms,
        "measured_ms": comparison.measured_ms,
    }
