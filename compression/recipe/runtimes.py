"""What each runtime executes: the one place that search spaces, exporters and docs/targets.md ask."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from compression.recipe.dimensions import VOCABULARIES, Dimensions
from compression.recipe.kernels import FLOAT_BITS, WIDEST_INTEGER
from compression.recipe.recipe import MAX_WINDOW_S, WEIGHT_BITS, Recipe

Shapes = Literal["each layer", "each stack", "original"]
"""What may have a number of its own."""
Widths = Literal["each matrix", "integers or floats", "one width"]
"""Bits per weight: of each matrix its own; integers of one width in all matrices, or none; the same in all."""
Windows = Literal["file", "call", "30 s"]
"""Where the encoder's window is: in the artifact, in each call, or nowhere."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """`name`: as sentences have it. `weight_bits`: stored, of linear layers and the embedding; `convolution_bits`.

    `group_sizes`: weights per scale where they are integers; 0 is one scale per output channel, None any number.
    `grouped_bits`: of weights that may have several scales a row; None: all. `scale_bits`, `zero_points`: of those
    scales. `integer_activations`, `float_activations`: bits of activations beside weights of integers and of floating
    point. `static_ranges`: whether the ranges of rounded activations may be those of the calibration speech. `ranks`:
    low-rank layers. `vocabularies`: shorter ones, or of other numbers of tokens. `frequent_tokens`: rows of the
    embedding with other bits. `refused_decoder_layers`: numbers of decoder layers, each with what would go wrong.
    `latencies`: the runtime whose kernels it calls, so whose latency tables are its own.
    """

    name: str
    weight_bits: tuple[int, ...]
    convolution_bits: tuple[int, ...]
    widths: Widths = "each matrix"
    group_sizes: tuple[int, ...] | None
    grouped_bits: tuple[int, ...] | None = None
    scale_bits: tuple[int, ...] = (16,)
    zero_points: bool = False
    integer_activations: tuple[int, ...] = (FLOAT_BITS,)
    float_activations: tuple[int, ...] = (FLOAT_BITS,)
    static_ranges: bool = False
    heads: Shapes = "original"
    ffn_channels: Shapes = "original"
    ranks: bool = False
    vocabularies: bool = False
    frequent_tokens: bool = False
    window: Windows = "30 s"
    refused_decoder_layers: Mapping[int, str] = field(default_factory=dict)
    latencies: str | None = None


OWN_TARGET = "onnxruntime"
"""The target whose artifacts the package `runtime` runs."""

_ONNX_RUNTIME = Runtime(
    name="ONNX Runtime",
    weight_bits=(2, 4, 8, 16, 32),
    convolution_bits=(2, 4, 8, 16, 32),
    group_sizes=(0, 16, 32, 64, 128, 256),
    scale_bits=(8, 16),
    zero_points=True,
    integer_activations=(8, 16, 32),
    float_activations=(8, 16, 32),
    static_ranges=True,
    heads="each layer",
    ffn_channels="each layer",
    ranks=True,
    vocabularies=True,
    frequent_tokens=True,
    window="file",
    latencies="onnxruntime",
)
RUNTIMES: dict[str, Runtime] = {
    "onnxruntime": _ONNX_RUNTIME,
    "sherpa-onnx": replace(_ONNX_RUNTIME, name="sherpa-onnx"),
    "ctranslate2": Runtime(
        name="CTranslate2",
        weight_bits=(8, 16, 32),
        convolution_bits=(8, 16, 32),
        widths="integers or floats",
        group_sizes=(0,),
        heads="each stack",
        ffn_channels="each layer",
    ),
    "ggml": Runtime(
        name="whisper.cpp",
        weight_bits=(4, 5, 8, 16),
        convolution_bits=(16,),
        widths="one width",
        group_sizes=(32,),
        integer_activations=(8, 32),
        window="call",
        refused_decoder_layers={2: "it takes such a file for an early distil model and leaves out timestamps"},
    ),
    "transcribe-cpp": Runtime(
        name="transcribe.cpp",
        weight_bits=(4, 5, 8, 16, 32),
        convolution_bits=(16, 32),
        group_sizes=(32,),
        integer_activations=(8, 32),
        ffn_channels="each stack",
        vocabularies=True,
    ),
    "huggingface": Runtime(
        name="transformers",
        weight_bits=WEIGHT_BITS,
        convolution_bits=WEIGHT_BITS,
        group_sizes=None,
        scale_bits=(8, 16),
        zero_points=True,
        ffn_channels="each stack",
        frequent_tokens=True,
    ),
    "litert": Runtime(
        name="LiteRT",
        weight_bits=(4, 8, 16, 32),
        convolution_bits=(8, 16, 32),
        group_sizes=(0, 32, 64, 128, 256),
        grouped_bits=(4,),
        integer_activations=(8, 32),
        heads="each layer",
        ffn_channels="each layer",
        ranks=True,
        vocabularies=True,
        window="file",
    ),
}
"""By target of `whisperfit export`. transformers has the values of any grid, as floating point."""


def unsupported_reason(target: str, recipe: Recipe, dimensions: Dimensions) -> str | None:
    """The gene that a target's runtime cannot execute and why, in one line; None when it runs the recipe."""
    runtime = RUNTIMES[target]
    obstacles = (_tables(runtime, recipe, dimensions), _shapes(runtime, recipe, dimensions), _grids(runtime, recipe))
    return next((obstacle for found in obstacles for obstacle in found), None)


