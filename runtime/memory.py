"""How much memory this process holds and held."""

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def resident_bytes(status: Path = STATUS) -> int:
    """Memory that this process holds now, as Linux counts it; elsewhere the most that it held."""
    found = of_status(status, "VmRSS")
    return peak_rss_bytes(status) if found is None else found


def peak_rss_bytes(status: Path = STATUS) -> int:
    """Most memory that this process held, as Linux counts it, elsewhere as `getrusage` does.

    On Linux not `getrusage`: its maximum begins with what the parent held when it started this process.
    """
    found = of_status(status, "VmHWM")
    if found is not None:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def of_status(status: Path, name: str) -> int | None:
    """What a line of /proc/PID/status says, in bytes; None where the system has none."""
    try:
        lines = status.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
