"""Chips and cores as far as they are public: what a row of measured latencies says about its processor.

`boards_chips.csv`: chip, a pattern that finds it in a row's device and SoC, its clusters (fastest first, GHz), memcpy
of one thread in GB/s, the cache that the fast cluster shares, and where the bandwidth is from
(../shared/devices/specs.csv, or an estimate). Clusters and caches are those of the vendors' data sheets.
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

CHIPS_FILE = Path(__file__).with_name("boards_chips.csv")


@dataclass(frozen=True, kw_only=True)
class Core:
    """What a core can do per cycle: float32 multiply-adds; whether it has float16 arithmetic and int8 dot products.

    `in_order`: it starts instructions in program order only, so it reaches less of its peak.
    """

    name: str
    float_macs: float
    has_half: bool = False
    has_dot: bool = False
    in_order: bool = False

    @property
    def int8_macs(self) -> float:
        """4 times float32 by dot products; without, 16 multiply-adds in 3 instructions (in 2 cycles of two pipes)."""
        return self.float_macs * (4 if self.has_dot else 5.33 / 4 if self.in_order else 2)

    @property
    def vector_issue(self) -> float:
        """Vector instructions that start per cycle: one in order, else two, or four where there are four pipes."""
        if self.in_order:
            return min(1.0, self.float_macs / 2)
        return 4 if self.float_macs == 16 and not self.name.startswith("AVX") else 2


def _core(name: str, float_macs: float, isa: str = "", *, in_order: bool = False) -> Core:
    return Core(
        name=name,
        float_macs=float_macs,
        has_half="h" in isa,
        has_dot="d" in isa,
        in_order=in_order,
    )


_MODERN = "h d"
CORES = {
    core.name.upper(): core
    for core in (
        _core("ARM1176", 0.5, in_order=True),
        _core("A7", 1, in_order=True),
        _core("A8", 1, in_order=True),
        _core("A9", 2),
        _core("A15", 4),
        _core("A17", 4),
        _core("A35", 2, in_order=True),
        _core("A53", 4, in_order=True),
        _core("A55", 4, _MODERN, in_order=True),
        _core("A57", 4),
        _core("A72", 4),
        _core("A73", 4),
        _core("A75", 8, _MODERN),
        *(_core(f"A{number}", 8, _MODERN) for number in (76, 77, 78, 710, 715, 720, 725)),
        *(_core(f"A{number}", 4, _MODERN, in_order=True) for number in (510, 520)),
        *(_core(f"X{number}", 16, _MODERN) for number in (1, 2, 3, 4, 925)),
        _core("Carmel", 8, "h"),
        _core("Oryon", 16, _MODERN),
        _core("AppleP", 16, _MODERN),
        _core("AppleE", 8, _MODERN),
        _core("N1", 8, _MODERN),
        _core("V1", 16, _MODERN),
        _core("AVX2", 16),
        _core("AVX512", 16, "d"),
    )
}
"""Peaks: pigirons/cpufp where measured (specs.csv), else width and number of vector pipes by the vendor."""

TYPICAL_GHZ = {
    "A7": 1.2, "A35": 1.3, "A53": 1.5, "A55": 1.8, "A57": 1.8, "A72": 1.8, "A73": 2.0, "A75": 2.4, "A76": 2.3,
    "A77": 2.4, "A78": 2.4, "X1": 2.8, "X2": 2.9, "X3": 2.9, "X4": 3.1,
}  # fmt: skip
DEFAULT_GHZ = 2.0
MOST_CORES = 256
"""More than that is not a number of cores."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Equal cores."""

    count: int
    core: Core
    ghz: float


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A processor: clusters, fastest first; memcpy of one thread; last cache before memory."""

    name: str
    clusters: tuple[Cluster, ...]
    memcpy_gb_s: float
    cache_bytes: float

    def cores(self, threads: int) -> tuple[Cluster, ...]:
        """The fastest cores that `threads` threads fill."""
        used: list[Cluster] = []
        for cluster in self.clusters:
            if threads > 0:
                used.append(Cluster(count=min(threads, cluster.count), core=cluster.core, ghz=cluster.ghz))
                threads -= cluster.count
        return tuple(used)

    @property
    def is_arm(self) -> bool:
        return not self.clusters[0].core.name.startswith("AVX")

    @property
    def core_count(self) -> int:
        return sum(cluster.count for cluster in self.clusters)


_CLUSTER = re.compile(r"(\d+)\s*x\s*(?:cortex-?)?([A-Za-z]+\d*[A-Za-z]*)\s*(?:@\s*(\d+(?:\.\d+)?))?", re.IGNORECASE)


def parse_clusters(text: str) -> tuple[Cluster, ...]:
    """Of text such as `2xA76+6xA55`, `4xA53@1.8` or `4x Cortex-A72`; cores that nobody knows are left out."""
    clusters = []
    for count, name, ghz in _CLUSTER.findall(text):
        core = CORES.get(name.upper().removeprefix("CORTEX"))
        if core is None and (base := re.match(r"[AX]\d+", name.upper())):
            core = CORES.get(base.group())  # A78AE, A78C
        if core is not None and 0 < int(count) <= MOST_CORES:
            clock = float(ghz or 0) or TYPICAL_GHZ.get(core.name, DEFAULT_GHZ)
            clusters.append(Cluster(count=int(count), core=core, ghz=clock if clock < 10 else clock / 1000))
    return tuple(clusters)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    pattern: re.Pattern[str]
    chip: Chip


@cache
def _known() -> tuple[_Entry, ...]:
    with CHIPS_FILE.open(encoding="utf-8") as file:
        return tuple(
            _Entry(
                pattern=re.compile(row["pattern"], re.IGNORECASE),
                chip=Chip(
                    name=row["chip"],
                    clusters=parse_clusters(row["clusters"]),
                    memcpy_gb_s=float(row["memcpy_gb_s"]),
                    cache_bytes=float(row["cache_kb"]) * 1024,
                ),
            )
            for row in csv.DictReader(file)
        )


def find_chip(device: str, soc: str, cores_used: str) -> Chip | None:
    """The chip that a row names; restricted to `cores_used` where that lists cores. None for an unknown core.

    The SoC's own name decides before the device's. Where neither is known but the cores are listed, a chip is made of
    them, with the clock, memory bandwidth and cache that are usual beside such a core.
    """
    listed = parse_clusters(cores_used)
    for text in (soc, device):
        for entry in _known():
            if entry.pattern.search(text):
                slowest = entry.chip.clusters[-1:] if "little" in cores_used.lower() else ()
                return _restricted(entry.chip, listed or slowest)
    if not listed:
        listed = parse_clusters(f"{soc} {device}")
    return _typical(listed) if listed else None


def _restricted(chip: Chip, listed: tuple[Cluster, ...]) -> Chip:
    """Listed cores in place of the chip's, with the chip's clock unless the row gives one."""
    if not listed:
        return chip
    clocks = {cluster.core.name: cluster.ghz for cluster in chip.clusters}
    clusters = tuple(
        Cluster(count=c.count, core=c.core, ghz=clocks.get(c.core.name, c.ghz) if _is_typical(c) else c.ghz)
        for c in listed
    )
    return Chip(name=chip.name, clusters=clusters, memcpy_gb_s=chip.memcpy_gb_s, cache_bytes=chip.cache_bytes)


def _is_typical(cluster: Cluster) -> bool:
    return cluster.ghz == TYPICAL_GHZ.get(cluster.core.name, DEFAULT_GHZ)


def _typical(clusters: tuple[Cluster, ...]) -> Chip:
    """A chip of these cores with the medians of the known chips whose fastest cores are the same, or are as wide."""
    fastest = clusters[0].core
    alike = [e.chip for e in _known() if e.chip.clusters[0].core == fastest] or [
        e.chip for e in _known() if e.chip.clusters[0].core.float_macs == fastest.float_macs
    ]
    return Chip(
        name="+".join(f"{c.count}x{c.core.name}" for c in clusters),
        clusters=clusters,
        memcpy_gb_s=median(chip.memcpy_gb_s for chip in alike),
        cache_bytes=median(chip.cache_bytes for chip in alike),
    )
