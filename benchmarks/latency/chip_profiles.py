"""Device profiles of boards whose chip `boards_chips.csv` knows: their facts, written as TOML.

    python benchmarks/latency/chip_profiles.py && python -m devices.roofline

The first writes `devices/profiles/NAME.toml` of each board below, the second their latency tables. Clock, cores,
memory bandwidth and cache are the chip's; how much of its peak a core reaches is what `predictor_whisper_boards.py`
fitted for cores of its kind. RAM and power are the board's, where they are known. Edit this script, not the files.
"""

from dataclasses import dataclass
from pathlib import Path

from boards_chips import Chip, Core, find_chip

PROFILES = Path(__file__).parents[2] / "devices" / "profiles"
CHIPS = "benchmarks/latency/boards_chips.csv"
FITTED = "benchmarks/latency/predictor_whisper_boards.py"


@dataclass(frozen=True, kw_only=True)
class Power:
    """Of the whole board at the wall, in W."""

    active: float
    idle: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Board:
    """`chip`: as `boards_chips.csv` finds it. `threads`: on the fastest cores. `available_mb`: of `ram_mb`, for us."""

    name: str
    title: str
    chip: str
    threads: int
    ram_mb: int
    available_mb: int
    ram_source: str
    power: Power | None = None


BOARDS = (
    Board(
        name="rpi-zero2w",
        title="Raspberry Pi Zero 2 W",
        chip="rp3a0",
        threads=4,
        ram_mb=448,
        available_mb=310,
        ram_source="427 MiB are visible of 512, sbc-bench results/3E85.txt; 131 MiB are used after boot on a Pi 4",
        power=Power(
            active=3.7, idle=1.2, source="Raspberry Pi CM0, the same chip, geerlingguy/sbc-reviews results.yml"
        ),
    ),
    Board(
        name="rpi3",
        title="Raspberry Pi 3 Model B+",
        chip="bcm2837b0",
        threads=4,
        ram_mb=950,
        available_mb=760,
        ram_source="1 GB, of which the graphics take some; 80 %",
        power=Power(active=5.6, idle=3.1, source="geerlingguy/sbc-reviews results.yml"),
    ),
    Board(
        name="imx8mm",
        title="NXP i.MX 8M Mini EVK",
        chip="imx8mm",
        threads=4,
        ram_mb=2000,
        available_mb=1600,
        ram_source="LPDDR4 of the evaluation kit, not verified; 80 %",
    ),
    Board(
        name="imx93",
        title="NXP i.MX 93 EVK",
        chip="imx93",
        threads=2,
        ram_mb=2000,
        available_mb=1600,
        ram_source="LPDDR4X of the evaluation kit, not verified; 80 %",
    ),
    Board(
        name="imx95",
        title="NXP i.MX 95 EVK",
        chip="imx95",
        threads=6,
        ram_mb=8000,
        available_mb=6400,
        ram_source="boards are sold with 8 or 16 GB, not verified; 80 %",
    ),
    Board(
        name="rk3566",
        title="RK3566 board, 2 GB, such as Radxa Zero 3W",
        chip="rk3566",
        threads=4,
        ram_mb=2000,
        available_mb=1600,
        ram_source="boards are sold with 1 to 8 GB; 80 %",
        power=Power(active=2.9, idle=1.7, source="Orange Pi CM4, the same chip, geerlingguy/sbc-reviews results.yml"),
    ),
    Board(
        name="rk3588",
        title="RK3588 board, 8 GB, such as Orange Pi 5: its four Cortex-A76",
        chip="rk3588",
        threads=4,
        ram_mb=8000,
        available_mb=6400,
        ram_source="boards are sold with 4 to 32 GB; 80 %",
        power=Power(active=10.0, idle=1.0, source="Orange Pi 5, geerlingguy/sbc-reviews results.yml"),
    ),
    Board(
        name="jetson-orin-nano",
        title="NVIDIA Jetson Orin Nano, 8 GB: its CPU",
        chip="orin nano",
        threads=6,
        ram_mb=8000,
        available_mb=6400,
        ram_source="shared with the GPU; 80 %",
    ),
    Board(
        name="phone-sd865",
        title="Phone with a Snapdragon 865, CPU",
        chip="snapdragon 865",
        threads=4,
        ram_mb=8000,
        available_mb=2000,
        ram_source="usual for the class; a quarter: Android ends larger applications in the background",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Shares of the peak that a kind of core reaches, each with why."""

    float_share: float
    int8_share: float
    why_int8: str
    dispatch_cycles: int


def efficiency_of(core: Core) -> Efficiency:
    """As the shipped profiles of the same kind of core have it."""
    if core.in_order and core.has_dot:
        why = "as Cortex-A76 (0.28), times 0.63 in order; no board of this kind was timed"
        return Efficiency(float_share=0.16, int8_share=0.18, why_int8=why, dispatch_cycles=50_000)
    if core.in_order:
        why = "as i.MX 8M Plus: 1.6 MAC/cycle"
        return Efficiency(float_share=0.16, int8_share=0.30, why_int8=why, dispatch_cycles=50_000)
    if core.has_dot:
        why = "as Cortex-A76: parakeet 0.6B int8 by ONNX Runtime on the four A76 of RK3588"
        return Efficiency(float_share=0.25, int8_share=0.28, why_int8=why, dispatch_cycles=30_000)
    why = "as Cortex-A72: 2.6 MAC/cycle"
    return Efficiency(float_share=0.25, int8_share=0.32, why_int8=why, dispatch_cycles=33_000)


def main() -> None:
    for board in BOARDS:
        (PROFILES / f"{board.name}.toml").write_text(profile(board), encoding="utf-8")


def profile(board: Board) -> str:
    """The TOML of a board."""
    chip = find_chip(board.chip, board.chip, "")
    if chip is None:
        raise SystemExit(f"{board.name}: boards_chips.csv knows no chip {board.chip!r}")
    return "\n\n".join([_head(board, chip), _cores(board, chip), _facts(board), _roofline(chip)]) + "\n"


def _fact(name: str, value: float, unit: str, kind: str, source: str) -> str:
    return f'{name} = {{ value = {value:g}, unit = "{unit}", kind = "{kind}", source = "{source}" }}'


def _head(board: Board, chip: Chip) -> str:
    note = f"From what is public of the chip ({chip.name}) and of its cores; nobody timed this board."
    return f"""# written by benchmarks/latency/chip_profiles.py
format_version = 2
title = "{board.title}"
source = "estimated"
note = "{note}"

[runtime]
name = "onnxruntime"
weight_bits = [4, 8, 16]
embedding_bits = [4, 8, 16]
convolution_bits = [8, 16]
activation_bits = [8, 32]
group_sizes = [16, 32, 64, 128]
head_multiple = 1
channel_multiple = 32
source = "ONNX Runtime 1.32 CPU provider: MatMulNBits (4, 8 bits), W8A8 run; it refuses 3 bits (measured on x86-64)\""""


def _cores(board: Board, chip: Chip) -> str:
    used = chip.clusters[0]
    # one prime core beside equals counts as one of them, at their clock: the slowest of the threads decides
    alike = [cluster for cluster in chip.clusters if cluster.core == used.core]
    count, ghz = sum(cluster.count for cluster in alike), min(cluster.ghz for cluster in alike)
    core, threads = used.core, min(board.threads, count)
    label = core.name.lower()
    peak = "16 multiply-adds in 3 vector instructions" if core.in_order else "16 multiply-adds in 2 cycles"
    int8 = "SDOT: four times the float rate" if core.has_dot else f"no SDOT: {peak}"
    return "\n".join(
        [
            "[execution]",
            f'core_set = "{label}"',
            _fact("threads", threads, "threads", "estimated", "the fastest cores"),
            "",
            f"[core_sets.{label}]",
            f'core = "{f"Cortex-{core.name}" if core.name[0] in "AX" else core.name}"',
            f'kernels = "{"neon_dot" if core.has_dot else "neon"}"',
            _fact("count", count, "cores", "estimated", f"{CHIPS}"),
            _fact("clock_mhz", 1000 * ghz, "MHz", "estimated", f"{CHIPS}, the slowest of these cores"),
            _fact("float_macs_per_cycle", core.float_macs, "MAC/cycle", "derived", "width and number of vector pipes"),
            _fact("int8_macs_per_cycle", core.int8_macs, "MAC/cycle", "derived", int8),
        ]
    )


def _facts(board: Board) -> str:
    interval = "90 % interval: error of predictions for chips left out is 1.55 times for 90 % of 51 Arm rows"
    power = board.power
    return "\n".join(
        [
            "[facts]",
            _fact("ram_mb", board.ram_mb, "MB", "estimated", board.ram_source),
            _fact("ram_available_mb", board.available_mb, "MB", "estimated", board.ram_source),
            *([_fact("active_power_w", power.active, "W", "estimated", power.source)] if power else []),
            *([_fact("idle_power_w", power.idle, "W", "estimated", power.source)] if power else []),
            _fact(
                "interval_factor", 2.1, "factor", "estimated", f"{interval} ({FITTED}); wider without a measured board"
            ),
        ]
    )


def _roofline(chip: Chip) -> str:
    core, ghz = chip.clusters[0].core, chip.clusters[0].ghz
    efficiency = efficiency_of(core)
    dispatch = efficiency.dispatch_cycles / ghz / 1000
    order = "in order" if core.in_order else "out of order"
    source = f"share of the float32 peak of cores that run {order}; fitted, {FITTED}"
    attention = "share of the float rate, beside softmax: as the other profiles"
    instructions = f"0.74 (fitted, {FITTED}) of {core.vector_issue:g} vector instructions a cycle"
    return "\n".join(
        [
            "[roofline]",
            _fact("memory_bandwidth_gb_s", 1.5 * chip.memcpy_gb_s, "GB/s", "derived", f"1.5 x memcpy, {CHIPS}"),
            _fact("last_level_cache_kb", chip.cache_bytes / 1024, "KB", "estimated", CHIPS),
            _fact("float_efficiency", efficiency.float_share, "fraction", "derived", source),
            _fact("int8_efficiency", efficiency.int8_share, "fraction", "derived", efficiency.why_int8),
            _fact("attention_efficiency", 0.68, "fraction", "derived", attention),
            _fact("instructions_per_cycle", 0.74 * core.vector_issue, "instructions/cycle", "derived", instructions),
            _fact(
                "operation_overhead_us",
                round(dispatch),
                "us",
                "estimated",
                f"dispatch and thread wake-up, about {efficiency.dispatch_cycles:,} cycles; not measured",
            ),
            _fact(
                "session_overhead_us", round(10 * dispatch), "us", "estimated", "ten operations' overhead; not measured"
            ),
        ]
    )


if __name__ == "__main__":
    main()
