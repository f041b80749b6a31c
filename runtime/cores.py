"""How many cores this process may keep busy: not those of the machine, but those that it was given."""

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """The cores of the affinity mask, and no more than a container's quota of processor time is worth."""
    quota = quota_cores()
    allowed = affinity_cores()
    return allowed if quota is None else max(1, min(allowed, ceil(quota)))


def affinity_cores() -> int:
    """Hardware threads that the system lets this process run on; all of them where it does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota_cores(own_groups: Path = OWN_GROUPS, mounted: Path = CONTROL_GROUPS) -> float | None:
    """Cores' worth of processor time that Linux's control groups leave, such as 1.5; None where nothing limits it.

    The least of this process's group and the groups around it: version 2's `cpu.max`, version 1's `cpu.cfs_quota_us`.
    """
    shares = [share for folder in _groups(own_groups, mounted) if (share := _share(folder)) is not None]
    return min(shares, default=None)


def _groups(own_groups: Path, mounted: Path) -> Iterator[Path]:
    """Folders of the groups that hold this process. A path that is not mounted here is a container's: its root is."""
    for line in (_read(own_groups) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        roots = (mounted / controllers, mounted / "cpu") if controllers else (mounted, mounted / "unified")
        for root in roots:
            group = root / path.lstrip("/")
            yield group
            yield from (parent for parent in group.parents if parent.is_relative_to(root))


def _share(folder: Path) -> float | None:
    """A group's quota over its period; None where it has none."""
    both = _read(folder / "cpu.max") or f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
    try:
        quota, period = map(int, both.split())
    except ValueError:  # `max`, or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
