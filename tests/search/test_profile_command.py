"""`whisperfit profile` from end to end on this machine, on a model and a plan that take seconds."""

import json
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from compression.recipe.recipe import Recipe
from devices.operation import Operation
from devices.profile import load_profile
from devices.profiler.local import Local
from devices.profiler.machine import Core, Machine, System
from evaluators.costs.price import price
from search.cli import main
from tests.compression.export.models import COMPACT

SMALL = replace(COMPACT, n_audio_state=128, n_audio_head=2, n_text_state=128, n_text_head=2, n_text_layer=2)
"""Heads of 64, as every Whisper's."""


def this_machine(_: object = None) -> Machine:
    """Its cores under a made-up name: two seconds of inspection are tested elsewhere."""
    cores = tuple(
        Core(
            cpu=cpu,
            usable=True,
            model="Test CPU",
            implementer=None,
            part=None,
            siblings=(cpu,),
            capacity=None,
            max_khz=None,
            limit_khz=None,
            busy_khz=None,
            cpuinfo_mhz=2300.0,
            governor=None,
        )
        for cpu in sorted(os.sched_getaffinity(0))
    )
    return Machine(
        system=System(os="Test OS", kernel="6", machine="x86_64", board=None, python="3.11"),
        cores=cores,
        isa=("avx2", "avx512_vnni"),
        caches=(),
        ram_total_mb=8000.0,
        ram_available_mb=6000.0,
        load_averages=(0.1, 0.1, 0.1),
        running_processes=1,
        busy_fraction=0.01,
        steal_fraction=0.0,
        busiest={},
        temperatures_c={},
        throttled=None,
        virtual=True,
        on_battery=None,
        battery_percent=None,
        package_watts=None,
    )


