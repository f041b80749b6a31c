"""compress(model, recipe, calibration) -> Compressed: a pure function."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from whisper.model import Linear, Whisper

from compression.calibration.calibration import Calibration
from compression.calibration.inputs import EMBEDDING, LOGITS_INPUT, KeptInputs
from compression.recipe.dimensions import Dimensions
from compression.recipe.embedding import FREQUENT_BITS
from compression.recipe.recipe import EncoderLayer, Recipe
from compression.techniques.activations import BlockLinear, DynamicLinear, StaticLinear
from compression.techniques.bank import calibrated, original_on
from compression.techniques.compressed import Compressed, Vocabulary
from compression.techniques.grids import (
    Grid,
    MixedGrid,
    MixedMatrix,
    QuantisedMatrix,
    Quantiser,
    quantise,
    round_to_grid,
)
from compression.techniques.low_rank import factored, factorise
from compression.techniques.pruning import prune
from compression.techniques.ranges import input_range
from compression.techniques.smoothing import smooth
from compression.techniques.trained_weights import Weights, has_grid, on_trained_grid, take_weights
from compression.techniques.vocabulary import shorten
from compression.whisper.load import LoadedModel


def compress(
    model: LoadedModel,
    recipe: Recipe,
    calibration: Calibration | None = None,
    recovered: Weights | None = None,
) -> Compressed:
    """A new, really smaller network; the model is left alone.

    Its weights are float32 values on the grids that the artifact stores, so its WER is the artifact's. The
    original recipe gives the original logits bit for bit. `window_s` is not in the network: the evaluator crops
    the mel spectrogram. `recovered`: the weights that the recipe's `recovery` names. Raises InputError when the recipe
    does not fit the model, CompressionError when it needs calibration or weights that are not there.
    """
    recipe = recipe.canonical(model.dimensions)
    made = _kept(model, _sharing_parameters(model.network), recipe, calibration, recovered)
    with torch.no_grad():
        matrices, mixed = _store_weights(model, made, recipe, recovered or {})
    if recipe.activation_bits < 32:
        _quantise_activations(made.network, recipe, made.inputs)
    return Compressed(network=made.network.eval(), matrices=matrices, vocabulary=made.vocabulary, mixed_embedding=mixed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Unrounded:
    """What of a model a recipe keeps, before anything is rounded. `inputs`: what its linear layers read.

    `rows`: output rows that stayed, by a module's name in the original network, where some left.
    """

    network: Whisper
    inputs: KeptInputs
    vocabulary: Vocabulary
    rows: Mapping[str, Tensor]


def unrounded(
    model: LoadedModel, recipe: Recipe, calibration: Calibration | None, recovered: Weights | None = None
) -> Unrounded:
    """What of the model the recipe keeps, before anything is rounded.

    Where training begins. Recovered weights are in place; of a recipe that smooths they are those of the network that
    was smoothed as its original weights want it. Parameters as for `compress`.
    """
    recipe = recipe.canonical(model.dimensions)
    return _kept(model, copy.deepcopy(model.network), recipe, calibration, recovered)


def _sharing_parameters(network: Whisper) -> Whisper:
    """A network of its own with the same parameters, which may be replaced, but not changed in place."""
    return copy.deepcopy(network, {id(parameter): parameter for parameter in network.parameters()})


def _kept(
    model: LoadedModel,
    network: Whisper,
    recipe: Recipe,
    calibration: Calibration | None,
    recovered: Weights | None,
) -> Unrounded:
    """What the recipe keeps of `network`, the model's, which becomes that; parameters that change are replaced."""
    recipe.check(model.dimensions)
    with torch.no_grad():
        stayed = prune(network, recipe, calibration)
        inputs = KeptInputs(
            calibration.inputs if calibration else {},
            kept_layers={stack: _kept_layers(getattr(recipe, stack)) for stack in ("encoder", "decoder")},
            columns=stayed.columns,
        )
        factorise(network, recipe, inputs)
        _tell_factors(network, inputs)
        vocabulary = shorten(network, recipe, calibration)
        if recipe.smoothing:
            smooth(network, inputs, recipe.smoothing)
        if recipe.recovery:
            take_weights(network, recipe, recovered)
            _tell_factors(network, inputs)
    rows = {**stayed.rows, EMBEDDING: vocabulary.ids} if recipe.vocabulary else stayed.rows
    return Unrounded(network=network.eval(), inputs=inputs, vocabulary=vocabulary, rows=rows)


def _tell_factors(network: Whisper, inputs: KeptInputs) -> None:
    for name, (first, _) in factored(network):
        inputs.factorise(name, first.get_parameter("weight"))


def _kept_layers(layers: Sequence[EncoderLayer | None]) -> tuple[int, ...]:
    return tuple(index for index, layer in enumerate(layers) if layer)


def _store_weights(
    model: LoadedModel, made: Unrounded, recipe: Recipe, recovered: Weights
) -> tuple[dict[str, QuantisedMatrix], MixedMatrix | None]:
    """Replace every stored tensor by what is stored; the codes of those on integer grids, by module.

    And those of a token embedding that is on two of them.
    """
    for module, name in list(vectors(made.network)):
        values, _ = round_to_grid(module.get_parameter(name).detach(), Grid(bits=recipe.vector_bits))
        module.register_parameter(name, nn.Parameter(values))
    matrices, mixed = {}, None
    for name, module, grid in grids(made.network, recipe):
        weight, parameter = module.get_parameter("weight").detach(), f"{name}.weight"
        if parameter in recovered and (has_grid(recovered, parameter) or _is_nearest(recipe, name)):
            values, quantised = on_trained_grid(weight, grid, recovered, parameter)
        else:
            values, quantised = round_to_grid(weight, grid, _quantiser(model, made, recipe, recovered, name))
        module.register_parameter("weight", nn.Parameter(values))
        if isinstance(quantised, MixedMatrix):
            mixed = quantised
        elif quantised:
            matrices[name] = quantised
    return matrices, mixed


