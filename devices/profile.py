"""Device profiles: a TOML of facts and a latency table, found by name or by path."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from math import log
from pathlib import Path

from common.errors import InputError, UnknownNameError
from common.files import sha256_of_text
from devices.facts import DeviceDescription, ProfileSource, RuntimeSupport, parse_description
from devices.host import fill_in_host
from devices.interval import UncertainTime, Z
from devices.operation import OPERATION_KINDS, Operation
from devices.plausibility import doubts
from devices.predictor import KernelPredictor
from devices.roofline import group_sizes, model_rows, precisions
from devices.streams import STREAMS, StreamPredictor
from devices.table import KernelClass, LatencyTable, format_table, parse_table

HOST = "host"


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """A target device. `digest` is the SHA-256 over the texts of the TOML and of the latency table."""

    name: str
    description: DeviceDescription
    table: LatencyTable
    digest: str
    _latencies: dict[Operation, UncertainTime] = field(default_factory=dict, init=False, repr=False, compare=False)
    _predictors: dict[KernelClass, KernelPredictor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def title(self) -> str:
        return self.description.title

    @property
    def source(self) -> ProfileSource:
        """Whether latencies are modelled (`estimated`) or were taken on the device (`measured`)."""
        return self.description.source

    @property
    def runtime(self) -> RuntimeSupport:
        return self.description.runtime

    @property
    def ram_available_mb(self) -> float:
        """What an application may use of the device's memory."""
        return self.description.facts.ram_available_mb.value

    @property
    def active_power_w(self) -> float | None:
        """What the board draws while it computes, its idle share included; None where nobody knows."""
        power = self.description.facts.active_power_w
        return None if power is None else power.value

    @property
    def idle_power_w(self) -> float | None:
        """What the board draws at rest; None where nobody knows."""
        power = self.description.facts.idle_power_w
        return None if power is None else power.value

    @property
    def threads(self) -> int:
        """On which the latencies are."""
        return self.description.threads

    @property
    def cores(self) -> int:
        """All cores of the device, whether the runtime uses them or not."""
        return self.description.cores

    @property
    def encoder_log_std(self) -> float:
        """Relative error that all operations of the encoder share: what is believed about the profile as a whole."""
        return log(self.description.facts.interval_factor.value) / Z

    @property
    def decoder_log_std(self) -> float:
        """The same of the decoder."""
        facts = self.description.facts
        return log((facts.decoder_interval_factor or facts.interval_factor).value) / Z

    @property
    def encoder_factor(self) -> float:
        """What the encoder's graph takes over the sum of its operations."""
        factor = self.description.facts.encoder_factor
        return 1.0 if factor is None else factor.value

    @property
    def decoder_factor(self) -> float:
        """What the decoder's graph takes over the sum of its operations."""
        factor = self.description.facts.decoder_factor
        return 1.0 if factor is None else factor.value

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Where the numbers disagree with each other; each may be right, but not all of them."""
        return doubts(self.description, self.table)

    def latency(self, operation: Operation) -> UncertainTime:
        """The time of one run of one operation; remembered, since searches ask the same ones again and again.

        Its error is that of interpolating between the table's rows. Raises InputError for a kernel that the table does
        not hold.
        """
        known = self._latencies.get(operation)
        if known is None:
            known = self._latencies[operation] = self._predictor(operation).latency(operation)
        return known

    def stream_extra_ms(self, reads: Mapping[Operation, float], step_ms: float) -> float:
        """What a step takes beyond the times of its operations, `step_ms` together, and before `decoder_factor`.

        `reads`: megabytes by kind of stream (`devices.streams`).
        """
        return self.streams.step_extra_ms(reads, step_ms, self.decoder_factor)

    @cached_property
    def streams(self) -> StreamPredictor:
        """What was measured of the device's shared cache; says nothing where it was not."""
        here = (self.threads, self.description.execution.core_set)
        classes = [(key, rows) for key, rows in self.table.classes.items() if (key.threads, key.core_set) == here]
        streams = [row for key, rows in classes if key.op in STREAMS for row in rows]
        return StreamPredictor.fit(streams)

    def _predictor(self, operation: Operation) -> KernelPredictor:
        key = KernelClass.of(operation, threads=self.threads, core_set=self.description.execution.core_set)
        predictor = self._predictors.get(key)
        if predictor is None:
            predictor = self._predictors[key] = self._fitted(key)
        return predictor

    def _fitted(self, key: KernelClass) -> KernelPredictor:
        rows = self.table.classes.get(key, ())
        if not rows:
            raise InputError(f"{self.table.file}: no latencies for {key}; {_similar(self.table, key)}")
        return KernelPredictor.fit(rows)


