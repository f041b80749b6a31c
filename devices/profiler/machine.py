"""What a device is and in which state it was found: parsed from `board/inspect_machine.py`, and judged.

Thresholds are ours: what moves latencies by more than the few percent that a table is meant to resolve.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from common.errors import InputError
from devices.profiler.base import Connection, last_line

INSPECTOR = Path(__file__).parent / "board" / "inspect_machine.py"
INSPECT_TIMEOUT_S = 120.0
"""Two seconds of sampling and spinning, and a slow board's start of Python."""

MOST_LOAD_PER_CORE = 0.3
MOST_STEAL = 0.02
HOTTEST_C = 75.0
LEAST_AVAILABLE_MB = 500.0
LEAST_CLOCK = 0.8
"""Of the core's highest clock, while it computes."""
SAME_CLOCK = 0.9
"""Cores whose highest clock is at least so much of their fastest equal are one set (x86 favours some by a step)."""
_THROTTLED_NOW = ((1, "under-voltage"), (2, "a capped clock"), (4, "throttling"), (8, "the soft temperature limit"))

_ARM = 0x41
_ARM_CORES = {
    **{0xC07: "A7", 0xC08: "A8", 0xC09: "A9", 0xC0D: "A17", 0xC0E: "A17", 0xC0F: "A15"},
    **{0xD01: "A32", 0xD03: "A53", 0xD04: "A35", 0xD05: "A55", 0xD07: "A57", 0xD08: "A72", 0xD09: "A73"},
    **{0xD0A: "A75", 0xD0B: "A76", 0xD0D: "A77", 0xD0E: "A76AE", 0xD41: "A78", 0xD42: "A78AE", 0xD4B: "A78C"},
    **{0xD44: "X1", 0xD46: "A510", 0xD47: "A710", 0xD48: "X2", 0xD4C: "X1C", 0xD4D: "A715", 0xD4E: "X3"},
    **{0xD80: "A520", 0xD81: "A720", 0xD82: "X4", 0xD85: "X925", 0xD87: "A725", 0xD89: "A720AE"},
}
_NEOVERSE_CORES = {0xD0C: "N1", 0xD40: "V1", 0xD49: "N2", 0xD4A: "E1", 0xD4F: "V2", 0xD84: "V3", 0xD8E: "N3"}
"""Part numbers: torvalds/linux arch/arm64/include/asm/cputype.h; 32-bit cores: util-linux sys-utils/lscpu-arm.c."""
_QUALCOMM = 0x51
_KRYO_CORES = {0x800: 0xD09, 0x801: 0xD03, 0x802: 0xD0A, 0x803: 0xD05, 0x804: 0xD0B, 0x805: 0xD05}
"""Kryo 2xx to 4xx: Arm's designs under Qualcomm's numbers (cputype.h), and which designs, by the vendor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """Names: operating system, kernel release, architecture, board, version of Python."""

    os: str
    kernel: str
    machine: str
    board: str | None
    python: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Core:
    """One core that is online; None is what it does not tell.

    `usable`: this process may run on it. `siblings`: the hardware threads of the same core, itself included.
    `max_khz`: the hardware's highest clock, `limit_khz` the governor's, `busy_khz` the one seen while it computed
    (known for one core of each frequency domain). `cpuinfo_mhz`: what x86 names where it has no cpufreq, mostly the
    nominal clock.
    """

    cpu: int
    usable: bool | None
    model: str | None
    implementer: int | None
    part: int | None
    siblings: tuple[int, ...] | None
    capacity: int | None
    max_khz: int | None
    limit_khz: int | None
    busy_khz: int | None
    cpuinfo_mhz: float | None
    governor: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """One cache and the cores that share it."""

    level: int
    kind: str
    size_kib: int
    cpus: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreSet:
    """Equal cores that this process may use.

    `name` is short, such as `a72`, `core` what people call it. `cpus` names a hardware thread of each core before
    the second of any, so the first n are the best n.
    """

    name: str
    core: str
    cpus: tuple[int, ...]
    physical_cores: int
    max_mhz: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One sentence on the state of a device, with its remedy. Warnings make measurements doubtful."""

    severity: Literal["note", "warning"]
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A device as it was found; None is what it does not tell. StudyStore in 10^6 bytes.

    `busy_fraction`, `steal_fraction`: of all cores' time during a second without our work. `busiest`: processes in
    that second, with their share of one core. `throttled`: the Raspberry Pi's word. `package_watts`: the processor's
    power in that second. `quota_cores`: what a container's quota of processor time is worth; None where there is none.
    """

    system: System
    cores: tuple[Core, ...]
    isa: tuple[str, ...]
    caches: tuple[Cache, ...]
    ram_total_mb: float | None
    ram_available_mb: float | None
    load_averages: tuple[float, float, float] | None
    running_processes: int | None
    busy_fraction: float | None
    steal_fraction: float | None
    busiest: dict[str, float] | None
    temperatures_c: dict[str, float]
    throttled: int | None
    virtual: bool | None
    on_battery: bool | None
    battery_percent: int | None
    package_watts: float | None
    quota_cores: float | None = None

    @property
    def usable_cores(self) -> tuple[Core, ...]:
        """Those that this process may run on."""
        return tuple(core for core in self.cores if core.usable is not False)

    def core_sets(self) -> tuple[CoreSet, ...]:
        """The usable cores in sets of equal kind and clock, the fastest first."""
        groups: list[list[Core]] = []
        for core in sorted(self.usable_cores, key=lambda core: (-(core.max_khz or 0), -(core.capacity or 0), core.cpu)):
            group = next((group for group in groups if self._equal(group[0], core)), None)
            if group is None:
                groups.append([core])
            else:
                group.append(core)
        names = [self._names(group[0]) for group in groups]
        return tuple(_core_set(group, names[position], taken=names[:position]) for position, group in enumerate(groups))

    def findings(self) -> tuple[Finding, ...]:
        """What a person should know before trusting measurements of this machine, warnings first."""
        warnings = tuple(Finding(severity="warning", text=text) for text in self._warnings())
        return warnings + tuple(Finding(severity="note", text=text) for text in self._notes())

    def _names(self, core: Core) -> tuple[str, str]:
        return _names(core, self.system.machine)

    def _equal(self, fastest: Core, core: Core) -> bool:
        same_clock = (core.max_khz or 0) >= SAME_CLOCK * (fastest.max_khz or 0)
        return self._names(fastest) == self._names(core) and same_clock

    def _warnings(self) -> Iterator[str]:
        yield from self._clock_warnings()
        yield from self._load_warnings()
        hottest = max(self.temperatures_c.items(), key=lambda zone: zone[1], default=None)
        if hottest and hottest[1] > HOTTEST_C:
            yield f"thermal zone {hottest[0]} is at {hottest[1]:.0f} C: let it cool down, or cool it, before measuring"
        now = [name for bit, name in _THROTTLED_NOW if (self.throttled or 0) & bit]
        if now:
            yield f"the Raspberry Pi reports {', '.join(now)}: use its own power supply and a heat sink or fan"
        if self.on_battery:
            yield f"it runs on battery{self._level()}: plug it in, since most systems then lower the clock"
        if self.ram_available_mb is not None and self.ram_available_mb < LEAST_AVAILABLE_MB:
            yield f"{self.ram_available_mb:.0f} MB of memory are available: stop programs, or large models will swap"

    def _clock_warnings(self) -> Iterator[str]:
        slow_governors = {core.governor for core in self.usable_cores if core.governor} - {"performance"}
        if slow_governors:
            yield (
                f"the clock is governed by {' and '.join(sorted(slow_governors))}: set it with"
                " `echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`"
            )
        for core in self.usable_cores:
            seen = core.busy_khz
            if seen and core.max_khz and seen < LEAST_CLOCK * core.max_khz:
                yield (
                    f"core {core.cpu} computes at {seen / 1000:.0f} MHz of {core.max_khz / 1000:.0f}: "
                    f"{_slow_clock_remedy(core)}"
                )

    def _load_warnings(self) -> Iterator[str]:
        cores = len(self.cores)
        if self.quota_cores is not None and self.quota_cores < len(self.usable_cores):
            yield (
                f"a container's quota leaves {self.quota_cores:g} of {len(self.usable_cores)} cores' time: more "
                "threads than that are held up; measure outside of it, or with fewer --threads"
            )
        if self.load_averages and cores and self.load_averages[0] > MOST_LOAD_PER_CORE * cores:
            yield f"the load average is {self.load_averages[0]:.2f} on {cores} cores: {self._stop()}"
        elif self.busy_fraction is not None and self.busy_fraction > MOST_LOAD_PER_CORE:
            yield f"{self.busy_fraction:.0%} of the cores' time goes to other programs: {self._stop()}"
        if self.steal_fraction is not None and self.steal_fraction > MOST_STEAL:
            yield (
                f"the hypervisor takes {self.steal_fraction:.0%} of the cores' time for others:"
                " measure again at a quieter time, or on a machine of your own"
            )

    def _notes(self) -> Iterator[str]:
        if self.virtual:
            yield "this is a virtual machine: clock, caches and neighbours are out of sight; prefer the machine itself"
        siblings = {core.siblings for core in self.usable_cores if core.siblings and len(core.siblings) > 1}
        if siblings:
            pairs = "; ".join(" and ".join(map(str, each)) for each in sorted(siblings)[:2])
            more = "; ..." if len(siblings) > 2 else ""
            yield f"hardware threads share cores ({pairs}{more}): do not use more threads than cores"
        if (self.throttled or 0) >> 16:
            yield "the Raspberry Pi was throttled or short of power since it started: check supply and cooling"
        if unknown := self._unknown():
            yield f"this machine does not tell {', '.join(unknown)}: see to that yourself"

    def _unknown(self) -> list[str]:
        checks = {
            "the clock's governor": all(core.governor is None for core in self.usable_cores),
            "the temperature": not self.temperatures_c,
            "the load": self.load_averages is None and self.busy_fraction is None,
            "the memory available": self.ram_available_mb is None,
            "whether it runs on battery": self.on_battery is None,
        }
        return [name for name, missing in checks.items() if missing]

    def _stop(self) -> str:
        if not self.busiest:
            return "stop other programs"
        names = ", ".join(f"{name.partition(' ')[2]} ({share:.0%})" for name, share in self.busiest.items())
        return f"stop other programs, such as {names}"

    def _level(self) -> str:
        return "" if self.battery_percent is None else f" ({self.battery_percent} %)"


def inspect(connection: Connection) -> Machine:
    """Look at the device; takes some seconds. Raises InputError when it cannot be done."""
    remote = f"{connection.folder()}/{INSPECTOR.name}"
    connection.put(INSPECTOR, remote)
    done = connection.run([connection.python, remote], timeout_s=INSPECT_TIMEOUT_S)
    if done.code:
        raise InputError(f"{connection.host}: it could not be inspected: {done.last_error or 'no message'}")
    return parse_machine(last_line(done.stdout), host=connection.host)


def parse_machine(text: str, *, host: str) -> Machine:
    """Raise InputError naming the first wrong key unless `text` is what the inspection prints."""
    try:
        return TypeAdapter(Machine).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{host}: what the inspection printed cannot be read: {key}: {first['msg']}") from error


def _core_set(group: list[Core], names: tuple[str, str], *, taken: Iterable[tuple[str, str]]) -> CoreSet:
    name, core = names
    max_khz = max((each.max_khz or 0 for each in group), default=0)
    max_mhz = max_khz / 1000 if max_khz else group[0].cpuinfo_mhz
    # equal cores that differ in their clock, as on phones: the slower set's name says its clock
    unique = f"{name}-{max_khz // 1000}mhz" if names in taken else name
    first = [each for each in group if each.cpu == min(_threads_in(each, group))]
    rest = [each for each in group if each not in first]
    cpus = tuple(each.cpu for part in (first, rest) for each in sorted(part, key=lambda each: each.cpu))
    return CoreSet(name=unique, core=core, cpus=cpus, physical_cores=len(first), max_mhz=max_mhz)


def _threads_in(core: Core, group: list[Core]) -> list[int]:
    """The hardware threads of the core that are in the group."""
    return [each.cpu for each in group if each.cpu == core.cpu or each.cpu in (core.siblings or ())]


def _names(core: Core, architecture: str) -> tuple[str, str]:
    """A short name and the one people use."""
    implementer, part = core.implementer, core.part
    if implementer == _QUALCOMM and part in _KRYO_CORES:
        implementer, part = _ARM, _KRYO_CORES[part]
    if implementer == _ARM and part in _ARM_CORES:
        return _ARM_CORES[part].lower(), f"Cortex-{_ARM_CORES[part]}"
    if implementer == _ARM and part in _NEOVERSE_CORES:
        return f"neoverse-{_NEOVERSE_CORES[part].lower()}", f"Neoverse-{_NEOVERSE_CORES[part]}"
    if implementer is not None and part is not None:
        return f"arm-{implementer:02x}-{part:03x}", f"Arm core, implementer 0x{implementer:02x}, part 0x{part:03x}"
    short = "x86" if architecture.lower() in ("x86_64", "amd64", "i686") else architecture.lower()
    return short, core.model or architecture


def _slow_clock_remedy(core: Core) -> str:
    if core.limit_khz and core.max_khz and core.limit_khz < core.max_khz:
        return f"raise its limit of {core.limit_khz / 1000:.0f} (cpufreq/scaling_max_freq)"
    return "set the governor to performance, and see to cooling and power"
