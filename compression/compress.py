"""compress(model, recipe, calibration) -> Compressed: a pure function."""

import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from whisper.model import Linear, Whisper

from compression.calibration.calibration import Calibration
from compression.calibration.inputs import EMBEDDING, LOGITS_INPUT, KeptInputs
from compression.recipe.recipe import EncoderLayer, Recipe
from compression.techniques.activations import BlockLinear, DynamicLinear, StaticLinear
from compression.techniques.compressed import Compressed, Vocabulary
from compression.techniques.grids import (
    Grid,
    QuantisedMatrix,
    Quantiser,
    quantise,
    round_to_grid,
)
from compression.techniques.low_rank import factored, factorise
from compression.techniques.pruning import prune
from compression.techniques.ranges import input_range
from compression.techniques.rounding import quantise_calibrated
from compression.techniques.smoothing import smooth
from compression.techniques.trained_weights import Weights, take_weights
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
    made = unrounded(model, recipe, calibration, recovered)
    with torch.no_grad():
        matrices = _store_weights(made.network, recipe, made.inputs, as_trained=_as_trained(recipe, recovered))
    if recipe.activation_bits < 32:
        _quantise_activations(made.network, recipe, made.inputs)
    return Compressed(network=made.network.eval(), matrices=matrices, vocabulary=made.vocabulary)


@dataclass(frozen=True, kw_only=True, eq=False)
class Unrounded:
    """What of a model a recipe keeps, before anything is rounded. `inputs`: what its linear layers read."""

    network: Whisper
    inputs: KeptInputs
    vocabulary: Vocabulary


def unrounded(
    model: LoadedModel, recipe: Recipe, calibration: Calibration | None, recovered: Weights | None = None
) -> Unrounded:
    """What of the model the recipe keeps, before anything is rounded.

    Where training begins. Recovered weights are in place; of a recipe that smooths they are those of the network that
    was smoothed as its original weights want it. Parameters as for `compress`.
    """
    recipe.check(model.dimensions)
    recipe = recipe.canonical(model.dimensions)
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        columns = prune(network, recipe, calibration)
        inputs = KeptInputs(
            calibration.inputs if calibration else {},
            kept_layers={stack: _kept_layers(getattr(recipe, stack)) for stack in ("encoder", "decoder")},
            columns=columns,
        )
        factorise(network, recipe, inputs)
        _tell_factors(network, inputs)
        vocabulary = shorten(network, recipe, calibration)
        if recipe.smoothing:
            smooth(network, inputs, recipe.smoothing)
        if recipe.recovery:
            take_weights(network, recipe, recovered)
            _tell_factors(network, inputs)
    return Unrounded(network=network.eval(), inputs=inputs, vocabulary=vocabulary)


def _tell_factors(network: Whisper, inputs: KeptInputs) -> None:
    for name, (first, _) in factored(network):
        inputs.factorise(name, first.get_parameter("weight"))


def _kept_layers(layers: Sequence[EncoderLayer | None]) -> tuple[int, ...]:
    return tuple(index for index, layer in enumerate(layers) if layer)


def _as_trained(recipe: Recipe, recovered: Weights | None) -> Collection[str]:
    """The parameters that go to the nearest points because quantisation-aware training read them so."""
    nearest = recipe.recovery.nearest if recipe.recovery else ()
    return {name for name in recovered or () if name.partition(".")[0] in nearest}


def _store_weights(
    network: Whisper, recipe: Recipe, inputs: KeptInputs, *, as_trained: Collection[str]
) -> dict[str, QuantisedMatrix]:
    """Round every stored tensor in place; the codes of those on integer grids, by module."""
    if recipe.vector_bits == 16:
        for module, name in vectors(network):
            parameter = module.get_parameter(name)
            parameter.copy_(parameter.half().float())
    matrices = {}
    for name, module, grid in grids(network, recipe):
        how = quantise if f"{name}.weight" in as_trained else quantiser(recipe, inputs, name)
        values, quantised = round_to_grid(module.get_parameter("weight").detach(), grid, how)
        module.register_parameter("weight", nn.Parameter(values))
        if quantised:
            matrices[name] = quantised
    return matrices


def quantiser(recipe: Recipe, inputs: KeptInputs, name: str) -> Quantiser:
    """How the matrix of a module is rounded. Convolutions, whose input is not recorded, go to the nearest points."""
    if recipe.rounding == "nearest" or "conv" in name:
        return quantise
    return partial(_calibrated, inputs=inputs, read=multiplied(name))


def multiplied(name: str) -> str:
    """The name, for `KeptInputs`, of what the matrix of a module multiplies; not of convolutions."""
    return LOGITS_INPUT if name == EMBEDDING else name


def _calibrated(weight: Tensor, grid: Grid, *, inputs: KeptInputs, read: str) -> QuantisedMatrix:
    return quantise_calibrated(weight, grid, inputs.of(read).moment)


def grids(network: Whisper, recipe: Recipe) -> Iterator[tuple[str, nn.Module, Grid]]:
    """Every module whose `weight` is stored as a matrix, by name, with the grid that the recipe stores it on."""

    def grid(bits: int) -> Grid:
        return Grid(bits=bits, group_size=recipe.group_size, symmetric=recipe.symmetric)

    for name, module, bits in _linear_layers(network, recipe):
        yield name, module, grid(bits)
    for name in ("encoder.conv1", "encoder.conv2"):
        yield name, network.get_submodule(name), Grid(bits=recipe.convolution_bits, symmetric=recipe.symmetric)
    yield EMBEDDING, network.get_submodule(EMBEDDING), grid(recipe.embedding_bits)


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
