"""The schema of a device's TOML: what is known about it, each number with its unit, kind and source."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import InputError
from common.parsing import parse_toml
from devices.instruction_counts import Kernels

FactKind = Literal["measured", "derived", "estimated"]
"""Measured by the named source, derived from such a measurement, or our best estimate."""
ProfileSource = Literal["estimated", "measured"]
"""Whether a profile's latencies come from the roofline model or from runs on the device."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fact(_Frozen):
    """One number about a device; `source` says where to check it."""

    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    unit: str
    kind: FactKind
    source: Annotated[str, Field(min_length=1)]


RANGES = {
    "cores": (1, 4096),
    "threads": (1, 4096),
    "MHz": (10, 10_000),  # no processor runs at 10 GHz
    "MB": (16, 64e6),  # from a microcontroller's external memory to 64 TB
    "KB": (1, 4e6),  # the largest last-level caches hold 1.2 GB
    "W": (0.001, 10_000),
    "GB/s": (0.05, 1500),  # a server's high-bandwidth memory streams 1,000
    "us": (0.001, 1e6),
    "MAC/cycle": (0.01, 4096),  # a core's matrix unit does 1,024 of int8
    "instructions/cycle": (0.01, 16),
    "fraction": (0.0001, 1),
    "factor": (0.01, 100),
}
"""What a number in each unit may be by physics; outside it, it is in another unit or mistyped."""


def _in_unit(unit: str) -> AfterValidator:
    low, high = RANGES[unit]

    def check(fact: Fact) -> Fact:
        if fact.unit != unit:
            raise ValueError(f"the unit must be {unit!r}, but got {fact.unit!r}")
        if not low <= fact.value <= high:
            steps = (0.01,) if unit == "fraction" else (1e-3, 1e3, 1e-6, 1e6, 1e-9)
            scaled = (fact.value * step for step in steps)
            likely = next((f"; is it {value:g}?" for value in scaled if low <= value <= high), "")
            raise ValueError(f"the value must be from {low:g} to {high:g} {unit}, but got {fact.value:g}{likely}")
        return fact

    return AfterValidator(check)


def _whole(fact: Fact) -> Fact:
    if fact.value != int(fact.value):
        raise ValueError(f"the value must be whole, but got {fact.value:g}")
    return fact


def _factor(fact: Fact) -> Fact:
    if fact.value < 1:
        raise ValueError(f"the value must be at least 1, but got {fact.value:g}")
    return fact


Cores = Annotated[Fact, _in_unit("cores"), AfterValidator(_whole)]
Threads = Annotated[Fact, _in_unit("threads"), AfterValidator(_whole)]
Megahertz = Annotated[Fact, _in_unit("MHz")]
Megabytes = Annotated[Fact, _in_unit("MB")]
Kilobytes = Annotated[Fact, _in_unit("KB")]
Watts = Annotated[Fact, _in_unit("W")]
GigabytesPerSecond = Annotated[Fact, _in_unit("GB/s")]
Microseconds = Annotated[Fact, _in_unit("us")]
MacsPerCycle = Annotated[Fact, _in_unit("MAC/cycle")]
InstructionsPerCycle = Annotated[Fact, _in_unit("instructions/cycle")]
Fraction = Annotated[Fact, _in_unit("fraction")]
Factor = Annotated[Fact, _in_unit("factor"), AfterValidator(_factor)]
Ratio = Annotated[Fact, _in_unit("factor")]


def _among(*known: int) -> AfterValidator:
    def check(values: tuple[int, ...]) -> tuple[int, ...]:
        unknown = [value for value in values if value not in known]
        if unknown:
            raise ValueError(f"{unknown[0]} is none of {', '.join(map(str, known))}, for which there are kernels")
        if len(set(values)) < len(values):
            raise ValueError(f"each may stand there once, but got {list(values)}")
        return values

    return AfterValidator(check)


Bits = Annotated[tuple[int, ...], Field(min_length=1), _among(2, 4, 8, 16, 32)]
"""Stored; ONNX Runtime has no kernels for other integers (docs/decisions/0010)."""
ActivationBits = Annotated[tuple[int, ...], Field(min_length=1), _among(8, 16, 32)]
GroupSizes = Annotated[tuple[int, ...], Field(min_length=1), _among(16, 32, 64, 128, 256)]
Multiple = Annotated[int, Field(ge=1, le=4096)]


class RuntimeSupport(_Frozen):
    """What the device's runtime executes, and so what a search space may offer.

    Bits are stored bits per weight (16: float16 storage, float32 arithmetic) and bits of activations.
    `group_sizes`: weights per scale; `head_multiple`, `channel_multiple`: granularity of pruning that stays fast.
    """

    name: str
    weight_bits: Bits
    embedding_bits: Bits
    convolution_bits: Bits
    activation_bits: ActivationBits
    group_sizes: GroupSizes
    head_multiple: Multiple
    channel_multiple: Multiple
    source: Annotated[str, Field(min_length=1)]


