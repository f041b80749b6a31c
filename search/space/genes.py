"""Genes: named values that a recipe is decoded from.

A gene is named after the recipe's field that it sets. Alone it holds for the whole model (`embedding_bits`),
behind a stack for all of its layers (`encoder.ffn_bits`), behind a layer's number for that layer only
(`encoder.3.ffn_bits`; `encoder.3.kept` drops it). `encoder.heads_removed` says how many units leave the whole
stack and `encoder.layers_removed` how many layers; importance decides which. `mean_bits` says how many bits a weight
has on average; a sensitivity profile decides which have more and which fewer.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import CompressionError, UnknownNameError
from compression.recipe.allocation import EMBEDDING_GROUP, Sensitivity, allocate_bits, group_weights
from compression.recipe.dimensions import Dimensions
from compression.recipe.embedding import FREQUENT_BITS
from compression.recipe.importance import allocate
from compression.recipe.recipe import DecoderLayer, EncoderLayer, Recipe
from compression.recipe.recovery_spec import STACKS, Stack
from devices.operation import FLOAT_BITS

Value = int | float | bool | str
Importance = Mapping[str, NDArray[np.float32]]
"""Importance of each unit by site key, such as `encoder.0.heads` (see `compression.calibration.calibration`)."""

MODEL_FIELDS = (
    "embedding_bits",
    "convolution_bits",
    "activation_bits",
    "activation_ranges",
    "range_estimator",
    "smoothing",
    "frequent_tokens",
    "group_size",
    "scale_bits",
    "symmetric",
    "rounding",
    "window_s",
)
VOCABULARY = "vocabulary"
FREQUENT_TOKENS = "frequent_tokens"
MEAN_BITS = "mean_bits"
NAMED_FIELDS = frozenset({"activation_ranges", "range_estimator", "rounding"})
"""Those of them whose values are names."""


def units_of(stack: Stack) -> tuple[str, ...]:
    """The fields of a layer that count prunable units."""
    return ("heads", "ffn_channels") if stack == "encoder" else ("heads", "cross_heads", "ffn_channels")


@dataclass(kw_only=True)
class Draft:
    """A recipe being decoded: a list of layers per stack, and the changed fields of the model."""

    layers: dict[Stack, list[Any]]
    model: dict[str, Value]
    vocabulary_language: str
    importance: Importance
    layer_importance: Mapping[str, float]
    sensitivity: Sensitivity
    channel_block: int

    def kept(self, stack: Stack) -> Iterator[int]:
        return (index for index, layer in enumerate(self.layers[stack]) if layer is not None)

    def change(self, stack: Stack, index: int, name: str, value: Value) -> None:
        layer = self.layers[stack][index]
        if layer is None:
            return
        before = getattr(layer, name)
        if before != value or type(before) is not type(value):  # a value of a wrong type is refused, even an equal one
            self.layers[stack][index] = replace(layer, **{name: value})


class Gene(ABC):
    """What one gene does to a draft, and how its value is read off a finished recipe."""

    rank: int
    """Genes are applied in this order: the more particular one has the last word."""

    @abstractmethod
    def apply(self, draft: Draft, value: Value) -> None: ...

    @abstractmethod
    def read(self, recipe: Recipe, original: Recipe) -> Value | None:
        """The value that decodes to this recipe, or None when any one does."""

    def read_among(self, recipe: Recipe, original: Recipe, values: Sequence[Value]) -> Value | None:
        """As `read`, where only these values are at hand: one of them if it decodes to this recipe."""
        return self.read(recipe, original)


@dataclass(frozen=True)
class ModelGene(Gene):
    """A field of the whole model."""

    name: str
    rank = 3

    def apply(self, draft: Draft, value: Value) -> None:
        draft.model[self.name] = value

    def read(self, recipe: Recipe, original: Recipe) -> Value | None:
        rounds_inputs = recipe.activation_bits < FLOAT_BITS
        has_effect = {
            "group_size": recipe.has_groups,
            "scale_bits": recipe.has_several_scales,
            "symmetric": recipe.is_quantised,
            "rounding": recipe.has_groups,
            "activation_ranges": rounds_inputs,
            "range_estimator": rounds_inputs and recipe.activation_ranges == "static",
            "smoothing": rounds_inputs,
            FREQUENT_TOKENS: recipe.embedding_bits < FREQUENT_BITS,
        }
        if not has_effect.get(self.name, True):
            return None
        value: Value = getattr(recipe, self.name)
        return value


@dataclass(frozen=True)
class VocabularyGene(Gene):
    """How many text tokens are kept, for the languages of the run's speech; 0 for all."""

    rank = 0

    def apply(self, draft: Draft, value: Value) -> None:
        draft.model |= {VOCABULARY: value, "vocabulary_language": draft.vocabulary_language}

    def read(self, recipe: Recipe, original: Recipe) -> Value | None:
        return recipe.vocabulary