def _is_nearest(recipe: Recipe, name: str) -> bool:
    """Whether training read the matrix of a module at the nearest points."""
    return recipe.recovery is not None and name.partition(".")[0] in recipe.recovery.nearest


def _quantiser(model: LoadedModel, made: Unrounded, recipe: Recipe, recovered: Weights, name: str) -> Quantiser:
    """How the matrix of a module is rounded, if not as the original's was before."""
    if f"{name}.weight" in recovered or not made.inputs.is_original(name):
        return quantiser(recipe, made.inputs, name)
    return original_quantiser(model, recipe, made.inputs, name, made.rows)


def original_quantiser(
    model: LoadedModel, recipe: Recipe, inputs: KeptInputs, name: str, rows: Mapping[str, Tensor]
) -> Quantiser:
    """The same as `quantiser` of a matrix of the original, of which some rows may have left (see `Unrounded`)."""
    read, original = _read(recipe, name), inputs.original_name(name)

    def of_the_original(_: Tensor, grid: Grid) -> QuantisedMatrix:
        matrix = original_on(model, original, grid, inputs, read)
        return matrix.of_rows(rows[original]) if original in rows else matrix

    return of_the_original


def quantiser(recipe: Recipe, inputs: KeptInputs, name: str) -> Quantiser:
    """How the matrix of a module is rounded. Convolutions, whose input is not recorded, go to the nearest points."""
    read = _read(recipe, name)
    return quantise if read is None else partial(calibrated, inputs=inputs, read=read)


def _read(recipe: Recipe, name: str) -> str | None:
    """The name, for `KeptInputs`, of that by which the matrix of a module is rounded; None: to the nearest points."""
    return None if recipe.rounding == "nearest" or "conv" in name else multiplied(name)


def multiplied(name: str) -> str:
    """The name, for `KeptInputs`, of what the matrix of a module multiplies; not of convolutions."""
    return LOGITS_INPUT if name == EMBEDDING else name


def grids(network: Whisper, recipe: Recipe) -> Iterator[tuple[str, nn.Module, Grid | MixedGrid]]:
    """Every module whose `weight` is stored as a matrix, by name, with the grid that the recipe stores it on."""

    def grid(bits: int) -> Grid:
        scales = recipe.scale_bits
        return Grid(bits=bits, group_size=recipe.group_size, symmetric=recipe.symmetric, scale_bits=scales)

    for name, module, bits in _linear_layers(network, recipe):
        yield name, module, grid(bits)
    for name in ("encoder.conv1", "encoder.conv2"):
        yield name, network.get_submodule(name), Grid(bits=recipe.convolution_bits, symmetric=recipe.symmetric)
    yield EMBEDDING, network.get_submodule(EMBEDDING), _embedding_grid(network, recipe, grid(recipe.embedding_bits))


def _embedding_grid(network: Whisper, recipe: Recipe, grid: Grid) -> Grid | MixedGrid:
    """`grid`: that of `embedding_bits`."""
    rows = recipe.embedding_rows(Dimensions(**asdict(network.dims)))
    if not rows.finer:
        return grid
    return MixedGrid(finer=replace(grid, bits=FREQUENT_BITS), coarser=grid, first=rows.frequent, rest=rows.rest)


def _linear_layers(network: Whisper, recipe: Recipe) -> Iterator[tuple[str, Linear, int]]:
    """Those of the blocks, by name, with the bits of their weights."""
    for stack in ("encoder", "decoder"):
        layers = [layer for layer in getattr(recipe, stack) if layer]
        for index, (block, layer) in enumerate(zip(getattr(network, stack).blocks, layers, strict=True)):
            for name, module in list(block.named_modules()):
                if isinstance(module, Linear):
                    bits = layer.ffn_bits if name.startswith("mlp.") else layer.attention_bits
                    yield f"{stack}.blocks.{index}.{name}", module, bits


def vectors(network: Whisper) -> Iterator[tuple[nn.Module, str]]:
    """Biases, normalisations and the decoder's positions: each one's module and its name there."""
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 1 or name == "positional_embedding":
                yield module, name


def _quantise_activations(network: Whisper, recipe: Recipe, inputs: KeptInputs) -> None:
    """Replace every linear layer in place by one that rounds its input."""
    for name, module, bits in list(_linear_layers(network, recipe)):
        network.set_submodule(name, _quantising(module, name, bits, recipe, inputs))


def _quantising(linear: Linear, name: str, bits: int, recipe: Recipe, inputs: KeptInputs) -> Linear:
    """The layer with its input rounded; `bits`: of its weights."""
    if recipe.activation_ranges == "static":
        low, high = input_range(inputs.of(name), bits=recipe.activation_bits, estimator=recipe.range_estimator)
        return StaticLinear(linear, bits=recipe.activation_bits, low=low, high=high)
    precision = recipe.precision(bits)
    if precision.kernel(linear.in_features) == "int8_blocks":
        return BlockLinear(linear, block=precision.block(linear.in_features))
    sees_clip = name.startswith("encoder") or name.endswith(("cross_attn.key", "cross_attn.value"))
    return DynamicLinear(linear, bits=recipe.activation_bits, range_over="clip" if sees_clip else "token")
