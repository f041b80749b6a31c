"""Print as one JSON object what this machine is and in which state. Copied to boards and run there.

Python 3.9 or later on Linux or Android; needs nothing else and no rights. What cannot be read is null: it never fails.
Names carry units; frequencies are in kHz as the kernel has them. `devices/profiler/machine.py` reads the output.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ISA_FLAGS = (
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
    *("avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
)
"""Those that decide which kernels a runtime takes, as /proc/cpuinfo spells them."""
SAMPLE_S = 1.0
SPIN_S = 0.1
"""Long enough for a governor to raise the clock: ondemand and schedutil decide every 10 ms or so."""
MOST_SPINS = 16
COMMAND_TIMEOUT_S = 5
UNREADABLE = (OSError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError, subprocess.SubprocessError)
"""What reading a strange machine may raise."""
VIRTUAL_VENDORS = ("qemu", "kvm", "vmware", "xen", "innotek", "parallels", "amazon ec2", "google compute")


def inspect(root: Path) -> dict[str, Any]:
    """All that is known, from the files under `root` ("/", but for tests)."""
    cpuinfo = read(root / "proc/cpuinfo") or ""
    load = attempt(lambda: load_averages(root))
    running = attempt(lambda: int(need(root / "proc/loadavg").split()[3].split("/")[0]))
    before, started = activity(root), time.monotonic()
    time.sleep(SAMPLE_S)
    after, seconds = activity(root), time.monotonic() - started
    busy = attempt(lambda: spun_clocks(root)) or {}
    return {
        "system": system(root),
        "cores": attempt(lambda: cores(root, cpuinfo, busy)) or [],
        "isa": isa(cpuinfo),
        "caches": attempt(lambda: caches(root)) or [],
        "ram_total_mb": memory_mb(root, "MemTotal"),
        "ram_available_mb": memory_mb(root, "MemAvailable"),
        "load_averages": load,
        "running_processes": running,
        "busy_fraction": fraction(before["cpu"], after["cpu"], "busy"),
        "steal_fraction": fraction(before["cpu"], after["cpu"], "steal"),
        "busiest": attempt(lambda: busiest(before["processes"], after["processes"], seconds)),
        "temperatures_c": attempt(lambda: temperatures(root)) or {},
        "throttled": attempt(lambda: throttled(root)),
        "virtual": attempt(lambda: virtual(root, cpuinfo)),
        "on_battery": attempt(lambda: on_battery(root)),
        "battery_percent": attempt(lambda: battery_percent(root)),
        "package_watts": attempt(lambda: (after["energy_uj"] - before["energy_uj"]) / 1e6 / seconds),
        "quota_cores": attempt(lambda: quota_cores(root)),
    }


def attempt(function: Callable[[], Any]) -> Any:
    """The function's value, or None where this machine does not offer it."""
    try:
        return function()
    except UNREADABLE:
        return None


def read(path: Path) -> str | None:
    """The file's text without surrounding white space and zero bytes; None if it cannot be read."""
    try:
        return path.read_bytes().decode(errors="replace").strip(" \t\r\n\0")
    except OSError:
        return None


def need(path: Path) -> str:
    """As `read`, but raises OSError."""
    text = read(path)
    if text is None:
        raise FileNotFoundError(path)
    return text


def number(path: Path) -> int | None:
    """The whole number that is the file's text, or None."""
    return attempt(lambda: int(need(path)))


def load_averages(root: Path) -> list[float]:
    """Runnable processes on average over 1, 5 and 15 minutes."""
    last_minute, five, fifteen = need(root / "proc/loadavg").split()[:3]
    return [float(last_minute), float(five), float(fifteen)]


def command(*arguments: str) -> str:
    """What a program prints. Raises one of UNREADABLE."""
    done = subprocess.run(
        arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=True
    )
    return done.stdout.decode(errors="replace").strip()


def system(root: Path) -> dict[str, Any]:
    """Names of the board and what runs on it."""
    release = attempt(lambda: dict(re.findall(r'^(\w+)="?(.*?)"?$', need(root / "etc/os-release"), re.MULTILINE))) or {}
    android = attempt(lambda: command("getprop", "ro.build.version.release"))
    return {
        "os": f"Android {android}" if android else release.get("PRETTY_NAME") or platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "board": read(root / "proc/device-tree/model")
        or attempt(lambda: command("getprop", "ro.product.model"))
        or read(root / "sys/class/dmi/id/product_name"),
        "python": platform.python_version(),
    }


def cpu_list(text: str) -> list[int]:
    """`0-2,5` as [0, 1, 2, 5], the kernel's way to write sets of cores; also `0 1 2 5`."""
    found: list[int] = []
    for part in text.replace(",", " ").split():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def cpu_folders(root: Path) -> dict[int, Path]:
    """Each core's folder in sysfs."""
    folder = root / "sys/devices/system/cpu"
    return {int(path.name[3:]): path for path in folder.iterdir() if re.fullmatch(r"cpu\d+", path.name)}


