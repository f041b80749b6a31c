"""Measured profiles as files, read back by what a search reads them with."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from common.errors import InputError
from devices.facts import DeviceDescription, RuntimeSupport
from devices.operation import Operation
from devices.profile import load_description, load_profile
from devices.profiler.describe import Check, GraphCheck, Measured, describe, write_profile
from devices.profiler.machine import Core, Machine, System
from devices.table import TableRow, parse_table

RUNTIME: RuntimeSupport = load_description("rpi4").runtime


def machine(**changes: object) -> Machine:
    """Two Cortex-A72 beside four Cortex-A53, as on an RK3399."""
    clocks = {0xD03: 1_512_000, 0xD08: 2_016_000}
    cores = tuple(
        Core(
            cpu=cpu,
            usable=True,
            model=None,
            implementer=0x41,
            part=part,
            siblings=(cpu,),
            capacity=None,
            max_khz=clocks[part],
            limit_khz=clocks[part],
            busy_khz=None,
            cpuinfo_mhz=None,
            governor="performance",
        )
        for cpu, part in enumerate([0xD03] * 4 + [0xD08] * 2)
    )
    values = {
        "system": System(os="Debian", kernel="6.1", machine="aarch64", board="NanoPC-T4", python="3.11.2"),
        "cores": cores,
        "isa": ("asimd",),
        "caches": (),
        "ram_total_mb": 3884.4,
        "ram_available_mb": 3500.2,
        "load_averages": None,
        "running_processes": None,
        "busy_fraction": None,
        "steal_fraction": None,
        "busiest": None,
        "temperatures_c": {},
        "throttled": None,
        "virtual": False,
        "on_battery": None,
        "battery_percent": None,
        "package_watts": None,
    }
    return Machine(**values | changes)


def measured(found: Machine, *, threads: int = 2) -> Measured:
    return Measured(
        title="NanoPC-T4",
        note="Measured by a test.",
        machine=found,
        core_set=found.core_sets()[0],
        threads=threads,
        runtime=RUNTIME,
        check=Check(
            encoder=GraphCheck(factor=0.98765, interval_factor=1.07654),
            decoder=GraphCheck(factor=1.04321, interval_factor=1.16543),
            artifacts=12,
        ),
    )


def rows(description: DeviceDescription) -> tuple[TableRow, ...]:
    """A Raspberry Pi's modelled rows, as if they had been timed here."""
    text = (files("devices.profiles") / "rpi4.csv").read_text(encoding="utf-8")
    return tuple(
        replace(
            row,
            threads=description.threads,
            core_set=description.execution.core_set,
            repeats=32,
            mean_ms=1.02 * row.median_ms,
            std_ms=0.01 * row.median_ms,
            min_ms=0.99 * row.median_ms,
            source="profile",
        )
        for row in parse_table(text, file=Path("rpi4.csv")).rows
    )


def test_facts_are_what_was_found() -> None:
    description = describe(measured(machine()))
    assert (description.title, description.source) == ("NanoPC-T4", "measured")
    assert description.cores == 6
    assert description.execution.core_set == "a72"
    assert description.threads == 2
    assert description.cores_summary == "2 x Cortex-A72 @ 2.02 GHz + 4 x Cortex-A53 @ 1.51 GHz"
    facts = {named.name: named.fact for named in description.named_facts()}
    assert facts["facts.ram_mb"].value == 3884
    assert facts["facts.ram_available_mb"].value == 3500
    assert facts["facts.interval_factor"].value == 1.0765
    assert facts["facts.decoder_interval_factor"].value == 1.1654
    assert facts["facts.interval_factor"].source == "from the errors of 12 whole artifacts"
    assert (facts["facts.encoder_factor"].value, facts["facts.decoder_factor"].value) == (0.9877, 1.0432)
    assert {fact.kind for fact in facts.values()} == {"measured"}
    assert not any("power" in name for name in facts), "no machine tells what its board draws"


def test_memory_that_is_not_told() -> None:
    fact = describe(measured(machine(ram_available_mb=None))).facts.ram_available_mb
    assert (fact.value, fact.kind) == (round(0.75 * 3884.4), "estimated")
    with pytest.raises(InputError, match="does not tell its memory"):
        describe(measured(machine(ram_total_mb=None)))


def test_a_clock_that_is_not_told() -> None:
    silent = machine(cores=tuple(replace(core, max_khz=None) for core in machine().cores))
    description = describe(measured(silent, threads=1))
    assert all(cores.clock_mhz is None for cores in description.core_sets.values())
    assert "GHz" not in description.cores_summary


@pytest.fixture
def description() -> DeviceDescription:
    return describe(measured(machine()))


def test_files_are_a_measured_profile(description: DeviceDescription, tmp_path: Path) -> None:
    path, table = tmp_path / "board.toml", rows(description)
    write_profile(description, table, path)
    profile = load_profile(str(path))
    assert profile.description == description
    assert profile.source == "measured"
    assert profile.active_power_w is None
    assert [row.operation for row in profile.table.rows] == [row.operation for row in table]
    operation = Operation(kind="gemm", m=1500, k=384, n=1536)
    (measured_row,) = (row for row in table if row.operation == operation)
    # the process smooths rows that are a little noisy
    assert profile.latency(operation).ms == pytest.approx(measured_row.median_ms, rel=0.03)


def test_files_that_cannot_be_written(description: DeviceDescription, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"board.toml cannot be written \(No such file or directory\)") as caught:
        write_profile(description, rows(description), tmp_path / "absent" / "board.toml")
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_profile(
    description: DeviceDescription, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "board.toml"
    write_profile(description, rows(description), path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_profile(description.model_copy(update={"title": "Other"}), rows(description), path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["board.csv", "board.toml"]