def _tables(runtime: Runtime, recipe: Recipe, dimensions: Dimensions) -> Iterator[str]:
    """Vocabulary, window and number of layers."""
    if dimensions.n_vocab not in VOCABULARIES and not runtime.vocabularies:
        yield f"a vocabulary of {dimensions.n_vocab} tokens: {runtime.name} knows Whisper's, of {VOCABULARIES}"
    if recipe.vocabulary and not runtime.vocabularies:
        yield f"vocabulary = {recipe.vocabulary}: {runtime.name} knows only Whisper's own vocabularies"
    if recipe.embedding_rows(dimensions).finer and not runtime.frequent_tokens:
        yield f"frequent_tokens = {recipe.frequent_tokens}: {runtime.name} stores a matrix at one number of bits"
    if recipe.window_s < MAX_WINDOW_S and runtime.window == "30 s":
        yield f"window_s = {recipe.window_s:g}: {runtime.name} always encodes {MAX_WINDOW_S:g} s"
    layers = sum(layer is not None for layer in recipe.decoder)
    if layers in runtime.refused_decoder_layers:
        yield f"{layers} decoder layers: {runtime.name} cannot: {runtime.refused_decoder_layers[layers]}"


def _shapes(runtime: Runtime, recipe: Recipe, dimensions: Dimensions) -> Iterator[str]:
    heads = {"encoder": dimensions.n_audio_head, "decoder": dimensions.n_text_head}
    channels = {"encoder": dimensions.audio_ffn, "decoder": dimensions.text_ffn}
    for stack, fields in (("encoder", ("heads",)), ("decoder", ("heads", "cross_heads"))):
        yield from _uneven(runtime, runtime.heads, recipe.layer_values(stack, *fields), heads[stack])
        yield from _uneven(runtime, runtime.ffn_channels, recipe.layer_values(stack, "ffn_channels"), channels[stack])
    if not runtime.ranks:
        for gene, rank in recipe.ranks(dimensions).items():
            yield f"{gene} = {rank}: {runtime.name} has one matrix where this has two"


def _uneven(runtime: Runtime, shapes: Shapes, values: Iterable[tuple[str, int]], original: int) -> Iterator[str]:
    (first, expected), *others = values
    if shapes == "original":
        for gene, value in ((first, expected), *others):
            if value != original:
                yield f"{gene} = {value} of {original}: {runtime.name} derives it from the model's width"
    if shapes == "each stack":
        for gene, value in others:
            if value != expected:
                yield f"{gene} = {value} beside {first} = {expected}: {runtime.name} has one number for a whole stack"