def cores(root: Path, cpuinfo: str, busy_khz: dict[int, int | None]) -> list[dict[str, Any]]:
    """One entry per core that is online, by number."""
    sections = cpuinfo_sections(cpuinfo)
    folders = attempt(lambda: cpu_folders(root)) or {}
    online = attempt(lambda: cpu_list(need(root / "sys/devices/system/cpu/online")))
    usable = attempt(lambda: os.sched_getaffinity(0))
    numbers = sorted(set(sections) | set(folders)) if online is None else online
    nowhere = root / "nowhere"
    return [
        {
            "cpu": cpu,
            "usable": None if usable is None else cpu in usable,
            "busy_khz": busy_khz.get(cpu),
            **core(sections.get(cpu, {}), folders.get(cpu, nowhere)),
        }
        for cpu in numbers
    ]


def core(section: dict[str, str], folder: Path) -> dict[str, Any]:
    """What a core's part of /proc/cpuinfo and its folder in sysfs tell."""
    implementer, part = arm_core(section, folder)
    return {
        "model": section.get("model name"),
        "implementer": implementer,
        "part": part,
        "siblings": attempt(lambda: cpu_list(need(folder / "topology/thread_siblings_list"))),
        "capacity": number(folder / "cpu_capacity"),
        "max_khz": number(folder / "cpufreq/cpuinfo_max_freq"),
        "limit_khz": number(folder / "cpufreq/scaling_max_freq"),
        "cpuinfo_mhz": attempt(lambda: float(section["cpu MHz"])),
        "governor": read(folder / "cpufreq/scaling_governor"),
    }


def cpuinfo_sections(cpuinfo: str) -> dict[int, dict[str, str]]:
    """Key and value pairs of each core in /proc/cpuinfo."""
    found: dict[int, dict[str, str]] = {}
    for block in re.split(r"\n\s*\n", cpuinfo):
        section = dict(re.findall(r"^([^:\n]*?)\s*:[ \t]*(.*?)\s*$", block, re.MULTILINE))
        if re.fullmatch(r"[0-9]+", section.get("processor", "")):
            found[int(section["processor"])] = section
    return found


def arm_core(section: dict[str, str], folder: Path) -> tuple[int | None, int | None]:
    """Implementer and part number, from /proc/cpuinfo or else the register MIDR_EL1 (bits 24-31 and 4-15)."""
    if "CPU part" in section:
        return attempt(lambda: int(section["CPU implementer"], 16)), attempt(lambda: int(section["CPU part"], 16))
    register = attempt(lambda: int(need(folder / "regs/identification/midr_el1"), 16))
    return (None, None) if register is None else (register >> 24 & 0xFF, register >> 4 & 0xFFF)


def isa(cpuinfo: str) -> list[str]:
    """The flags of ISA_FLAGS that every core has."""
    listed = [set(words.split()) for words in re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)]
    return [flag for flag in ISA_FLAGS if listed and all(flag in flags for flags in listed)]


def caches(root: Path) -> list[dict[str, Any]]:
    """Each cache once, with the cores that share it."""
    found: dict[str, dict[str, Any]] = {}
    for _, folder in sorted(cpu_folders(root).items()):
        for index in sorted((folder / "cache").glob("index*")):
            found.setdefault(f"{index.name} {read(index / 'shared_cpu_list')}", attempt(partial(cache, index)))
    return [each for each in found.values() if each is not None]


def cache(index: Path) -> dict[str, Any]:
    """One cache; raises one of UNREADABLE when it does not tell."""
    return {
        "level": int(need(index / "level")),
        "kind": need(index / "type"),
        "size_kib": int(need(index / "size").rstrip("K")),
        "cpus": cpu_list(need(index / "shared_cpu_list")),
    }


def memory_mb(root: Path, key: str) -> float | None:
    """A line of /proc/meminfo in 10^6 bytes."""
    return attempt(
        lambda: int(re.search(rf"^{key}:\s*(\d+) kB", need(root / "proc/meminfo"), re.MULTILINE)[1]) * 1024 / 1e6  # type: ignore[index]
    )


def activity(root: Path) -> dict[str, Any]:
    """Counters that grow: time of all cores by use, time of each process, energy."""
    return {
        "cpu": attempt(lambda: cpu_times(root)),
        "processes": attempt(lambda: process_ticks(root)),
        "energy_uj": number(root / "sys/class/powercap/intel-rapl:0/energy_uj"),
    }


def cpu_times(root: Path) -> dict[str, int]:
    """Ticks from /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal (guests are within user)."""
    words = need(root / "proc/stat").splitlines()[0].split()
    ticks = [int(word) for word in words[1:9]]
    idle, steal = ticks[3] + ticks[4], ticks[7]
    return {"all": sum(ticks), "busy": sum(ticks) - idle - steal, "steal": steal}


def fraction(before: dict[str, int] | None, after: dict[str, int] | None, use: str) -> float | None:
    """The share of all cores' time that went to `use`."""
    return attempt(lambda: (after[use] - before[use]) / (after["all"] - before["all"]))  # type: ignore[index]


