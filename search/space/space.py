"""The search space: which genes a recipe is made of, and the values that each may take on a device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, get_args

import numpy as np

from common.errors import CompressionError, InputError
from common.parsing import parse_toml
from compression.recipe.allocation import Sensitivity
from compression.recipe.dimensions import VOCABULARIES, Dimensions
from compression.recipe.embedding import FREQUENT_BITS
from compression.recipe.order import at_least_as_compressed
from compression.recipe.recipe import ImportanceMeasure, RangeEstimator, Recipe
from compression.recipe.recovery_spec import STACKS, Stack
from devices.facts import RuntimeSupport
from devices.operation import FLOAT_BITS
from search.space.genes import (
    FREQUENT_TOKENS,
    MEAN_BITS,
    NAMED_FIELDS,
    VOCABULARY,
    Draft,
    Importance,
    Value,
    gene,
    units_of,
)

Genes = Mapping[str, Value]

MEASURE: ImportanceMeasure = "iterative"
"""By which the units are chosen that leave; the best in benchmarks/wer/pruning.py."""
VOCABULARY_CHOICES = {False: (0, 40960, 32768, 24576, 16384), True: (0, 32768, 24576, 16384, 8192)}
"""Text tokens kept, 0 for all, of English-only and of multilingual models; measured in benchmarks/wer/vocabulary.py."""
FREQUENT_CHOICES = (4096, 2048, 1024, 512, 0)
"""Text tokens with more bits than the rest, fewer than any shorter vocabulary has; measured in
benchmarks/wer/frequent_tokens.py."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """`choices`: by gene, its values from the least to the most compressed; the first one is the default.

    `importance`, by `MEASURE`, and `layer_importance` (by stack and layer, such as `encoder.0`) decide where units and
    layers leave when a gene only says how many in all; `channel_block` is the multiple in which FFN channels leave.
    `vocabulary_language`: what a shorter vocabulary is for, as in a recipe. `sensitivity` decides which matrices get
    more bits than others where a gene only says how many a weight has on average; it names the bits that there are.
    """

    original: Recipe
    dimensions: Dimensions
    choices: Mapping[str, tuple[Value, ...]]
    importance: Importance = field(repr=False)
    layer_importance: Mapping[str, float] = field(repr=False)
    sensitivity: Sensitivity = field(repr=False, default_factory=dict)
    channel_block: int = 1
    vocabulary_language: str = ""

    @property
    def combinations(self) -> int:
        """Combinations of gene values; some make the same recipe."""
        return prod(len(values) for values in self.choices.values())

    @property
    def default_genes(self) -> dict[str, Value]:
        """The least compressed value of every gene."""
        return {name: values[0] for name, values in self.choices.items()}

    def decode(self, genes: Genes) -> Recipe:
        """The canonical recipe of these genes; those that are not given leave the original alone.

        Raises UnknownNameError for a gene that the model does not have, InputError for a value that no recipe
        has and CompressionError when more is removed than there is.
        """
        draft = Draft(
            layers={stack: list(getattr(self.original, stack)) for stack in STACKS},
            model={},
            vocabulary_language=self.vocabulary_language,
            importance=self.importance,
            layer_importance=self.layer_importance,
            sensitivity=self.sensitivity,
            channel_block=self.channel_block,
        )
        named = [(gene(name, self.dimensions), value) for name, value in genes.items()]
        for applied, value in sorted(named, key=lambda pair: pair[0].rank):
            applied.apply(draft, value)
        changes: dict[str, Any] = {stack: tuple(draft.layers[stack]) for stack in STACKS} | draft.model
        recipe = replace(self.original, importance=MEASURE, **changes)
        recipe.check(self.dimensions)
        return recipe.canonical(self.dimensions)

    def encode(self, recipe: Recipe) -> dict[str, Value] | None:
        """Genes that decode to this recipe, or None when it is not in this space.

        Also None where genes overlap (a stack's and a layer's of one name) and no longer show in the recipe.
        """
        genes: dict[str, Value] = {}
        for name, values in self.choices.items():
            value = gene(name, self.dimensions).read_among(recipe, self.original, values)
            genes[name] = values[0] if value is None or value not in values else value
        return genes if self.decode(genes) == recipe else None

    def rules_out(self, hopeless: Recipe, recipe: Recipe) -> bool:
        """Whether a recipe is at least as compressed as another; one that loses no unit goes with every measure."""
        return at_least_as_compressed(self.in_order(recipe), self.in_order(hopeless))

    def in_order(self, recipe: Recipe) -> Recipe:
        """The recipe as it is compared with others."""
        return recipe if recipe.is_pruned(self.dimensions) else replace(recipe, importance=MEASURE)

    def sample(self, rng: np.random.Generator) -> dict[str, Value]:
        """Every gene uniformly over its values, independently."""
        return {name: values[int(rng.integers(len(values)))] for name, values in self.choices.items()}


Preset = Callable[[Dimensions, RuntimeSupport, int], dict[str, tuple[Value, ...]]]


def _model_choices(dimensions: Dimensions, runtime: RuntimeSupport, stored_bits: int) -> dict[str, tuple[Value, ...]]:
    tokens: dict[str, tuple[Value, ...]] = {}
    if dimensions.n_vocab in VOCABULARIES:
        tokens[VOCABULARY] = VOCABULARY_CHOICES[dimensions.is_multilingual]
        if FREQUENT_BITS in runtime.embedding_bits and min(runtime.embedding_bits) < FREQUENT_BITS:
            tokens[FREQUENT_TOKENS] = FREQUENT_CHOICES
    return {
        "convolution_bits": _bits(runtime.convolution_bits, stored_bits),
        "symmetric": (False, True),
        "rounding": ("calibrated", "nearest"),
        **_group_and_activation_choices(runtime),
        "window_s": (30.0, 20.0, 15.0),
        **tokens,
    }


def _group_and_activation_choices(runtime: RuntimeSupport) -> dict[str, tuple[Value, ...]]:
    """Integer products of 8-bit activations, with static ranges or not, want one scale per channel, group size 0."""
    groups = tuple(sorted(runtime.group_sizes))
    bits = tuple(sorted({FLOAT_BITS, *runtime.activation_bits}, reverse=True))
    scales = {"scale_bits": (16, 8)} if groups else {}
    if bits == (FLOAT_BITS,):
        return {"group_size": groups, **scales, "activation_bits": bits}
    return {
        "group_size": (*groups, 0) if 8 in bits else groups,
        **scales,
        "activation_bits": bits,
        "activation_ranges": ("dynamic", "static"),
        "range_estimator": get_args(RangeEstimator),
        "smoothing": (0.0, 0.5),
    }


def _bits(executed: tuple[int, ...], stored_bits: int) -> tuple[int, ...]:
    """Bit-widths that the runtime executes, down from the checkpoint's own precision."""
    return (stored_bits, *sorted((bits for bits in executed if bits < stored_bits), reverse=True))


