"""The machine that whisperfit runs on, as far as it is cheap to ask."""

import os
from pathlib import Path

from devices.facts import CoreSet, DeviceDescription, Fact
from runtime.cores import affinity_cores, usable_cores

APP_SHARE_OF_RAM = 0.75
"""Left to an application on a desktop or a server: an estimate."""
_SMT_FILE = Path("/sys/devices/system/cpu/smt/active")


def physical_cores() -> int:
    """Cores that this process may use; two hardware threads of one core count once (where Linux tells)."""
    usable = affinity_cores()
    two_per_core = _SMT_FILE.exists() and _SMT_FILE.read_text().strip() == "1"
    return max(1, min(usable // 2 if two_per_core else usable, usable_cores()))


def ram_mb() -> float | None:
    """Installed memory in megabytes (10^6 bytes); None where the system does not tell."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6


def fill_in_host(description: DeviceDescription) -> DeviceDescription:
    """The generic profile with this machine's cores and memory."""
    read = {"kind": "measured", "source": "read from this machine when the profile was loaded"}
    cores = physical_cores()
    name = description.execution.core_set
    count = Fact.model_validate({"value": cores, "unit": "cores", **read})
    threads = Fact.model_validate({"value": cores, "unit": "threads", **read})
    core_set: CoreSet = description.core_sets[name].model_copy(update={"count": count})
    facts = description.facts
    if total_mb := ram_mb():
        total = Fact.model_validate({"value": round(total_mb), "unit": "MB", **read})
        available = Fact(
            value=round(APP_SHARE_OF_RAM * total_mb),
            unit="MB",
            kind="estimated",
            source=f"{APP_SHARE_OF_RAM:.0%} of this machine's memory",
        )
        facts = facts.model_copy(update={"ram_mb": total, "ram_available_mb": available})
    return description.model_copy(
        update={
            "core_sets": {**description.core_sets, name: core_set},
            "execution": description.execution.model_copy(update={"threads": threads}),
            "facts": facts,
        }
    )
