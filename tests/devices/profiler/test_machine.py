"""The inspection reads trees that imitate real machines; what it says is judged by rules written here by hand."""

import ast
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from devices.profiler.board import inspect_machine
from devices.profiler.connection import connect
from devices.profiler.machine import CoreSet, Finding, inspect, parse_machine

USABLE = os.sched_getaffinity(0)
BOARD = Path(inspect_machine.__file__).parent
ARM_SECTION = """processor\t: {cpu}
BogoMIPS\t: 48.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid{features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part:#x}
CPU revision\t: 4

"""
X86_SECTION = """processor\t: {cpu}
vendor_id\t: AuthenticAMD
model name\t: AMD Ryzen 5 5600U with Radeon Graphics
cpu MHz\t\t: 1397.123
flags\t\t: fpu sse2 avx f16c fma avx2{flags}

"""


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    """The cores of the imitated machines, none of them ours; no second is waited."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: None)
    monkeypatch.setattr(inspect_machine, "SAMPLE_S", 0.01)
    monkeypatch.setattr(inspect_machine, "SPIN_S", 0)
    monkeypatch.setattr(inspect_machine, "command", no_command)


def no_command(*arguments):
    raise FileNotFoundError(arguments[0])


def machine(root):
    return parse_machine(json.dumps(inspect_machine.inspect(root)), host="here")


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else f"{text}\n".encode())


def quiet(cpus):
    """The files of a machine in a good state."""
    files = {
        "proc/loadavg": "0.05 0.04 0.01 1/200 1234",
        "proc/stat": "cpu  100 0 100 10000 0 0 0 0 0 0\ncpu0 1",
        "proc/meminfo": "MemTotal:        3884400 kB\nMemFree: 1 kB\nMemAvailable:    3500000 kB",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
        "sys/class/thermal/thermal_zone0/temp": "48312",
        "sys/class/power_supply/.none": "",
        "sys/devices/system/cpu/online": f"0-{cpus - 1}",
        "proc/device-tree/model": b"Raspberry Pi 4 Model B Rev 1.4\0",
        "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"',
    }
    for cpu in range(cpus):
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = str(cpu)
    return files


def frequency(cpus, max_khz, *, now_khz=None, governor="performance"):
    files = {}
    for cpu in cpus:
        folder = f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
        files |= {
            f"{folder}/cpuinfo_max_freq": max_khz,
            f"{folder}/scaling_max_freq": max_khz,
            f"{folder}/scaling_cur_freq": now_khz or max_khz,
            f"{folder}/scaling_governor": governor,
            f"{folder}/related_cpus": " ".join(map(str, cpus)),
        }
    return files


def pi4(root, **changes):
    """A Raspberry Pi 4: four Cortex-A72 at 1.5 GHz."""
    cpuinfo = "".join(ARM_SECTION.format(cpu=cpu, part=0xD08, features="") for cpu in range(4))
    write(root, quiet(4) | frequency(range(4), 1500000) | {"proc/cpuinfo": cpuinfo} | changes)
    return machine(root)


# --- what is read ---


def test_a_raspberry_pi_4(tmp_path):
    found = pi4(tmp_path)
    assert found.core_sets() == (
        CoreSet(name="a72", core="Cortex-A72", cpus=(0, 1, 2, 3), physical_cores=4, max_mhz=1500.0),
    )
    assert found.isa == ("asimd",)
    assert found.system.board == "Raspberry Pi 4 Model B Rev 1.4"
    assert found.system.os == "Debian GNU/Linux 12 (bookworm)"
    assert found.ram_total_mb == pytest.approx(3884400 * 1024 / 1e6)
    assert found.ram_available_mb == pytest.approx(3584.0)
    assert found.temperatures_c == {"0 cpu-thermal": 48.312}
    assert found.load_averages == (0.05, 0.04, 0.01)
    assert (found.virtual, found.on_battery) == (False, False)
    assert [core.busy_khz for core in found.cores] == [1500000, None, None, None]
    assert found.findings() == ()


def test_big_and_little_cores_are_two_sets(tmp_path):
    """RK3399: cores 0 to 3 are Cortex-A53 at 1,416 MHz, 4 and 5 Cortex-A72 at 1,800."""
    parts = [0xD03] * 4 + [0xD08] * 2
    cpuinfo = "".join(ARM_SECTION.format(cpu=cpu, part=part, features="") for cpu, part in enumerate(parts))
    clocks = frequency(range(4), 1416000) | frequency((4, 5), 1800000)
    write(tmp_path, quiet(6) | clocks | {"proc/cpuinfo": cpuinfo})
    found = machine(tmp_path)
    assert [(each.name, each.cpus, each.max_mhz) for each in found.core_sets()] == [
        ("a72", (4, 5), 1800.0),
        ("a53", (0, 1, 2, 3), 1416.0),
    ]
    assert [core.cpu for core in found.cores if core.busy_khz] == [0, 4]


def test_equal_cores_of_a_phone_at_two_clocks_are_two_sets(tmp_path):
    """QCS6490: 4 x A55 at 1,958, 3 x A78 at 2,400 and one at 2,707 MHz; only flags that all have count."""
    parts = [(0xD05, " asimdhp asimddp"), *[(0xD41, " asimdhp asimddp i8mm")] * 4]
    sections = [parts[0]] * 4 + parts[1:]
    cpuinfo = "".join(
        ARM_SECTION.format(cpu=cpu, part=part, features=features) for cpu, (part, features) in enumerate(sections)
    )
    clocks = frequency(range(4), 1958400) | frequency((4, 5, 6), 2400000) | frequency((7,), 2707200)
    write(tmp_path, quiet(8) | clocks | {"proc/cpuinfo": cpuinfo})
    found = machine(tmp_path)
    assert [(each.name, each.cpus) for each in found.core_sets()] == [
        ("a78", (7,)),
        ("a78-2400mhz", (4, 5, 6)),
        ("a55", (0, 1, 2, 3)),
    ]
    assert found.isa == ("asimd", "asimdhp", "asimddp")


def test_cores_that_a_process_may_not_use_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3})
    assert pi4(tmp_path).core_sets()[0].cpus == (2, 3)


def laptop(root, flags="", **changes):
    """Six cores, the first four shown, with two threads each: 0 and 4 share a core."""
    cpuinfo = "".join(X86_SECTION.format(cpu=cpu, flags=flags) for cpu in range(8))
    # x86 lets some cores clock a step higher; it stays one set
    clocks = frequency((0,), 4289000) | frequency(range(1, 8), 4200000)
    files = quiet(8) | clocks | {"proc/cpuinfo": cpuinfo}
    del files["proc/device-tree/model"]
    for cpu in range(8):
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = f"{cpu % 4},{cpu % 4 + 4}"
    write(root, files | changes)
    return machine(root)


def test_hardware_threads_come_after_cores(tmp_path):
    found = laptop(tmp_path)
    assert found.core_sets() == (
        CoreSet(
            name="x86",
            core="AMD Ryzen 5 5600U with Radeon Graphics",
            cpus=(0, 1, 2, 3, 4, 5, 6, 7),
            physical_cores=4,
            max_mhz=4289.0,
        ),
    )
    assert texts(found, "note") == [
        "hardware threads share cores (0 and 4; 1 and 5; ...): do not use more threads than cores"
    ]


def test_caches_are_named_once(tmp_path):
    folder = "sys/devices/system/cpu/cpu{}/cache/index{}/{}"
    files = {}
    for cpu in range(4):
        for index, (level, kind, size, shared) in enumerate(
            [(1, "Data", "32K", str(cpu)), (2, "Unified", "1024K", "0-3")]
        ):
            values = {"level": level, "type": kind, "size": size, "shared_cpu_list": shared}
            files |= {folder.format(cpu, index, name): value for name, value in values.items()}
    found = pi4(tmp_path, **files)
    assert [(each.level, each.size_kib, each.cpus) for each in found.caches] == [
        (1, 32, (0,)),
        (2, 1024, (0, 1, 2, 3)),
        (1, 32, (1,)),
        (1, 32, (2,)),
        (1, 32, (3,)),
    ]


def test_a_phone_without_cpu_part_in_cpuinfo_has_its_register(tmp_path):
    """MIDR_EL1 of a Cortex-A76 r4p0: implementer 0x41, variant 4, architecture 0xf, part 0xd0b."""
    files = {f"sys/devices/system/cpu/cpu{cpu}/regs/identification/midr_el1": "0x00000000414fd0b0" for cpu in range(4)}
    assert pi4(tmp_path, **files, **{"proc/cpuinfo": "Hardware : x"}).core_sets()[0].name == "a76"


def test_energy_and_times_are_differences(tmp_path, monkeypatch):
    """Of 400 ticks 60 are busy and 40 stolen; 2 J in the time that passed."""

    def sleep(seconds):
        write(tmp_path, {"proc/stat": "cpu  150 0 110 10300 0 0 0 40 0 0"})
        write(tmp_path, {"sys/class/powercap/intel-rapl:0/energy_uj": 3_000_000})
        write(tmp_path, {"proc/77/stat": "77 (a (b) c) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0"})

    times = iter([10.0, 14.0])
    monkeypatch.setattr(inspect_machine.time, "sleep", sleep)
    monkeypatch.setattr(inspect_machine.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(inspect_machine, "spun_clocks", dict)
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    found = pi4(
        tmp_path,
        **{
            "sys/class/powercap/intel-rapl:0/energy_uj": 1_000_000,
            "proc/77/stat": "77 (a (b) c) S 1 1 1 0 -1 0 0 0 0 0 50 50 0 0 20 0 1 0",
        },
    )
    assert found.busy_fraction == pytest.approx(60 / 400)
    assert found.steal_fraction == pytest.approx(40 / 400)
    assert found.package_watts == pytest.approx(0.5)
    assert found.busiest == {"77 a (b) c": 0.25}


# --- what is found ---


def texts(found, severity):
    return [each.text for each in found.findings() if each.severity == severity]


ZONE, SUPPLY = "sys/class/thermal/thermal_zone0/temp", "sys/class/power_supply/battery"
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        (frequency(range(4), 1500000, governor="ondemand"), "governed by ondemand: set it with `echo performance"),
        (frequency(range(4), 1500000, now_khz=600000), "core 0 computes at 600 MHz of 1500: set the governor"),
        ({"proc/loadavg": "1.21 1 1 3/200 1"}, "the load average is 1.21 on 4 cores: stop other programs"),
        ({ZONE: "75312"}, "thermal zone 0 cpu-thermal is at 75 C"),
        ({ZONE: "82"}, "is at 82 C"),
        ({"proc/meminfo": "MemTotal: 999 kB\nMemAvailable: 480000 kB"}, "492 MB of memory are available"),
        (
            {f"{SUPPLY}/type": "Battery", f"{SUPPLY}/status": "Discharging", f"{SUPPLY}/capacity": "71"},
            r"it runs on battery \(71 %\)",
        ),
        ({THROTTLED: "50005"}, "reports under-voltage, throttling: use its own power supply"),
    ],
)
def test_each_fault_is_one_warning(tmp_path, changes, warning):
    found = pi4(tmp_path, **changes)
    assert len(texts(found, "warning")) == 1
    with pytest.raises(AssertionError, match=warning):
        raise AssertionError(texts(found, "warning")[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"proc/loadavg": "1.19 1 1 3/200 1"},
        {ZONE: "75000"},
        frequency(range(4), 1500000, now_khz=1200000),
        {f"{SUPPLY}/type": "Battery", f"{SUPPLY}/status": "Charging"},
        {f"{SUPPLY}/type": "Battery", f"{SUPPLY}/scope": "Device", f"{SUPPLY}/status": "Discharging"},
        {THROTTLED: "0"},
    ],
)
def test_below_the_threshold_there_is_no_warning(tmp_path, changes):
    assert pi4(tmp_path, **changes).findings() == ()


def test_a_limited_clock_names_the_limit(tmp_path):
    limit = {f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_max_freq": 600000 for cpu in range(4)}
    found = pi4(tmp_path, **frequency(range(4), 1500000, now_khz=600000) | limit)
    assert texts(found, "warning") == [
        "core 0 computes at 600 MHz of 1500: raise its limit of 600 (cpufreq/scaling_max_freq)"
    ]


def test_other_programs_are_named(tmp_path):
    found = replace(pi4(tmp_path), busy_fraction=0.5, busiest={"77 chrome": 1.5, "8 rsync": 0.31})
    assert texts(found, "warning") == [
        "50% of the cores' time goes to other programs: stop other programs, such as chrome (150%), rsync (31%)"
    ]


def test_stolen_time(tmp_path):
    assert texts(replace(pi4(tmp_path), steal_fraction=0.02), "warning") == []
    assert "takes 3% of the cores' time" in texts(replace(pi4(tmp_path), steal_fraction=0.03), "warning")[0]


def test_a_virtual_machine_is_a_note(tmp_path):
    found = laptop(tmp_path, flags=" hypervisor")
    assert found.virtual is True
    assert any("virtual machine" in text for text in texts(found, "note"))


def test_past_throttling_is_a_note(tmp_path):
    found = pi4(tmp_path, **{THROTTLED: "50000"})
    assert [each.severity for each in found.findings()] == ["note"]


def test_a_containers_quota_is_warned_of(tmp_path):
    found = pi4(tmp_path, **{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"})
    assert found.quota_cores == 1.5
    (said,) = texts(found, "warning")
    assert said.startswith("a container's quota leaves 1.5 of 4 cores' time")


def test_an_empty_machine_says_what_it_does_not_tell(tmp_path):
    found = machine(tmp_path)
    assert found.cores == ()
    assert found.core_sets() == ()
    assert found.findings() == (
        Finding(
            severity="note",
            text="this machine does not tell the clock's governor, the temperature, the load, the memory available,"
            " whether it runs on battery: see to that yourself",
        ),
    )


# --- it never fails ---

FILES = sorted(
    {
        *quiet(2),
        *frequency(range(2), 1),
        "proc/cpuinfo",
        "proc/7/stat",
        THROTTLED,
        f"{SUPPLY}/type",
        f"{SUPPLY}/capacity",
    }
)
WORDS = st.sampled_from(
    ["", "-1", "0", "99", "1e9", "nan", "0x41", ":", "\n", "\0", "processor\t: 1", "K", "Battery", "(", ")"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(FILES), st.lists(WORDS, max_size=9).map(" ".join) | st.binary(max_size=20)))
def test_nonsense_is_read_without_failing(tmp_path_factory, files):
    root = tmp_path_factory.mktemp("root")
    write(root, files)
    found = machine(root)
    assert isinstance(found.findings(), tuple)
    assert isinstance(found.core_sets(), tuple)


def test_what_is_not_an_inspection_is_refused():
    with pytest.raises(InputError, match="^ssh://x: what the inspection printed cannot be read: .*JSON"):
        parse_machine("Segmentation fault", host="ssh://x")
    with pytest.raises(InputError, match="system: Field required"):
        parse_machine("{}", host="ssh://x")


@pytest.mark.parametrize("path", sorted(BOARD.glob("*.py")), ids=lambda path: path.name)
def test_what_is_copied_to_a_board_is_python_3_9(path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))


def test_this_machine_is_inspected_through_a_connection(host):
    with connect(host) as connection:
        found = inspect(connection)
    assert {core.cpu for core in found.usable_cores} == USABLE
    assert found.ram_total_mb == pytest.approx(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6, rel=0.05)
    assert found.system.kernel == os.uname().release
