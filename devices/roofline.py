"""Latency from facts: a roofline model (Williams, Waterman, Patterson 2009) with an overhead per operation.

    latency = max(arithmetic, traffic / memory bandwidth) + overhead

`devices.instruction_counts` says what each operation asks for, `docs/devices.md` explains each constant. `python -m
devices.roofline` writes the tables of all profiles anew.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from common.files import write_text_whole
from devices.facts import DeviceDescription, parse_description
from devices.instruction_counts import INTEGER_BITS, SESSION_INSTRUCTIONS, Kernels, work_of
from devices.operation import FLOAT_BITS, Operation, OperationKind
from devices.table import TableRow, format_table

SOURCE = "roofline"
TOOL = "whisperfit 0.1.0"


@dataclass(frozen=True, kw_only=True, slots=True)
class Roofline:
    """A device's rates with all threads running."""

    kernels: Kernels
    float_macs_per_s: float
    attention_macs_per_s: float
    int8_macs_per_s: float
    instructions_per_s: float
    one_thread_instructions_per_s: float
    bytes_per_s: float
    cache_bytes: float
    operation_overhead_ms: float
    session_overhead_ms: float

    @classmethod
    def of(cls, description: DeviceDescription) -> "Roofline":
        """Raises InputError unless the cores' peaks and kernels are known."""
        cores, facts = description.active_cores, description.roofline
        if facts is None:
            raise ValueError("only a profile with a roofline section can be modelled")
        clock, float_macs, int8_macs = cores.clock_mhz, cores.float_macs_per_cycle, cores.int8_macs_per_cycle
        if cores.kernels is None or clock is None or float_macs is None or int8_macs is None:
            raise InputError(
                f"core set {description.execution.core_set!r} of {description.title!r}: kernels, clock_mhz, "
                "float_macs_per_cycle and int8_macs_per_cycle are needed to model latencies; give them, or a measured "
                "table"
            )
        cycles_per_s = clock.value * 1e6 * description.threads
        float_macs_per_s = cycles_per_s * float_macs.value * facts.float_efficiency.value
        return cls(
            kernels=cores.kernels,
            float_macs_per_s=float_macs_per_s,
            attention_macs_per_s=float_macs_per_s * facts.attention_efficiency.value,
            int8_macs_per_s=cycles_per_s * int8_macs.value * facts.int8_efficiency.value,
            instructions_per_s=cycles_per_s * facts.instructions_per_cycle.value,
            one_thread_instructions_per_s=clock.value * 1e6 * facts.instructions_per_cycle.value,
            bytes_per_s=facts.memory_bandwidth_gb_s.value * 1e9,
            cache_bytes=facts.last_level_cache_kb.value * 1024,
            operation_overhead_ms=facts.operation_overhead_us.value / 1000,
            session_overhead_ms=facts.session_overhead_us.value / 1000,
        )

    def latency_ms(self, operation: Operation) -> float:
        """The model's formula, see the module's docstring."""
        if operation.kind == "session":
            values_ms = operation.n * SESSION_INSTRUCTIONS / self.one_thread_instructions_per_s * 1000
            return self.session_overhead_ms + values_ms
        work = work_of(operation, self.kernels)
        arithmetic_s = (
            work.float_macs / self.float_macs_per_s
            + work.attention_macs / self.attention_macs_per_s
            + work.int8_macs / self.int8_macs_per_s
            + work.instructions / self.instructions_per_s
        )
        traffic_bytes = work.streamed_bytes + max(0.0, work.cached_bytes - self.cache_bytes)
        return 1000 * max(arithmetic_s, traffic_bytes / self.bytes_per_s) + self.operation_overhead_ms


class Shape(NamedTuple):
    """Dimensions of an operation; unused ones are 1."""

    heads: int = 1
    m: int = 1
    k: int = 1
    n: int = 1


_MATRICES = (
    (64, 384),
    (384, 64),
    (384, 384),
    (384, 1152),
    (384, 1536),
    (1536, 384),
    (512, 2048),
    (2048, 512),
    (768, 768),
    (768, 3072),
    (1280, 1280),
    (1280, 5120),
    (5120, 1280),
)
"""(k, n) of linear layers, from a pruned tiny to large."""
_VOCABULARIES = ((384, 51864), (512, 51865), (768, 51865), (1280, 51866))
_CONVOLUTIONS = ((240, 384), (1152, 384), (240, 768), (2304, 768), (384, 1280), (3840, 1280))
_POSITIONS = (50, 250, 500, 1000, 1500)
"""Encoder positions of windows of 1 to 30 s."""
_HEADS = (1, 6, 12, 20)
_HEAD_WIDTH = 64
_CACHE_LENGTHS = (1, 8, 32, 128, 448)
_NORM_ROWS = (1, 50, 100, 200, 350, 500, 750, 1000, 1250, 1500)
_WIDTHS = (384, 512, 768, 1024, 1280)
_ROWS = (1, 50, 150, 350, 750, 1500, 3000)
_CHANNELS = (64, 384, 768, 1536, 3072, 5120)
_INPUTS = tuple(Shape(m=m, k=k) for m, k in product(_ROWS[:-1], _CHANNELS))

