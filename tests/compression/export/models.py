"""A Whisper with the real English vocabulary and random weights, small enough for unit tests, and recipes for it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from compression.calibration.calibration import Calibration, CalibrationSample, measure
from compression.compress import compress
from compression.export.manifest import Sources
from compression.export.targets import export
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.recipe.runtimes import unsupported_reason
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel
from tests.networks import random_network

COMPACT = Dimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=64,
    n_audio_head=4,
    n_audio_layer=2,
    n_vocab=51864,
    n_text_ctx=448,
    n_text_state=64,
    n_text_head=4,
    n_text_layer=3,
)


def compact_model() -> LoadedModel:
    """Every weight is exactly a float16 value."""
    torch.manual_seed(0)
    network = random_network(COMPACT)
    network.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    return LoadedModel(name="compact", digest="0", dimensions=COMPACT, stored_bits=16, network=network)


def compact_calibration(model: LoadedModel) -> Calibration:
    generator = torch.Generator().manual_seed(1)
    mel = torch.randn(80, 200, generator=generator)
    return measure(model, [CalibrationSample(mel=mel, tokens=torch.arange(9), prompt_length=2)])


def changed(
    recipe: Recipe,
    *,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
    bits: int | None = None,
    **model: Any,
) -> Recipe:
    """The recipe with other values in all of its encoder or decoder layers, in all of its matrices, in the model."""
    matrices = {} if bits is None else {"attention_bits": bits, "ffn_bits": bits}
    embedding = {} if bits is None else {"embedding_bits": bits}
    return replace(
        recipe,
        encoder=tuple(layer and replace(layer, **matrices, **(encoder or {})) for layer in recipe.encoder),
        decoder=tuple(layer and replace(layer, **matrices, **(decoder or {})) for layer in recipe.decoder),
        **embedding | model,
    )


def without(recipe: Recipe, stack: str, layer: int) -> Recipe:
    """The recipe with one layer less."""
    layers = list(getattr(recipe, stack))
    layers[layer] = None
    return replace(recipe, **{stack: tuple(layers)})


def written(model: LoadedModel, recipe: Recipe, folder: Path, target: str) -> Compressed:
    """The network of a recipe, exported for a target."""
    recipe = recipe.canonical(model.dimensions)
    network = compress(model, recipe, compact_calibration(model))
    export(model, recipe, network, folder, target=target, sources=Sources(model="compact"))
    return network


def check_refused(target: str, recipe: Recipe, begins: str) -> None:
    """The reason is one line that begins so: it names the gene."""
    text = unsupported_reason(target, recipe, COMPACT)
    assert text is not None
    assert text.startswith(begins)
    assert "\n" not in text
