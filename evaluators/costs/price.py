"""What a recipe costs on a device, without touching the model: sums over the inventory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import sqrt

from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from devices.energy import cpu_occupancy, energy_mj
from devices.facts import ProfileSource
from devices.interval import UncertainTime
from devices.operation import Operation
from devices.profile import DeviceProfile
from devices.streams import stream_of, streamed_bytes
from evaluators.costs.inventory import CACHED_PARTS, Part, parts, prompt_length

RUNTIME_BYTES = 43_000_000
"""The runtime's own code and heap: what ONNX Runtime 1.32 and two sessions add to a process's resident memory beside
weights, caches and activations (x86-64, benchmarks/speed/memory.py). Python itself is not in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """The costs of one utterance at batch 1; formulas in docs/costs.md.

    `size_bytes`: tensors in the artifact. `latency_ms`: median; `latency_low_ms`, `latency_high_ms`: 90 % interval.
    `encoder`: one window. `token`: one step of the decoder, on average over the utterance. `token_operations_ms`: the
    sum of its operations; `token_reads`: its megabytes by kind of stream, of which a shared cache forgets some.
    `rtf`: latency over the audio's length. `energy_mj`: what the board draws during the work, `energy_above_idle_mj`
    what the work adds to a board at rest; None where the profile has no power. `occupancy`: share of all cores that
    is busy when audio comes without a pause. `source`: of the latency, `estimated` or `measured`.
    """

    size_bytes: int
    flops: int
    parameters: int
    encoder: UncertainTime
    token: UncertainTime
    token_operations_ms: float
    token_reads: Mapping[Operation, float]
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    rtf: float
    peak_memory_bytes: int
    energy_mj: float | None
    energy_above_idle_mj: float | None
    occupancy: float
    source: ProfileSource


def price(
    dimensions: Dimensions, recipe: Recipe, profile: DeviceProfile, *, audio_s: float = 10.0, tokens: int = 30
) -> Costs:
    """The costs of an utterance of `audio_s` seconds and `tokens` generated tokens on a device.

    Raises InputError when the recipe does not fit the dimensions, the utterance does not fit Whisper, or the
    profile has no latency for an operation.
    """
    device = _Device(profile=profile)
    stages = {"encoder": _Total(), "decoder": _Total()}
    for _, part in parts(dimensions, recipe, audio_s=audio_s, tokens=tokens):
        stages[part.stage].add(_part_total(part, device))
    steps = prompt_length(dimensions) + tokens
    token_operations_ms, token_reads = stages["decoder"].ms / steps, stages["decoder"].reads
    stages["decoder"].ms += steps * profile.stream_extra_ms(token_reads, token_operations_ms)
    stages["encoder"].as_graph(profile.encoder_factor, profile.encoder_log_std)
    stages["decoder"].as_graph(profile.decoder_factor, profile.decoder_log_std)
    encoder = stages["encoder"].latency()
    token = stages["decoder"].latency(executions=steps)
    memory_bytes = _peak_memory_bytes(**stages)
    total = stages["encoder"]
    total.add(stages["decoder"])
    latency = total.latency()
    return Costs(
        size_bytes=total.weight_bytes,
        flops=total.flops,
        parameters=total.parameters,
        encoder=encoder,
        token=token,
        token_operations_ms=token_operations_ms,
        token_reads=token_reads,
        latency_ms=latency.ms,
        latency_low_ms=latency.low_ms,
        latency_high_ms=latency.high_ms,
        rtf=latency.ms / 1000 / audio_s,
        peak_memory_bytes=memory_bytes,
        **_energies(profile, latency.ms),
        occupancy=cpu_occupancy(latency_ms=latency.ms, audio_s=audio_s, threads=profile.threads, cores=profile.cores),
        source=profile.source,
    )