@dataclass(frozen=True)
class LayersRemovedGene(Gene):
    """How many layers of a stack are dropped: those whose skipping costs least, each on its own."""

    stack: Stack
    rank = 0

    def apply(self, draft: Draft, value: Value) -> None:
        layers = draft.layers[self.stack]
        ascending = sorted(range(len(layers)), key=lambda index: draft.layer_importance[f"{self.stack}.{index}"])
        for index in ascending[: int(value)]:
            layers[index] = None

    def read(self, recipe: Recipe, original: Recipe) -> Value | None:
        return sum(layer is None for layer in getattr(recipe, self.stack))


@dataclass(frozen=True)
class StackGene(Gene):
    """A field of every layer of a stack; `layer` narrows it to one."""

    stack: Stack
    name: str
    layer: int | None = None

    @property
    def rank(self) -> int:  # type: ignore[override]
        return 3 if self.layer is None else 5

    def apply(self, draft: Draft, value: Value) -> None:
        for index in range(len(draft.layers[self.stack])) if self.layer is None else (self.layer,):
            draft.change(self.stack, index, self.name, value)

    def read(self, recipe: Recipe, original: Recipe) -> Value | None:
        layers = getattr(recipe, self.stack)
        chosen = layers if self.layer is None else (layers[self.layer],)
        values = [getattr(layer, self.name) for layer in chosen if layer is not None]
        # a rank is 0 where a layer has so few channels that it would save nothing
        return next((value for value in values if value), values[0] if values else None)


@dataclass(frozen=True)
class KeptGene(Gene):
    """Whether one layer stays; a stack's last one always does."""

    stack: Stack
    layer: int
    rank = 1

    def apply(self, draft: Draft, value: Value) -> None:
        if not value and set(draft.kept(self.stack)) > {self.layer}:
            draft.layers[self.stack][self.layer] = None

    def read(self, recipe: Recipe, original: Recipe) -> Value | None:
        return getattr(recipe, self.stack)[self.layer] is not None


@dataclass(frozen=True)
class MeanBitsGene(Gene):
    """How many bits a weight of the kept layers and the embedding has on average, at most.

    The sensitivity profile decides which groups have more and which fewer. Heads and channels count whether they leave
    or not, and frequent tokens as all others, so that this gene and those do not change each other's meaning.
    """

    dimensions: Dimensions
    rank = 2

    def apply(self, draft: Draft, value: Value) -> None:
        if not draft.sensitivity:
            raise CompressionError(f"{MEAN_BITS} needs a sensitivity profile")
        weights = self._weights(draft.layers, int(draft.model.get(VOCABULARY, 0)))
        for group, bits in allocate_bits(draft.sensitivity, weights, float(value)).items():
            if group == EMBEDDING_GROUP:
                draft.model["embedding_bits"] = bits
            else:
                stack, layer, part = _in_layer(group)
                draft.change(stack, layer, f"{part}_bits", bits)

    def read(self, recipe: Recipe, original: Recipe) -> Value | None:
        bits, weights = self._stored(recipe)
        return bits / weights

    def read_among(self, recipe: Recipe, original: Recipe, values: Sequence[Value]) -> Value | None:
        """The least value that the recipe keeps; where it keeps none, its mean."""
        bits, weights = self._stored(recipe)
        return min((value for value in values if bits <= float(value) * weights), key=float, default=bits / weights)

    def _stored(self, recipe: Recipe) -> tuple[int, int]:
        """Bits and weights in all."""
        layers: dict[Stack, Sequence[Any]] = {"encoder": recipe.encoder, "decoder": recipe.decoder}
        weights = self._weights(layers, recipe.vocabulary)
        bits = sum(count * _bits_of(recipe, group) for group, count in weights.items())
        return bits, sum(weights.values())

    def _weights(self, layers: Mapping[Stack, Sequence[Any]], vocabulary: int) -> dict[str, int]:
        kept = {stack: [index for index, layer in enumerate(layers[stack]) if layer is not None] for stack in STACKS}
        return group_weights(self.dimensions, encoder=kept["encoder"], decoder=kept["decoder"], vocabulary=vocabulary)


