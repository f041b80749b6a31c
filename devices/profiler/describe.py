"""A measured profile as files: what was found of the machine, and the table of its latencies."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from common.errors import InputError
from common.files import write_text_whole
from devices.facts import CoreSet as CoreSetFacts
from devices.facts import DeviceDescription, DeviceFacts, Execution, Fact, RuntimeSupport
from devices.profiler.machine import CoreSet, Machine
from devices.table import TableRow, format_table

APP_SHARE_OF_RAM = 0.75
"""Left to an application where the machine does not tell what is available."""


@dataclass(frozen=True, kw_only=True)
class GraphCheck:
    """What whole artifacts told about one graph.

    `factor`: what it takes over the sum of its operations when each runs by itself. `interval_factor`: as in
    `DeviceFacts`.
    """

    factor: float = 1.0
    interval_factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """What so many whole artifacts told about a table."""

    encoder: GraphCheck = GraphCheck()
    decoder: GraphCheck = GraphCheck()
    artifacts: int = 0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a profile run knows."""

    title: str
    note: str
    machine: Machine
    core_set: CoreSet
    threads: int
    runtime: RuntimeSupport
    check: Check


def describe(measured: Measured) -> DeviceDescription:
    """The facts of a measured profile. Power is left out: no machine tells what its board draws."""
    machine = measured.machine
    if machine.ram_total_mb is None:
        raise InputError("the machine does not tell its memory: it is needed for the profile's limit")
    read = "read from the machine by `whisperfit profile`"
    available = machine.ram_available_mb or APP_SHARE_OF_RAM * machine.ram_total_mb
    check = measured.check
    median = f"median over {check.artifacts} whole artifacts of what they took over the sum of their operations"
    errors = f"from the errors of {check.artifacts} whole artifacts"
    is_told = machine.ram_available_mb is not None
    return DeviceDescription(
        format_version=2,
        title=measured.title,
        source="measured",
        note=measured.note,
        runtime=measured.runtime,
        execution=Execution(
            core_set=measured.core_set.name,
            threads=_measured(measured.threads, "threads", "the fastest number on whole artifacts"),
        ),
        core_sets={cores.name: _core_set(cores, read) for cores in machine.core_sets()},
        facts=DeviceFacts(
            ram_mb=_measured(round(machine.ram_total_mb), "MB", read),
            ram_available_mb=Fact(
                value=round(available),
                unit="MB",
                kind="measured" if is_told else "estimated",
                source=f"available while profiling, {read}" if is_told else f"{APP_SHARE_OF_RAM:.0%} of its memory",
            ),
            encoder_factor=_measured(round(check.encoder.factor, 4), "factor", median),
            decoder_factor=_measured(round(check.decoder.factor, 4), "factor", median),
            interval_factor=_measured(round(check.encoder.interval_factor, 4), "factor", errors),
            decoder_interval_factor=_measured(round(check.decoder.interval_factor, 4), "factor", errors),
        ),
    )


def _measured(value: float, unit: str, source: str) -> Fact:
    return Fact(value=value, unit=unit, kind="measured", source=source)


def _core_set(cores: CoreSet, read: str) -> CoreSetFacts:
    return CoreSetFacts(
        core=cores.core,
        count=_measured(cores.physical_cores, "cores", read),
        clock_mhz=None if cores.max_mhz is None else _measured(round(cores.max_mhz), "MHz", read),
    )


def write_profile(description: DeviceDescription, rows: Sequence[TableRow], path: Path) -> None:
    """Write the TOML `path` and, beside it, the CSV of latencies; each file is whole or not there.

    Raises InputError when they cannot be written.
    """
    values = description.model_dump(mode="json", exclude_none=True)
    try:
        write_text_whole(path.with_suffix(".csv"), format_table(rows))
        write_text_whole(path, tomli_w.dumps(values))
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): mend that, then the same command writes it without measuring"
        ) from error