def _grids(runtime: Runtime, recipe: Recipe) -> Iterator[str]:
    """Bits of weights, scales and activations."""
    yield from _widths(runtime, recipe)
    if recipe.has_groups and runtime.group_sizes is not None and recipe.group_size not in runtime.group_sizes:
        yield f"group_size = {recipe.group_size}: {runtime.name} has {_groups(runtime.group_sizes)}"
    if recipe.has_several_scales and runtime.grouped_bits is not None:
        yield from _ungrouped(runtime, recipe)
    if recipe.has_several_scales and recipe.scale_bits not in runtime.scale_bits:
        yield f"scale_bits = {recipe.scale_bits}: {runtime.name} has scales of {_listed(runtime.scale_bits)} bits"
    if recipe.is_quantised and not recipe.symmetric and not runtime.zero_points:
        yield f"symmetric = false: {runtime.name} has no zero points"
    executed = runtime.integer_activations if recipe.has_groups else runtime.float_activations
    if recipe.activation_bits not in executed:
        weights = "integer" if recipe.has_groups else "floating-point"
        yield (
            f"activation_bits = {recipe.activation_bits}: {runtime.name} has activations of {_listed(executed)} bits "
            f"beside {weights} weights"
        )
    if recipe.activation_bits < FLOAT_BITS and recipe.activation_ranges == "static" and not runtime.static_ranges:
        yield f"activation_ranges = static: {runtime.name} takes the range from each input"


def _widths(runtime: Runtime, recipe: Recipe) -> Iterator[str]:
    for gene, value in recipe.matrix_bits():
        if value not in runtime.weight_bits:
            yield f"{gene} = {value}: {runtime.name} has matrices of {_listed(runtime.weight_bits)} bits"
    if recipe.convolution_bits not in runtime.convolution_bits:
        listed = _listed(runtime.convolution_bits)
        yield f"convolution_bits = {recipe.convolution_bits}: {runtime.name} has convolutions of {listed} bits"
    if runtime.widths == "one width":
        yield from _other_widths(runtime, recipe)
    if runtime.widths == "integers or floats":
        yield from _integers_beside_floats(runtime, recipe)


def _other_widths(runtime: Runtime, recipe: Recipe) -> Iterator[str]:
    (first, bits), *others = recipe.matrix_bits()
    for gene, value in others:
        if value != bits:
            yield f"{gene} = {value} beside {first} = {bits}: {runtime.name} has one type for all matrices"


def _integers_beside_floats(runtime: Runtime, recipe: Recipe) -> Iterator[str]:
    (first, bits), *others = recipe.matrix_bits()
    is_integer = bits <= WIDEST_INTEGER
    for gene, value in others:
        if (value <= WIDEST_INTEGER) != is_integer:
            yield f"{gene} = {value} beside {first} = {bits}: {runtime.name} has all matrices as integers, or none"
    convolutions = recipe.convolution_bits
    if convolutions <= WIDEST_INTEGER and not is_integer:
        yield f"convolution_bits = {convolutions} beside {first} = {bits}: {runtime.name} would round every matrix"


def _ungrouped(runtime: Runtime, recipe: Recipe) -> Iterator[str]:
    for gene, value in recipe.matrix_bits():
        if value <= WIDEST_INTEGER and value not in (runtime.grouped_bits or ()):
            yield f"{gene} = {value} in groups of {recipe.group_size}: {runtime.name} has one scale per output channel"


def _groups(sizes: tuple[int, ...]) -> str:
    groups = [size for size in sizes if size]
    scales = ["one scale per output channel"] if 0 in sizes else []
    return " or ".join([*scales, *([f"groups of {_listed(groups)} weights"] if groups else [])])


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))