def _in_layer(group: str) -> tuple[Stack, int, str]:
    """Stack, layer and part of a group such as `decoder.3.ffn`."""
    stack, layer, part = group.split(".")
    return "encoder" if stack == "encoder" else "decoder", int(layer), part


def _bits_of(recipe: Recipe, group: str) -> int:
    if group == EMBEDDING_GROUP:
        return recipe.embedding_bits
    stack, layer, part = _in_layer(group)
    bits: int = getattr(getattr(recipe, stack)[layer], f"{part}_bits")
    return bits


@dataclass(frozen=True)
class UnitsRemovedGene(Gene):
    """How many heads or channels leave a whole stack, the least important of the kept layers first.

    Where layers were dropped, no more leave than the others can miss.
    """

    stack: Stack
    units: str
    rank = 4

    def apply(self, draft: Draft, value: Value) -> None:
        if not value:
            return
        keys = {f"{self.stack}.{index}.{self.units}": index for index in draft.kept(self.stack)}
        block = draft.channel_block if self.units == "ffn_channels" else 1
        removed = int(value)
        if len(keys) < len(draft.layers[self.stack]):
            removed = min(removed, sum((len(draft.importance[key]) // block - 1) * block for key in keys))
        kept = allocate({key: draft.importance[key] for key in keys}, removed, block=block)
        for key, index in keys.items():
            draft.change(self.stack, index, self.units, kept[key])

    def read(self, recipe: Recipe, original: Recipe) -> Value | None:
        pairs = zip(getattr(original, self.stack), getattr(recipe, self.stack), strict=True)
        return sum(getattr(before, self.units) - getattr(after, self.units) for before, after in pairs if after)


_STACK_GENE = re.compile(r"(?P<stack>encoder|decoder)\.((?P<layer>\d+)\.)?(?P<name>[a-z_]+)")


@lru_cache(maxsize=1024)
def gene(name: str, dimensions: Dimensions) -> Gene:
    """The gene of a name, for a model of these dimensions. Raises UnknownNameError."""
    if name in MODEL_FIELDS:
        return ModelGene(name)
    if name == VOCABULARY:
        return VocabularyGene()
    if name == MEAN_BITS:
        return MeanBitsGene(dimensions)
    match = _STACK_GENE.fullmatch(name)
    if match:
        stack: Stack = "encoder" if match["stack"] == "encoder" else "decoder"
        layers = dimensions.n_audio_layer if stack == "encoder" else dimensions.n_text_layer
        found = _stack_gene(stack, match["layer"], match["name"], layers)
        if found:
            return found
    raise UnknownNameError("gene", name, _known_names(dimensions))


def _stack_gene(stack: Stack, layer: str | None, name: str, layers: int) -> Gene | None:
    known = {field.name for field in fields(EncoderLayer if stack == "encoder" else DecoderLayer)}
    if layer is not None:
        if int(layer) >= layers:
            return None
        if name == "kept":
            return KeptGene(stack, int(layer))
        return StackGene(stack, name, int(layer)) if name in known else None
    if name == "layers_removed":
        return LayersRemovedGene(stack)
    if name.removesuffix("_removed") in units_of(stack) and name.endswith("_removed"):
        return UnitsRemovedGene(stack, name.removesuffix("_removed"))
    return StackGene(stack, name) if name in known else None


def _known_names(dimensions: Dimensions) -> list[str]:
    names = [*MODEL_FIELDS, VOCABULARY, MEAN_BITS]
    for stack in STACKS:
        in_layer = [field.name for field in fields(EncoderLayer if stack == "encoder" else DecoderLayer)]
        names += [f"{stack}.{name}" for name in in_layer]
        names += [f"{stack}.{units}_removed" for units in ("layers", *units_of(stack))]
        names += [f"{stack}.0.{name}" for name in (*in_layer, "kept")]
    return names
