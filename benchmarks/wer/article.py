"""Three scenarios of an article on compressed Whispers: recipes made by hand for a device, and what it says of them."""

from dataclasses import dataclass, replace

from techniques import Technique, activations, channels, heads, layers

from compression.calibration.calibration import Calibration
from compression.recipe.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the article says: in words, and as shares of the original's costs, None where it says nothing."""

    text: str
    size: float | None = None
    flops: float | None = None
    latency: float | None = None
    memory: float | None = None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A device profile, a recipe, and what is claimed of it."""

    device: str
    recipe: Technique
    claim: Claim


def phone(original: Recipe, calibration: Calibration) -> Recipe:
    """Weights and activations at 8 bits, 60 % of the heads."""
    recipe = heads(0.4, refit=False)(eight_bits(original), calibration)
    return activations(8, "dynamic")(recipe, calibration)


def camera(original: Recipe, calibration: Calibration) -> Recipe:
    """Weights at 4 bits (convolutions at 8, as few as run), activations static at 8, 70 % of the FFN channels."""
    recipe = original.with_each_layer(attention_bits=4, ffn_bits=4)
    recipe = replace(recipe, embedding_bits=4, convolution_bits=8, group_size=32, symmetric=False)
    recipe = channels(0.3, refit=False)(recipe, calibration)
    return activations(8, "static")(recipe, calibration)


def car(original: Recipe, calibration: Calibration) -> Recipe:
    """Weights at 8 bits, activations at 16, two encoder layers fewer."""
    recipe = layers("encoder", 2)(eight_bits(original), calibration)
    return activations(16, "dynamic")(recipe, calibration)


def eight_bits(original: Recipe) -> Recipe:
    """Every matrix at 8 bits per channel."""
    recipe = original.with_each_layer(attention_bits=8, ffn_bits=8)
    return replace(recipe, embedding_bits=8, convolution_bits=8)


SCENARIOS = {
    "phone": Scenario(
        device="phone-midrange",
        recipe=phone,
        claim=Claim(text="8 bits, 60 % of the heads: 410 -> 120 MB, 3 times as fast", size=120 / 410, latency=1 / 3),
    ),
    "camera": Scenario(
        device="iot-camera",
        recipe=camera,
        claim=Claim(
            text="4 bits static, 70 % of the channels, distilled: 80 MB, 65 % less memory, in 1 GB of RAM", memory=0.35
        ),
    ),
    "car": Scenario(
        device="imx8mplus",
        recipe=car,
        claim=Claim(text="8-bit weights, 16-bit activations, two encoder layers fewer: half of the compute", flops=0.5),
    ),
}
