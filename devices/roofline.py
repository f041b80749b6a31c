"""Latency from facts: a roofline model (Williams, Waterman, Patterson 2009) with an overhead per operation.

    latency = max(arithmetic / rate, traffic / memory bandwidth) + overhead

`docs/devices.md` explains each constant. `python -m devices.roofline` writes the tables of all profiles anew.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

from common.files import write_text_whole
from devices.facts import DeviceDescription, parse_description
from devices.operation import FLOAT_BITS, Operation, OperationKind
from devices.table import TableRow, format_table

FLOAT_BYTES = 4
QUANTISED_BITS = 8
"""Weights of at most these bits are integers with scales; wider ones run as float32."""
SCALE_BITS_PER_WEIGHT = 1
"""A float32 scale per 32 weights, the default group of MatMulNBits."""
WIDEN_TO_FLOAT_MACS = 1.0
"""Arithmetic per quantised weight for float32 products: one multiply-add with the scale."""
WIDEN_TO_INT8_MACS = 0.5
"""Arithmetic per weight of fewer than 8 bits for integer products: a mask and a shift serve two weights."""
QUANTISE_MACS = 2
"""Arithmetic per activation to find its range and round it, in multiply-adds."""
ROW_MACS: dict[OperationKind, int] = {"softmax": 24, "layer_norm": 8, "gelu": 30}
"""Arithmetic per element, in multiply-adds: exponential and error function as polynomials, passes for sums."""
HEADS_PER_CALL = 6
"""One batched call serves all heads of a layer; the smallest Whisper has six."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What an operation asks of the machine.

    `float_macs`, `attention_macs`, `int8_macs`: multiply-adds by the kernel that executes them.
    `streamed_bytes`: read from memory whatever the cache; `cached_bytes`: only what exceeds the last-level cache.
    `calls`: kernel calls.
    """

    float_macs: float = 0
    attention_macs: float = 0
    int8_macs: float = 0
    streamed_bytes: float = 0
    cached_bytes: float = 0
    calls: float = 1


def streamed_bits(weight_bits: int) -> int:
    """Bits that memory delivers per weight: float16 storage is widened when the session loads."""
    return FLOAT_BITS if weight_bits > QUANTISED_BITS else weight_bits + SCALE_BITS_PER_WEIGHT


def _product_work(operation: Operation, activation16_slowdown: float) -> Work:
    """A product with stored weights: linear layers, and convolutions after im2col.

    Integer arithmetic needs integers on both sides; all else runs as float32.
    """
    m, k, n, bits = operation.m, operation.k, operation.n, operation.weight_bits
    is_integer = operation.activation_bits == 8 and bits <= QUANTISED_BITS
    if is_integer:
        widening = WIDEN_TO_INT8_MACS * (bits < QUANTISED_BITS)
    else:
        widening = WIDEN_TO_FLOAT_MACS * (bits <= QUANTISED_BITS)
    slowdown = activation16_slowdown if operation.activation_bits == 16 else 1
    macs = m * k * n * slowdown + k * n * widening
    rounding = QUANTISE_MACS * m * k * (operation.activation_bits < FLOAT_BITS)
    return Work(
        float_macs=rounding + (0 if is_integer else macs),
        int8_macs=macs if is_integer else 0,
        streamed_bytes=k * n * streamed_bits(bits) / 8,
        cached_bytes=FLOAT_BYTES * m * (k + n),
    )


def _attention_work(operation: Operation) -> Work:
    """Keys and values of all heads and layers pass through the cache between two uses: they are streamed."""
    m, k, n = operation.m, operation.k, operation.n
    return Work(
        attention_macs=m * k * n,
        streamed_bytes=FLOAT_BYTES * k * n,
        cached_bytes=FLOAT_BYTES * m * (k + n),
        calls=1 / HEADS_PER_CALL,
    )


def _rows_work(operation: Operation) -> Work:
    elements = operation.m * operation.n
    match operation.kind:
        case "embedding":
            return Work(float_macs=elements, streamed_bytes=elements * streamed_bits(operation.weight_bits) / 8)
        case "cache_append":
            return Work(streamed_bytes=2 * FLOAT_BYTES * elements)
        case kind:
            return Work(float_macs=ROW_MACS[kind] * elements, cached_bytes=2 * FLOAT_BYTES * elements)


def work_of(operation: Operation, *, activation16_slowdown: float) -> Work:
    """The work of any operation except `session`, which is overhead only."""
    match operation.kind:
        case "linear" | "convolution":
            return _product_work(operation, activation16_slowdown)
        case "attention":
            return _attention_work(operation)
        case _:
            return _rows_work(operation)


@dataclass(frozen=True, kw_only=True, slots=True)
class Roofline:
    """A device's rates with all threads running."""

    float_macs_per_s: float
    attention_macs_per_s: float
    int8_macs_per_s: float
    bytes_per_s: float
    cache_bytes: float
    activation16_slowdown: float
    operation_overhead_ms: float
    session_overhead_ms: float

    @classmethod
    def of(cls, description: DeviceDescription) -> "Roofline":
        cores, facts = description.active_cores, description.roofline
        cycles_per_s = cores.clock_mhz.value * 1e6 * description.threads
        float_macs_per_s = cycles_per_s * cores.float_macs_per_cycle.value * facts.float_efficiency.value
        return cls(
            float_macs_per_s=float_macs_per_s,
            attention_macs_per_s=float_macs_per_s * facts.attention_efficiency.value,
            int8_macs_per_s=cycles_per_s * cores.int8_macs_per_cycle.value * facts.int8_efficiency.value,
            bytes_per_s=facts.memory_bandwidth_gb_s.value * 1e9,
            cache_bytes=facts.last_level_cache_kb.value * 1024,
            activation16_slowdown=facts.activation16_slowdown.value,
            operation_overhead_ms=facts.operation_overhead_us.value / 1000,
            session_overhead_ms=facts.session_overhead_us.value / 1000,
        )

    def latency_ms(self, operation: Operation) -> float:
        """The model's formula, see the module's docstring."""
        if operation.kind == "session":
            return self.session_overhead_ms
        work = work_of(operation, activation16_slowdown=self.activation16_slowdown)
        arithmetic_s = (
            work.float_macs / self.float_macs_per_s
            + work.attention_macs / self.attention_macs_per_s
            + work.int8_macs / self.int8_macs_per_s
        )
        traffic_bytes = work.streamed_bytes + max(0.0, work.cached_bytes - self.cache_bytes)
        return 1000 * max(arithmetic_s, traffic_bytes / self.bytes_per_s) + work.calls * self.operation_overhead_ms