def process_ticks(root: Path) -> dict[str, int]:
    """User and system ticks of each process that may be seen, by "pid name"; not of this one."""
    found = {}
    for path in (root / "proc").glob("[0-9]*/stat"):
        # the name, in parentheses, may itself have any character
        text = read(path) or ""
        rest = text.rpartition(")")[2].split()
        if len(rest) > 12 and path.parent.name != str(os.getpid()):
            name = text.partition("(")[2].rpartition(")")[0]
            found[f"{path.parent.name} {name}"] = int(rest[11]) + int(rest[12])
    return found


def busiest(before: dict[str, int], after: dict[str, int], seconds: float) -> dict[str, float]:
    """Up to three processes that took more than 5 % of a core, with their share of one core."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    shares = {name: (ticks - before.get(name, ticks)) / ticks_per_s / seconds for name, ticks in after.items()}
    top = sorted(shares.items(), key=lambda item: -item[1])[:3]
    return {name: round(share, 3) for name, share in top if share > 0.05}


def spun_clocks(root: Path) -> dict[int, int | None]:
    """The clock in kHz of cores while they compute: of the first usable one of each frequency domain."""
    usable = os.sched_getaffinity(0)
    domains = set()
    for cpu, folder in cpu_folders(root).items():
        related = cpu_list(read(folder / "cpufreq/related_cpus") or "")
        allowed = [each for each in related if each in usable]
        if cpu in usable and allowed:
            domains.add(min(allowed))
    try:
        return {cpu: spun_clock(root, cpu) for cpu in sorted(domains)[:MOST_SPINS]}
    finally:
        os.sched_setaffinity(0, usable)


def spun_clock(root: Path, cpu: int) -> int | None:
    """The clock after SPIN_S of computing on the core."""
    os.sched_setaffinity(0, {cpu})
    end = time.monotonic() + SPIN_S
    while time.monotonic() < end:
        pass
    return number(root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq")


def temperatures(root: Path) -> dict[str, float]:
    """Degrees Celsius by thermal zone; zones that report what no chip survives (some Android ones) are left out."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        value = number(zone / "temp")
        if value is not None:
            celsius = value / 1000 if abs(value) >= 200 else float(value)
            if 0 < celsius < 125:
                found[f"{zone.name.replace('thermal_zone', '')} {read(zone / 'type') or ''}".strip()] = celsius
    return found


def throttled(root: Path) -> int | None:
    """The Raspberry Pi's word: bits 0 to 3 under-voltage, capped, throttled, hot now; 16 to 19 since start."""
    word = read(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    return int(word, 16) if word else int(command("vcgencmd", "get_throttled").partition("=")[2], 16)


def virtual(root: Path, cpuinfo: str) -> bool | None:
    """Whether this is a virtual machine; None if nothing tells (Arm often does not)."""
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    if flags:
        return "hypervisor" in flags[1].split()
    if (root / "proc/device-tree/hypervisor").exists() or read(root / "sys/hypervisor/type"):
        return True
    names = [read(root / f"sys/class/dmi/id/{name}") or "" for name in ("sys_vendor", "product_name")]
    if any(names):
        return any(vendor in name.lower() for name in names for vendor in VIRTUAL_VENDORS)
    return False if read(root / "proc/device-tree/model") else None


def supplies(root: Path) -> list[Path]:
    """Folders of power supplies."""
    return sorted((root / "sys/class/power_supply").iterdir())


def on_battery(root: Path) -> bool | None:
    """Whether a battery that feeds the machine discharges; False on a machine without one."""
    states = [read(path / "status") for path in batteries(root)]
    if any(states):
        return "Discharging" in states
    dumped = attempt(lambda: command("dumpsys", "battery"))
    if dumped:
        return not re.search(r"powered: true", dumped)
    return False if not batteries(root) else None


def battery_percent(root: Path) -> int | None:
    """How full the battery is."""
    levels = [number(path / "capacity") for path in batteries(root)]
    known = [level for level in levels if level is not None]
    return min(known) if known else int(re.search(r"level: (\d+)", command("dumpsys", "battery"))[1])  # type: ignore[index]


def quota_cores(root: Path) -> float | None:
    """Cores' worth of time that the control groups around this program leave, as `runtime/cores.py` reads them."""
    found = []
    for line in need(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                found.append(attempt(partial(quota_share, folder)))
    return min((share for share in found if share), default=None)


def quota_share(folder: Path) -> float:
    """A group's quota over its period; raises where it has none."""
    both = read(folder / "cpu.max") or f"{need(folder / 'cpu.cfs_quota_us')} {need(folder / 'cpu.cfs_period_us')}"
    quota, period = map(int, both.split())
    if quota < 0:
        raise ValueError(f"no quota: {both}")
    return quota / period


def batteries(root: Path) -> list[Path]:
    """Those that feed the machine, not those of a mouse."""
    return [path for path in supplies(root) if read(path / "type") == "Battery" and read(path / "scope") != "Device"]


if __name__ == "__main__":
    print(json.dumps(inspect(Path(sys.argv[1] if len(sys.argv) > 1 else "/"))))