class CoreSet(_Frozen):
    """Equal cores that run together.

    `kernels`: which of the runtime's kernels their instruction set lets run. Peaks are per core; they, the clock and
    `kernels` are needed where latencies are modelled.
    """

    core: str
    count: Cores
    clock_mhz: Megahertz | None = None
    kernels: Kernels | None = None
    float_macs_per_cycle: MacsPerCycle | None = None
    int8_macs_per_cycle: MacsPerCycle | None = None

    @property
    def summary(self) -> str:
        """Such as `4 x Cortex-A53 @ 1.80 GHz`."""
        clock = "" if self.clock_mhz is None else f" @ {self.clock_mhz.value / 1000:.2f} GHz"
        return f"{self.count.value:.0f} x {self.core}{clock}"


class Execution(_Frozen):
    """Where the latency table was, or would be, measured: threads pinned to one core set."""

    core_set: str
    threads: Threads


class DeviceFacts(_Frozen):
    """What costs need beside the latency table.

    `encoder_factor`, `decoder_factor`: what the graphs take over the sum of their operations, where that was measured.
    Power is that of the whole board; it may be missing, as a machine without a meter cannot tell.
    `interval_factor`: the true latency is believed to lie within median / factor and median x factor;
    `decoder_interval_factor`: that of the decoder's graph, where it is known to be another one.
    """

    ram_mb: Megabytes
    ram_available_mb: Megabytes
    active_power_w: Watts | None = None
    idle_power_w: Watts | None = None
    encoder_factor: Ratio | None = None
    decoder_factor: Ratio | None = None
    interval_factor: Factor
    decoder_interval_factor: Factor | None = None


class RooflineFacts(_Frozen):
    """The constants of `devices.roofline`; efficiencies are fractions of peak with all threads running.

    `attention_efficiency` is a fraction of the float rate; `instructions_per_cycle` is per core, of kernels that are no
    blocked products.
    """

    memory_bandwidth_gb_s: GigabytesPerSecond
    last_level_cache_kb: Kilobytes
    float_efficiency: Fraction
    int8_efficiency: Fraction
    attention_efficiency: Fraction
    instructions_per_cycle: InstructionsPerCycle
    operation_overhead_us: Microseconds
    session_overhead_us: Microseconds


class DeviceDescription(_Frozen):
    """A device's whole TOML. `format_version`: of it and of the table beside it."""

    format_version: Literal[2]
    title: str
    source: ProfileSource
    note: str
    runtime: RuntimeSupport
    execution: Execution
    core_sets: Annotated[dict[str, CoreSet], Field(min_length=1)]
    facts: DeviceFacts
    roofline: RooflineFacts | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "DeviceDescription":
        name, threads = self.execution.core_set, self.execution.threads.value
        if name not in self.core_sets:
            raise ValueError(f"execution.core_set {name!r} is not among core_sets: {', '.join(self.core_sets)}")
        if threads > (cores := self.core_sets[name].count.value):
            raise ValueError(f"execution.threads ({threads:g}) is more than the cores of {name!r} ({cores:g})")
        if self.facts.ram_available_mb.value > self.facts.ram_mb.value:
            raise ValueError("facts.ram_available_mb is more than facts.ram_mb")
        if self.source == "estimated" and self.roofline is None:
            raise ValueError("roofline is missing: the latencies of an estimated profile are modelled from it")
        active, idle = self.facts.active_power_w, self.facts.idle_power_w
        if active and idle and idle.value > active.value:
            raise ValueError("facts.idle_power_w is more than facts.active_power_w")
        return self

    @property
    def threads(self) -> int:
        return int(self.execution.threads.value)

    @property
    def cores(self) -> int:
        """All cores of the device, whether the runtime uses them or not."""
        return sum(int(cores.count.value) for cores in self.core_sets.values())

    @property
    def active_cores(self) -> CoreSet:
        return self.core_sets[self.execution.core_set]

    @property
    def cores_summary(self) -> str:
        """Such as `4 x Cortex-A53 @ 1.80 GHz`, one part per core set."""
        return " + ".join(cores.summary for cores in self.core_sets.values())

    def named_facts(self) -> tuple["NamedFact", ...]:
        """Every number with its source, named by its path in the TOML."""
        sections: dict[str, _Frozen] = {"execution": self.execution}
        sections |= {f"core_sets.{name}": cores for name, cores in self.core_sets.items()}
        sections |= {"facts": self.facts} | ({"roofline": self.roofline} if self.roofline else {})
        return tuple(
            NamedFact(name=f"{path}.{field}", fact=fact)
            for path, section in sections.items()
            for field, fact in _facts_of(section)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedFact:
    """A fact with its path in the TOML, such as `facts.ram_mb`."""

    name: str
    fact: Fact


def _facts_of(section: _Frozen) -> Iterator[tuple[str, Fact]]:
    return ((name, value) for name, value in section if isinstance(value, Fact))


def parse_description(text: str, *, file: Path) -> DeviceDescription:
    """Raise InputError naming `file` and the first wrong key unless `text` follows the schema."""
    try:
        return DeviceDescription.model_validate(parse_toml(text))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "profile"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InputError(f"{file}: {key}: {first['msg'].removeprefix('Value error, ')}{more}") from error
    except ValueError as error:
        raise InputError(f"{file}: not valid TOML: {error}") from error