def common_bits(runtime: RuntimeSupport, stored_bits: int) -> tuple[int, ...]:
    """Bits that the runtime executes in every matrix of layers and embedding, down from the checkpoint's own."""
    return _bits(tuple(set(runtime.weight_bits) & set(runtime.embedding_bits)), stored_bits)


def _mean_bits(runtime: RuntimeSupport, stored_bits: int) -> tuple[Value, ...]:
    """Every width that all may have, and between those of integers steps of one bit, below six of half a bit."""
    executed = common_bits(runtime, stored_bits)
    integers = [bits for bits in executed if bits <= 8]
    if not integers:
        return executed
    fewest, most = min(integers), max(integers)
    halves = (whole + 0.5 for whole in range(fewest, min(most, 6)))
    return tuple(sorted({*executed, *range(fewest, most), *halves}, reverse=True))


def _shares(total: int, most: float, steps: int, block: int = 1) -> tuple[int, ...]:
    """`steps` + 1 numbers of units from 0 to the share `most` of the total, in whole blocks."""
    return tuple(sorted({round(total * most * step / steps / block) * block for step in range(steps + 1)}))


def coarse(dimensions: Dimensions, runtime: RuntimeSupport, stored_bits: int) -> dict[str, tuple[Value, ...]]:
    """One value per stack, of the units that leave, and one of bits for all; importance and sensitivity spread them."""
    choices: dict[str, tuple[Value, ...]] = {MEAN_BITS: _mean_bits(runtime, stored_bits)}
    for stack in STACKS:
        layers, heads, channels = _shape(dimensions, stack)
        choices[f"{stack}.layers_removed"] = tuple(range(layers // 3 + 1))
        for units in units_of(stack):
            if units == "ffn_channels":
                removed = _shares(layers * channels, 0.3, 6, runtime.channel_multiple)
            else:
                removed = _shares(layers * heads, 0.4, 8)
            choices[f"{stack}.{units}_removed"] = removed
    return choices | _model_choices(dimensions, runtime, stored_bits)


def fine(dimensions: Dimensions, runtime: RuntimeSupport, stored_bits: int) -> dict[str, tuple[Value, ...]]:
    """One value per layer."""
    bits = _bits(runtime.weight_bits, stored_bits)
    choices: dict[str, tuple[Value, ...]] = {"embedding_bits": _bits(runtime.embedding_bits, stored_bits)}
    for stack in STACKS:
        layers, heads, channels = _shape(dimensions, stack)
        kept = (True, False) if layers > 1 else (True,)
        for layer in range(layers):
            prefix = f"{stack}.{layer}."
            choices |= {f"{prefix}kept": kept, f"{prefix}attention_bits": bits, f"{prefix}ffn_bits": bits}
            for units in units_of(stack):
                if units == "ffn_channels":
                    removed = _shares(channels, 0.4, 4, runtime.channel_multiple)
                    choices[prefix + units] = tuple(channels - r for r in removed)
                else:
                    choices[prefix + units] = tuple(heads - r for r in range(heads // 2 + 1))
    return choices | _model_choices(dimensions, runtime, stored_bits)


PRESETS: dict[str, Preset] = {"coarse": coarse, "fine": fine}


def _shape(dimensions: Dimensions, stack: Stack) -> tuple[int, int, int]:
    """Layers, heads per layer and FFN channels per layer of a stack."""
    if stack == "encoder":
        return dimensions.n_audio_layer, dimensions.n_audio_head, dimensions.audio_ffn
    return dimensions.n_text_layer, dimensions.n_text_head, dimensions.text_ffn


def with_original(
    choices: Mapping[str, tuple[Value, ...]], original: Recipe, dimensions: Dimensions
) -> dict[str, tuple[Value, ...]]:
    """The choices with the original's value of each gene in front, so that every space holds the original."""
    complete = {}
    for name, values in choices.items():
        value = gene(name, dimensions).read_among(original, original, values)
        complete[name] = values if value is None else (value, *(other for other in values if other != value))
    return complete


def load_choices(path: Path) -> dict[str, tuple[Value, ...]]:
    """A user's space: a TOML table `[genes]` of gene = [values], the least compressed value first.

    Raises InputError naming the file and the gene.
    """
    try:
        table = parse_toml(path.read_text(encoding="utf-8")).get("genes")
    except (OSError, ValueError) as error:
        raise InputError(f"space {path}: cannot be read ({error})") from error
    if not isinstance(table, dict) or not table:
        raise InputError(f'space {path}: needs a table [genes] with lines such as "encoder.ffn_bits" = [16, 8, 4]')
    choices: dict[str, tuple[Value, ...]] = {}
    for name, values in table.items():
        kind, kinds = (str, "names") if name in NAMED_FIELDS else (int | float, "numbers or booleans")
        plain = isinstance(values, list) and values and all(isinstance(v, kind) for v in values)
        if not plain or len(set(values)) < len(values):
            raise InputError(f"space {path}: gene {name!r} needs a list of different {kinds}, got {values!r}")
        choices[name] = tuple(values)
    return choices


def check_choices(space: Space, runtime: RuntimeSupport) -> None:
    """Raise InputError when a value of a gene cannot be made exactly or does not run on the device.

    Values are decoded on their own, so what may not go together is not found here.
    """
    for name, values in space.choices.items():
        for value in values:
            problem = _problem(space, runtime, name, value)
            if problem:
                raise InputError(f"space: {name} = {value!r} {problem}")


def _problem(space: Space, runtime: RuntimeSupport, name: str, value: Value) -> str | None:
    try:
        recipe = space.decode({name: value})
    except (InputError, CompressionError) as error:
        return f"is not possible: {error}"
    made = gene(name, space.dimensions).read_among(recipe, space.original, (value,))
    if made not in {None, value}:
        return f"cannot be made exactly: it comes to {made!r}"
    if name == "group_size" and value not in {0, *runtime.group_sizes}:
        return f"does not run on this device: {runtime.name} executes group sizes {sorted(runtime.group_sizes)}"
    if name == FREQUENT_TOKENS and value and FREQUENT_BITS not in runtime.embedding_bits:
        return f"does not run on this device: {runtime.name} executes embedding bits {sorted(runtime.embedding_bits)}"
    unsupported = runtime_violation(recipe, runtime, original=space.original)
    return f"does not run on this device: {unsupported}" if unsupported else None


def runtime_violation(recipe: Recipe, runtime: RuntimeSupport, *, original: Recipe) -> str | None:
    """Why the runtime cannot execute a recipe, or None when it can."""
    stored = original.embedding_bits
    frequent = {FREQUENT_BITS} if recipe.frequent_tokens else set()
    checks = (
        ("weight bits", set(recipe.weight_bits[:-2]), runtime.weight_bits, stored),
        ("embedding bits", {recipe.embedding_bits, *frequent}, runtime.embedding_bits, stored),
        ("convolution bits", {recipe.convolution_bits}, runtime.convolution_bits, stored),
        ("activation bits", {recipe.activation_bits}, runtime.activation_bits, 32),
        ("group size", {recipe.group_size} if recipe.is_quantised else set(), runtime.group_sizes, 0),
    )
    for what, used, executed, unchanged in checks:
        if not used <= {*executed, unchanged}:
            return f"{runtime.name} executes {what} {sorted(executed)}, not {sorted(used - {*executed, unchanged})}"
    layers, multiple = [layer for layer in (*recipe.encoder, *recipe.decoder) if layer], runtime.channel_multiple
    for what, name in (("FFN channels", "ffn_channels"), ("FFN ranks", "ffn_rank")):
        odd = next((count for layer in layers if (count := getattr(layer, name)) % multiple), None)
        if odd:
            return f"{what} must be multiples of {multiple}, not {odd}"
    return None