SHAPES: dict[OperationKind, tuple[Shape, ...]] = {
    "gemm": tuple(Shape(m=m, k=k, n=n) for m, (k, n) in product((50, 300, 1500), _MATRICES)),
    "gemv": tuple(Shape(k=k, n=n) for k, n in ((64, 64), *_MATRICES, *_VOCABULARIES)),
    "quantise": _INPUTS,
    "dynamic_quantise": _INPUTS,
    "dequantise": _INPUTS,
    "convolution": tuple(Shape(m=m, k=k, n=n) for m, (k, n) in product((50, 300, 1500, 3000), _CONVOLUTIONS)),
    "attention": tuple(Shape(heads=h, m=m, k=_HEAD_WIDTH, n=m) for h, m in product(_HEADS, _POSITIONS)),
    "cached_attention": tuple(Shape(heads=h, k=_HEAD_WIDTH, n=n) for h, n in product(_HEADS, _CACHE_LENGTHS)),
    "cross_attention": tuple(Shape(heads=h, k=_HEAD_WIDTH, n=n) for h, n in product(_HEADS, _POSITIONS)),
    "split_heads": tuple(Shape(m=m, n=2 * _HEAD_WIDTH * h) for h, m in product(_HEADS, _POSITIONS)),
    "layer_norm": tuple(Shape(m=m, n=n) for m, n in product(_NORM_ROWS, _WIDTHS)),
    "gelu": tuple(Shape(m=m, n=n) for m, n in product(_ROWS, _CHANNELS)),
    "embedding": tuple(Shape(n=n) for n in (64, 384, 512, 768, 1024, 1280)),
    "session": tuple(Shape(n=n) for n in (1, 9, 26, 74, 194)),
}
"""Shapes of every kind in the tables: around those that Whisper tiny to large has, pruned ones included. None of
streams: the model reads weights from memory whatever the cache."""

TABLE_GROUP_SIZES = (32, 128)
"""Group sizes in the tables, for weights in blocks."""


class Precision(NamedTuple):
    """Weight and activation bits of a kernel."""

    weight_bits: int
    activation_bits: int


def precisions(kind: OperationKind, description: DeviceDescription) -> tuple[Precision, ...]:
    """What the table of a device holds for a kind: the kernels that its runtime runs, and those of float32."""
    runtime = description.runtime
    stored = {*runtime.weight_bits, *runtime.embedding_bits}
    integers = sorted(bits for bits in stored if bits <= INTEGER_BITS)
    match kind:
        case "gemm" | "gemv":
            with_integers = (INTEGER_BITS,) if INTEGER_BITS in runtime.activation_bits else ()
            activations = (FLOAT_BITS, *with_integers)
            pairs = (Precision(*bits) for bits in product(integers, activations))
            return (Precision(FLOAT_BITS, FLOAT_BITS), *pairs)
        case "embedding":
            return tuple(Precision(bits, FLOAT_BITS) for bits in (*integers, FLOAT_BITS))
        case "quantise" | "dynamic_quantise" | "dequantise":
            return tuple(Precision(FLOAT_BITS, bits) for bits in sorted(runtime.activation_bits) if bits < FLOAT_BITS)
        case "stream" | "cache_stream":
            return ()
        case _:
            return (Precision(FLOAT_BITS, FLOAT_BITS),)


def group_sizes(kind: OperationKind, precision: Precision) -> tuple[int, ...]:
    """Group sizes in the tables; 0 for floats, and for 8-bit products with one scale per channel (MatMulInteger)."""
    if precision.weight_bits > INTEGER_BITS:
        return (0,)
    if kind != "embedding" and precision == (INTEGER_BITS, INTEGER_BITS):
        return (0, *TABLE_GROUP_SIZES)
    return TABLE_GROUP_SIZES


def table_operations(description: DeviceDescription) -> Iterator[Operation]:
    """Every operation in a device's modelled table."""
    for kind, shapes in SHAPES.items():
        for precision in precisions(kind, description):
            for group_size, shape in product(group_sizes(kind, precision), shapes):
                yield Operation(kind=kind, **shape._asdict(), **precision._asdict(), group_size=group_size)


def model_rows(description: DeviceDescription) -> Iterator[TableRow]:
    """The whole latency table of a device by the model."""
    model = Roofline.of(description)
    for operation in table_operations(description):
        yield TableRow.of(
            operation,
            threads=description.threads,
            core_set=description.execution.core_set,
            repeats=0,
            median_ms=model.latency_ms(operation),
            mean_ms=None,
            std_ms=None,
            min_ms=None,
            source=SOURCE,
            tool=TOOL,
        )


PROFILES = Path(__file__).parent / "profiles"
MADE_WHEN_LOADED = ("host",)
"""Profiles without a committed table: nobody knows the user's machine beforehand."""


def modelled_tables(folder: Path = PROFILES) -> Iterator[tuple[Path, str]]:
    """The file and the text of every committed table that comes from the model."""
    for file in sorted(folder.glob("*.toml")):
        description = parse_description(file.read_text(encoding="utf-8"), file=file)
        if description.source == "estimated" and file.stem not in MADE_WHEN_LOADED:
            yield file.with_suffix(".csv"), format_table(model_rows(description))


if __name__ == "__main__":
    for table, text in modelled_tables():
        write_text_whole(table, text)