class Shapes(NamedTuple):
    """The lattice of one kind of operation: at least every shape that Whisper tiny to large has."""

    m: tuple[int, ...]
    k: tuple[int, ...]
    n: tuple[int, ...]


_ROWS = Shapes(m=(1, 8, 64, 512, 4096, 32768), k=(1,), n=(1, 8, 64, 512, 4096, 65536))
SHAPES: dict[OperationKind, Shapes] = {
    "linear": Shapes(m=(1, 4, 16, 64, 256, 2048), k=(32, 128, 512, 2048, 8192), n=(32, 128, 512, 2048, 8192, 65536)),
    "convolution": Shapes(m=(1, 16, 256, 4096), k=(64, 256, 1024, 4096), n=(64, 256, 1024, 4096)),
    "attention": Shapes(m=(1, 4, 16, 64, 256, 2048), k=(1, 16, 64, 256, 2048), n=(1, 16, 64, 256, 2048)),
    "softmax": _ROWS,
    "layer_norm": _ROWS,
    "gelu": _ROWS,
    "embedding": _ROWS,
    "cache_append": _ROWS,
    "session": Shapes(m=(1,), k=(1,), n=(1,)),
}


class Precision(NamedTuple):
    """Weight and activation bits of one lattice."""

    weight_bits: int
    activation_bits: int


def precisions(kind: OperationKind, description: DeviceDescription) -> tuple[Precision, ...]:
    """What the table of a device holds for a kind: what its runtime executes, and the uncompressed model."""
    runtime = description.runtime
    stored: dict[OperationKind, tuple[int, ...]] = {
        "linear": (*runtime.weight_bits, *runtime.embedding_bits),  # the embedding is also the logits' weight
        "convolution": runtime.convolution_bits,
        "embedding": runtime.embedding_bits,
    }
    if kind not in stored:
        return (Precision(FLOAT_BITS, FLOAT_BITS),)
    weights = sorted({*stored[kind], 16, FLOAT_BITS})
    activations = [FLOAT_BITS] if kind == "embedding" else sorted({*runtime.activation_bits, FLOAT_BITS})
    return tuple(Precision(*bits) for bits in product(weights, activations))


def model_rows(description: DeviceDescription) -> Iterator[TableRow]:
    """The whole latency table of a device by the model."""
    model = Roofline.of(description)
    for kind, shapes in SHAPES.items():
        for (weight_bits, activation_bits), (m, k, n) in product(precisions(kind, description), product(*shapes)):
            operation = Operation(kind=kind, m=m, k=k, n=n, weight_bits=weight_bits, activation_bits=activation_bits)
            yield TableRow(
                op=kind,
                m=m,
                k=k,
                n=n,
                weight_bits=weight_bits,
                activation_bits=activation_bits,
                threads=description.threads,
                core_set=description.execution.core_set,
                count=0,
                mean_ms=model.latency_ms(operation),
                std_ms=None,
                min_ms=None,
                source="roofline",
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
