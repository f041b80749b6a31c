"""What a recipe costs on a device, without touching the model: sums over the inventory."""

from dataclasses import dataclass
from functools import lru_cache

from compression.dimensions import Dimensions
from compression.recipe import Recipe
from devices.facts import ProfileSource
from devices.profile import DeviceProfile
from evaluators.inventory import CACHED_PARTS, Part, parts

RUNTIME_BYTES = 20_000_000
"""The runtime's own code and heap: what importing ONNX Runtime 1.32 adds to a process's resident memory
(20.4 MB, measured on x86-64). Python itself is not in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """The costs of one utterance at batch 1; formulas in docs/costs.md.

    `size_bytes`: tensors in the artifact. `latency_low_ms`, `latency_high_ms`: sums of the operations' bounds.
    `rtf`: latency over the audio's length. `source`: of the latency, `estimated` or `measured`.
    """

    size_bytes: int
    flops: int
    encoder_flops: int
    decoder_flops: int
    parameters: int
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    rtf: float
    peak_memory_bytes: int
    energy_mj: float
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
    encoder_flops, decoder_flops = stages["encoder"].flops, stages["decoder"].flops
    # sessions keep what they allocated, so the two stages' activations are held together
    activation_bytes = sum(stage.activation_bytes for stage in stages.values())
    total = stages["encoder"]
    total.add(stages["decoder"])
    return Costs(
        size_bytes=total.weight_bytes,
        flops=total.flops,
        encoder_flops=encoder_flops,
        decoder_flops=decoder_flops,
        parameters=total.parameters,
        latency_ms=total.mean_ms,
        latency_low_ms=total.low_ms,
        latency_high_ms=total.high_ms,
        rtf=total.mean_ms / 1000 / audio_s,
        peak_memory_bytes=RUNTIME_BYTES + total.loaded_bytes + total.cache_bytes + activation_bytes,
        energy_mj=total.mean_ms * profile.active_power_w,
        source=profile.source,
    )


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
    """Running sums over items; `activation_bytes` is their maximum."""

    weight_bytes: int = 0
    loaded_bytes: int = 0
    cache_bytes: int = 0
    activation_bytes: int = 0
    parameters: int = 0
    flops: int = 0
    mean_ms: float = 0.0
    low_ms: float = 0.0
    high_ms: float = 0.0

    def add(self, other: "_Total") -> None:
        self.weight_bytes += other.weight_bytes
        self.loaded_bytes += other.loaded_bytes
        self.cache_bytes += other.cache_bytes
        self.activation_bytes = max(self.activation_bytes, other.activation_bytes)
        self.parameters += other.parameters
        self.flops += other.flops
        self.mean_ms += other.mean_ms
        self.low_ms += other.low_ms
        self.high_ms += other.high_ms


@lru_cache(maxsize=CACHED_PARTS)
def _part_total(part: Part, device: _Device) -> _Total:
    total = _Total()
    for item in part.items:
        latency = device.profile.latency(item.operation)
        total.add(
            _Total(
                weight_bytes=item.weight_bytes,
                loaded_bytes=item.loaded_bytes,
                cache_bytes=item.cache_bytes,
                activation_bytes=item.activation_bytes,
                parameters=item.parameters,
                flops=item.flops,
                mean_ms=item.count * latency.mean_ms,
                low_ms=item.count * latency.low_ms,
                high_ms=item.count * latency.high_ms,
            )
        )
    return total