class Counting(Local):
    """This machine; counts the lines that were measured, and does something before one of them."""

    def __init__(self, *, at: int | None = None, then: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.lines = 0
        self._at, self._then = at, then

    def stream(self, arguments: Sequence[str], *, stdin: IO[bytes] | None = None) -> Iterator[str]:
        for line in super().stream(arguments, stdin=stdin):
            if self.lines == self._at:
                self._then()
            self.lines += 1
            yield line


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Callable[[Local], None]:
    """Whatever the host: the given connection; a plan of seconds."""
    constants = {
        "devices.profiler.measuring": {"OPERATION_VISITS": 1, "WHOLE_VISITS": 2, "WARM_UPS": 1, "REPEATS": 3},
        "evaluators.profiling.pool": {"WORKLOADS": 60, "FIRST_OPERATIONS": 2},
        "evaluators.profiling.check": {"CHECKS": 1},
        "evaluators.profiling.operation_models": {"STREAMED_BYTES": 1e6, "RUN_MACS": 4e6, "RUN_VALUES": 4e4},
        "evaluators.profiling.table_maker": {
            "STREAMS_MB": (2, 4),
            "CANARY": (Operation(kind="gemm", m=64, k=64, n=64), Operation(kind="gemv", k=128, n=512)),
        },
    }
    for module, values in constants.items():
        for name, value in values.items():
            monkeypatch.setattr(f"{module}.{name}", value)
    monkeypatch.setattr("search.commands.profile.inspect", this_machine)

    def use(connection: Local) -> None:
        monkeypatch.setattr("search.commands.profile.connect", lambda host: connection)

    return use


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pool", "check"):
        monkeypatch.setattr(f"evaluators.profiling.{module}.published_dimensions", lambda name: SMALL)


def command(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["whisperfit", "profile", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            main()
    return int(exited.value.code or 0)


def options(out: Path) -> tuple[object, ...]:
    return ("--out", out, "--models", "small", "--threads", "1", "--minutes", "0", "--title", "Test board")


def interrupt() -> None:
    raise KeyboardInterrupt


def measurements(log: Path) -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [(line["id"], line["visit"]) for line in lines[1:]]


@pytest.mark.usefixtures("small_model")
def test_from_an_interrupted_run_to_a_profile_that_prices(
    reach: Callable[[Local], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, log = tmp_path / "board.toml", tmp_path / "board.measurements.jsonl"
    reach(Counting(at=30, then=interrupt))
    assert command(*options(out)) == 130
    unwrapped = "".join(capsys.readouterr().err.split())
    assert f"thesamecommandgoesonfrom{log}" in unwrapped
    first = measurements(log)
    assert len(first) == 30
    assert not out.exists()

    board = Counting()
    reach(board)
    assert command(*options(out), "--json") == 0
    made = measurements(log)
    assert made[:30] == first
    assert len(made) == len(set(made)) == 30 + board.lines
    values, written = json.loads(capsys.readouterr().out), out.read_bytes()
    assert values["profile"] == str(out)
    assert values["refused"] == {}
    assert [(comparison["workload"], comparison["part"]) for comparison in values["comparisons"]] == [
        ("small-0", "encoder"),
        ("small-0", "token"),
    ]
    for comparison in values["comparisons"]:
        assert 1 / 4 < comparison["predicted_ms"] / comparison["measured_ms"] < 4
        assert comparison["low_ms"] < comparison["predicted_ms"] < comparison["high_ms"]

    profile = load_profile(str(out))
    assert (profile.title, profile.source, profile.threads) == ("Test board", "measured", 1)
    assert len(profile.table.rows) == values["rows"]
    assert profile.description.facts.interval_factor.value == values["interval_factor"] > 1
    assert profile.description.facts.decoder_interval_factor.value == values["decoder_interval_factor"] > 1
    recipe = replace(Recipe.original(SMALL, stored_bits=16), activation_bits=8, activation_ranges="static")
    for one in (Recipe.original(SMALL, stored_bits=16), recipe):
        costs = price(SMALL, one, profile)
        assert costs.source == "measured"
        assert costs.energy_mj is None
        assert 0 < costs.latency_low_ms < costs.latency_ms < costs.latency_high_ms

    finished = Counting()
    reach(finished)
    assert command(*options(out)) == 0
    assert finished.lines == 0, "all is in the log"
    assert out.read_bytes() == written


@pytest.mark.usefixtures("small_model")
def test_a_full_disk_is_one_line(
    reach: Callable[[Local], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("evaluators.profiling.pool.WORKLOADS", 3)
    log = tmp_path / "board.measurements.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 30, before[1]))

    reach(Counting(at=3, then=fill))
    try:
        code = command(*options(tmp_path / "board.toml"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"whisperfit: {log} cannot be written (")
    assert log.read_bytes()[-1:] != b"\n", "a part of a line"
    again = Counting(at=1, then=interrupt)
    reach(again)
    assert command(*options(tmp_path / "board.toml")) == 130
    assert len(measurements(log)) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "board.csv"), "--out board.csv: a profile's name ends in .toml"),
        (("--out", "absent/board.toml"), "--out absent/board.toml: the folder absent does not exist"),
        (("--core-set", "a53"), "--core-set a53: the device has x86"),
        (("--threads", "abc"), "--threads abc: numbers with commas between them are needed, such as 1,2,4"),
        (("--threads", ""), "--threads : numbers with commas between them are needed, such as 1,2,4"),
        (("--threads", "0"), "--threads 0: x86 has"),
        (("--threads", "1,4096"), "--threads 1,4096: x86 has"),
        (("--models", "tiny.fr"), "unknown model 'tiny.fr'. Did you mean 'tiny'? Known: base, base.en"),
        (("--models", ""), "unknown model ''"),
    ],
)
def test_what_cannot_be_done_is_one_line(  # noqa: PLR0917 - one per fixture
    arguments: tuple[str, ...],
    message: str,
    reach: Callable[[Local], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    reach(Counting(at=0, then=interrupt))
    assert command("--out", "board.toml", *arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"whisperfit: {message}")


def test_an_unknown_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--out", tmp_path / "board.toml", "--host", "serial:1") == 2
    assert capsys.readouterr().err.startswith("whisperfit: unknown host 'serial:1'; there is local, ssh://")