def _similar(table: LatencyTable, key: KernelClass) -> str:
    """What the table holds of this kind of operation."""
    known = [
        f"{kernel_class.weight_bits}/{kernel_class.activation_bits}{' in groups' if kernel_class.is_grouped else ''}"
        for kernel_class in table.classes
        if (kernel_class.op, kernel_class.threads, kernel_class.core_set) == (key.op, key.threads, key.core_set)
    ]
    return f"known weight/activation bits: {', '.join(sorted(known)) or 'none'}"


def known_profiles() -> tuple[str, ...]:
    """The names of the profiles that come with whisperfit, sorted."""
    resources = files("devices.profiles").iterdir()
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in resources if entry.name.endswith(".toml")))


def load_description(name_or_path: str) -> DeviceDescription:
    """A device's facts without its latency table; errors as for `load_profile`."""
    return _describe(_find(name_or_path))


def load_profile(name_or_path: str) -> DeviceProfile:
    """A profile by its name, or from the path of a TOML with, beside it, a CSV of the same name.

    Without the CSV the table of an `estimated` profile is made by the roofline model. Raises UnknownNameError
    for an unknown name, InputError for a file that cannot be read or is not valid.
    """
    found = _find(name_or_path)
    description = _describe(found)
    table_file = found.file.with_suffix(".csv")
    if found.table_text is not None:
        table, table_text = parse_table(found.table_text, file=table_file), found.table_text
    elif description.source == "measured":
        raise InputError(f"{found.file}: source is 'measured', but its latency table {table_file} does not exist")
    else:
        table = LatencyTable(rows=tuple(model_rows(description)), file=table_file)
        table_text = format_table(table.rows)
    _check_coverage(description, table)
    digest = sha256_of_text(found.facts_text + table_text)
    return DeviceProfile(name=found.name, description=description, table=table, digest=digest)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The texts of a profile; `file` is its TOML as error messages name it. `is_shipped`: comes with whisperfit."""

    name: str
    is_shipped: bool
    file: Path
    facts_text: str
    table_text: str | None


def _find(name_or_path: str) -> _Found:
    if name_or_path in known_profiles():
        folder = files("devices.profiles")
        table = folder / f"{name_or_path}.csv"
        return _Found(
            name=name_or_path,
            is_shipped=True,
            file=Path("devices/profiles") / f"{name_or_path}.toml",
            facts_text=(folder / f"{name_or_path}.toml").read_text(encoding="utf-8"),
            table_text=table.read_text(encoding="utf-8") if table.is_file() else None,
        )
    path = Path(name_or_path)
    if path.suffix != ".toml":
        raise UnknownNameError("device", name_or_path, known_profiles())
    try:
        table_path = path.with_suffix(".csv")
        return _Found(
            name=path.name if path.stem in known_profiles() else path.stem,
            is_shipped=False,
            file=path,
            facts_text=path.read_text(encoding="utf-8"),
            table_text=table_path.read_text(encoding="utf-8") if table_path.exists() else None,
        )
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"device profile {path} cannot be read: {error}") from error


def _describe(found: _Found) -> DeviceDescription:
    description = parse_description(found.facts_text, file=found.file)
    return fill_in_host(description) if found.is_shipped and found.name == HOST else description


def _check_coverage(description: DeviceDescription, table: LatencyTable) -> None:
    """Raise InputError unless the table prices every kernel that the runtime section offers, in groups and not."""
    threads, core_set = description.threads, description.execution.core_set
    for kind in OPERATION_KINDS:
        for precision in precisions(kind, description):
            for is_grouped in sorted({size > 0 for size in group_sizes(kind, precision)}):
                key = KernelClass(
                    op=kind,
                    weight_bits=precision.weight_bits,
                    activation_bits=precision.activation_bits,
                    is_grouped=is_grouped,
                    threads=threads,
                    core_set=core_set,
                )
                if key not in table.classes:
                    raise InputError(
                        f"{table.file}: no rows for {key}, which the profile's runtime offers; {_similar(table, key)}"
                    )