def _peak_memory_bytes(encoder: "_Total", decoder: "_Total") -> int:
    """The most of loading the encoder, of loading the decoder after it, and of running both.

    Sessions keep what they have allocated, so the activations of both are held together.
    """
    loaded_bytes = encoder.held_bytes + decoder.held_bytes
    activation_bytes = encoder.activation_bytes + decoder.activation_bytes
    running_bytes = loaded_bytes + encoder.cache_bytes + decoder.cache_bytes + activation_bytes
    loading_bytes = max(encoder.held_bytes + encoder.loading_bytes, loaded_bytes + decoder.loading_bytes)
    return RUNTIME_BYTES + max(loading_bytes, running_bytes)


def _energies(profile: DeviceProfile, latency_ms: float) -> dict[str, float | None]:
    """The fields of `Costs` that need power."""
    active_w, idle_w = profile.active_power_w, profile.idle_power_w
    above_w = None if active_w is None or idle_w is None else active_w - idle_w
    powers = {"energy_mj": active_w, "energy_above_idle_mj": above_w}
    return {
        name: None if power_w is None else energy_mj(latency_ms=latency_ms, power_w=power_w)
        for name, power_w in powers.items()
    }


def stored_bytes(dimensions: Dimensions, recipe: Recipe) -> int:
    """Bytes of the recipe's tensors in an artifact: `Costs.size_bytes`, on any device."""
    return sum(item.weight_bytes for _, part in parts(dimensions, recipe) for item in part.items)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Device:
    """A profile as a cheap key: itself and nothing equal to it, since hashing a latency table is slow."""

    profile: DeviceProfile

    def __hash__(self) -> int:
        return id(self.profile)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Device) and other.profile is self.profile


@dataclass(slots=True)
class _Total:
    """Running sums over items; `activation_bytes` is their maximum.

    `held_bytes`: weights in memory, as kernels read them and as files are mapped.
    `deviation_ms`: what all operations together are off when each is off by its own standard deviation;
    `common_ms`: what they are off by the error that they share. `reads`: megabytes in which each execution
    goes through its own weights, keys or values, by kind of stream.
    """

    weight_bytes: int = 0
    held_bytes: int = 0
    loading_bytes: int = 0
    cache_bytes: int = 0
    activation_bytes: int = 0
    parameters: int = 0
    flops: int = 0
    ms: float = 0.0
    deviation_ms: float = 0.0
    common_ms: float = 0.0
    reads: dict[Operation, float] = field(default_factory=dict)

    def add(self, other: "_Total") -> None:
        self.weight_bytes += other.weight_bytes
        self.held_bytes += other.held_bytes
        self.loading_bytes += other.loading_bytes
        self.cache_bytes += other.cache_bytes
        self.activation_bytes = max(self.activation_bytes, other.activation_bytes)
        self.parameters += other.parameters
        self.flops += other.flops
        self.ms += other.ms
        self.deviation_ms += other.deviation_ms
        self.common_ms += other.common_ms
        for kind, megabytes in other.reads.items():
            self.reads[kind] = self.reads.get(kind, 0.0) + megabytes

    def as_graph(self, factor: float, common_log_std: float) -> None:
        """Operations that run as one graph; `common_log_std`: relative error that they share."""
        self.ms *= factor
        self.deviation_ms *= factor
        self.common_ms = common_log_std * self.ms

    def latency(self, *, executions: int = 1) -> UncertainTime:
        """The time of one of so many equal executions."""
        log_std = sqrt(self.deviation_ms**2 + self.common_ms**2) / self.ms
        return UncertainTime(ms=self.ms / executions, log_std=log_std)


@lru_cache(maxsize=CACHED_PARTS)
def _part_total(part: Part, device: _Device) -> _Total:
    total = _Total()
    for item in part.items:
        latency, stream = device.profile.latency(item.operation), stream_of(item.operation)
        ms = item.count * latency.ms
        total.add(
            _Total(
                weight_bytes=item.weight_bytes,
                held_bytes=item.loaded_bytes + item.mapped_bytes,
                loading_bytes=item.loading_bytes,
                cache_bytes=item.cache_bytes,
                activation_bytes=item.activation_bytes,
                parameters=item.parameters,
                flops=item.flops,
                ms=ms,
                deviation_ms=ms * latency.log_std,
                reads={stream: streamed_bytes(item.operation) / 1e6} if stream else {},
            )
        )
    return total
