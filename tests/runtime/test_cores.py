"""Threads are as many as the cores that a process was given; the oracle is a hand-made tree of control groups."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devices import host
from devices.profile import load_profile
from devices.profiler.board import inspect_machine
from runtime import cores
from runtime.memory import peak_rss_bytes

CHECKOUT = Path(__file__).parents[2]


def tree(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """The files that say which groups hold a process and what these may use, in their places under `folder`."""
    groups, mounted = folder / "proc/self/cgroup", folder / "sys/fs/cgroup"
    for path, text in ((groups, own), *((mounted / name, text) for name, text in files.items())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return groups, mounted


V1 = "12:cpuset:/docker/x\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x"
CASES = {
    "version 2": ("0::/", {"cpu.max": "150000 100000"}, 1.5),
    "version 2 without a quota": ("0::/", {"cpu.max": "max 100000"}, None),
    "version 2, a slice's quota": ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),
    "version 2, the least of both": ("0::/a/b", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "50000 100000"}, 0.5),
    "version 2, mounted at its own group": ("0::/docker/x", {"cpu.max": "300000 100000"}, 3.0),
    "version 1": (V1, {"cpu/docker/x/cpu.cfs_quota_us": "250000", "cpu/docker/x/cpu.cfs_period_us": "100000"}, 2.5),
    "version 1 in a container": (V1, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000"}, 2.0),
    "version 1 without a quota": (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    "nothing mounted": ("0::/", {}, None),
    "not a number": ("0::/", {"cpu.max": "lots"}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_a_quota_is_read_wherever_it_stands(case, tmp_path):
    own, files, expected = CASES[case]
    assert cores.quota_cores(*tree(tmp_path, own, files)) == expected
    assert inspect_machine.inspect(tmp_path)["quota_cores"] == expected


def test_a_system_without_control_groups_has_no_quota(tmp_path):
    assert cores.quota_cores(tmp_path / "absent", tmp_path) is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (0.3, 1), (1.5, 2), (2.0, 2), (64.0, 8)])
def test_cores_are_those_of_the_mask_and_no_more_than_the_quota(quota, expected, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 256)
    monkeypatch.setattr(cores, "quota_cores", lambda: quota)
    assert cores.usable_cores() == expected
    monkeypatch.setattr(host, "_SMT_FILE", Path("/nowhere"))
    assert load_profile("host").threads == expected


def test_a_system_without_masks_has_all_its_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores.affinity_cores() == 6


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity masks")
def test_torch_takes_the_masks_cores():
    code = "import search.loading as s, torch; s.use_threads(None); print(torch.get_num_threads())"
    pinned = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); {code}"
    shown = subprocess.run([sys.executable, "-c", pinned], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "1"


def test_peak_memory_is_known_without_proc(tmp_path):
    """Of this process, both ways; getrusage's may have begun with a larger parent, so it is never less by much."""
    by_linux, by_rusage = peak_rss_bytes(), peak_rss_bytes(tmp_path / "absent")
    assert by_rusage >= 0.9 * by_linux > 10e6
