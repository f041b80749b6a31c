"""Recipes drawn at random from all that a runtime executes: what a predictor of latency is made for and judged by."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import DecoderLayer, EncoderLayer, Recipe
from devices.facts import RuntimeSupport

Layer = TypeVar("Layer", bound=EncoderLayer)

SHORTEST_WINDOW_S = 5
LONGEST_WINDOW_S = 30
MOST_TOKENS = 30
DROPPED = 0.15
"""Probability that a layer is left out; the first of a stack stays."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A recipe of a model at work on an utterance of `audio_s` seconds and `tokens` generated tokens."""

    dimensions: Dimensions
    recipe: Recipe
    audio_s: float
    tokens: int


def random_workloads(dimensions: Dimensions, runtime: RuntimeSupport, *, seed: int) -> Iterator[Workload]:
    """Endless; equal for equal arguments. Heads, channels and bits differ from layer to layer."""
    rng = random.Random(seed)
    while True:
        recipe = _recipe(dimensions, runtime, rng).canonical(dimensions)
        audio_s = rng.uniform(1, LONGEST_WINDOW_S - 4)
        yield Workload(dimensions=dimensions, recipe=recipe, audio_s=audio_s, tokens=rng.randint(5, MOST_TOKENS))


def _recipe(dimensions: Dimensions, runtime: RuntimeSupport, rng: random.Random) -> Recipe:
    bits = _mixture(runtime.weight_bits, rng)
    encoder = tuple(_encoder_layer(dimensions, runtime, bits, rng) for _ in range(dimensions.n_audio_layer))
    decoder = tuple(_decoder_layer(dimensions, runtime, bits, rng) for _ in range(dimensions.n_text_layer))
    return Recipe(
        encoder=_dropped(encoder, rng),
        decoder=_dropped(decoder, rng),
        embedding_bits=rng.choice(runtime.embedding_bits),
        convolution_bits=rng.choice(runtime.convolution_bits),
        activation_bits=rng.choice(runtime.activation_bits),
        group_size=rng.choice((0, *runtime.group_sizes)),
        symmetric=rng.random() < 0.5,
        window_s=float(rng.randint(SHORTEST_WINDOW_S, LONGEST_WINDOW_S)),
    )


def _mixture(bits: Sequence[int], rng: random.Random) -> Sequence[int]:
    """One precision in all layers, or any of several."""
    return rng.sample(bits, rng.randint(1, len(bits)))


def _dropped(layers: tuple[Layer, ...], rng: random.Random) -> tuple[Layer | None, ...]:
    return (layers[0], *(None if rng.random() < DROPPED else layer for layer in layers[1:]))


def _encoder_layer(d: Dimensions, runtime: RuntimeSupport, bits: Sequence[int], rng: random.Random) -> EncoderLayer:
    return EncoderLayer(
        heads=_kept(d.n_audio_head, runtime.head_multiple, rng),
        ffn_channels=_kept(d.audio_ffn, runtime.channel_multiple, rng),
        attention_bits=rng.choice(bits),
        ffn_bits=rng.choice(bits),
    )


def _decoder_layer(d: Dimensions, runtime: RuntimeSupport, bits: Sequence[int], rng: random.Random) -> DecoderLayer:
    return DecoderLayer(
        heads=_kept(d.n_text_head, runtime.head_multiple, rng),
        cross_heads=_kept(d.n_text_head, runtime.head_multiple, rng),
        ffn_channels=_kept(d.text_ffn, runtime.channel_multiple, rng),
        attention_bits=rng.choice(bits),
        ffn_bits=rng.choice(bits),
    )


def _kept(whole: int, multiple: int, rng: random.Random) -> int:
    """Between a quarter and all of the units, all of them in a third of the cases."""
    if rng.random() < 1 / 3:
        return whole
    steps = whole // multiple
    return multiple * rng.randint(max(1, steps // 4), steps)
