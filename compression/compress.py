"""compress(model, recipe, calibration) -> network: a pure function."""

import copy
from collections.abc import Iterator

import torch
from torch import nn
from whisper.model import Linear, Whisper

from common.errors import CompressionError
from compression.activations import BlockLinear, DynamicLinear, StaticLinear
from compression.calibration import Calibration
from compression.models import LoadedModel
from compression.pruning import prune
from compression.quantisation import Grid, keep_quantised, quantised_weight, stored
from compression.recipe import Recipe
from compression.recovered import Weights, take_weights


def compress(
    model: LoadedModel,
    recipe: Recipe,
    calibration: Calibration | None = None,
    recovered: Weights | None = None,
) -> Whisper:
    """A new, really smaller network; the model is left alone.

    Its weights are float32 values on the grids that the artifact stores, so its WER is the artifact's. The
    original recipe gives the original logits bit for bit. `window_s` is not in the network: the evaluator crops
    the mel spectrogram. `recovered`: the weights that the recipe's `recovery` names. Raises InputError when the recipe
    does not fit the model, CompressionError when it needs calibration or weights that are not there.
    """
    network = unrounded(model, recipe, calibration, recovered)
    with torch.no_grad():
        _store_weights(network, recipe)
    if recipe.activation_bits < 32:
        _quantise_activations(network, recipe, calibration)
    return network.eval()


def unrounded(
    model: LoadedModel, recipe: Recipe, calibration: Calibration | None, recovered: Weights | None = None
) -> Whisper:
    """What of the model the recipe keeps, with recovered weights in place, before anything is rounded.

    Where training begins. Parameters as for `compress`.
    """
    recipe.check(model.dimensions)
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        prune(network, recipe, calibration)
        if recipe.recovery:
            take_weights(network, recipe, recovered)
    return network.eval()


def _set_weight(module: nn.Module, grid: Grid) -> None:
    values, quantised = stored(module.get_parameter("weight").detach(), grid)
    module.register_parameter("weight", nn.Parameter(values))
    keep_quantised(module, quantised)


def _store_weights(network: Whisper, recipe: Recipe) -> None:
    """Round every stored tensor in place; biases, norms and positions are float16 unless all weights are float32."""
    if has_half_vectors(recipe):
        for module, name in vectors(network):
            parameter = module.get_parameter(name)
            parameter.copy_(parameter.half().float())
    for module, grid in grids(network, recipe):
        _set_weight(module, grid)


def has_half_vectors(recipe: Recipe) -> bool:
    """Whether biases, normalisations and positions are float16."""
    return min(recipe.weight_bits) < 32


def grids(network: Whisper, recipe: Recipe) -> Iterator[tuple[nn.Module, Grid]]:
    """Every module whose `weight` is stored as a matrix, with the grid that the recipe stores it on."""

    def grid(bits: int) -> Grid:
        return Grid(bits=bits, group_size=recipe.group_size, symmetric=recipe.symmetric)

    for stack in ("encoder", "decoder"):
        layers = [layer for layer in getattr(recipe, stack) if layer]
        for block, layer in zip(getattr(network, stack).blocks, layers, strict=True):
            for name, module in block.named_modules():
                if isinstance(module, Linear):
                    yield module, grid(layer.ffn_bits if name.startswith("mlp") else layer.attention_bits)
    for convolution in (network.encoder.conv1, network.encoder.conv2):
        yield convolution, Grid(bits=recipe.convolution_bits, symmetric=recipe.symmetric)
    yield network.decoder.token_embedding, grid(recipe.embedding_bits)


def vectors(network: Whisper) -> Iterator[tuple[nn.Module, str]]:
    """Biases, normalisations and the decoder's positions: each one's module and its name there."""
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 1 or name == "positional_embedding":
                yield module, name


def _quantise_activations(network: Whisper, recipe: Recipe, calibration: Calibration | None) -> None:
    """Replace every linear layer in place by one that rounds its input."""
    for stack in ("encoder", "decoder"):
        originals = [index for index, layer in enumerate(getattr(recipe, stack)) if layer]
        for original, block in zip(originals, getattr(network, stack).blocks, strict=True):
            for name, module in list(block.named_modules()):
                if isinstance(module, Linear):
                    linear = _quantising(module, f"{stack}.blocks.{original}.{name}", recipe, calibration)
                    block.set_submodule(name, linear)


def _quantising(linear: Linear, name: str, recipe: Recipe, calibration: Calibration | None) -> Linear:
    """The layer with its input rounded; `name` is its name in the original model."""
    quantised = quantised_weight(linear)
    if recipe.activation_ranges == "static":
        if calibration is None:
            raise CompressionError("static activation ranges need calibration speech")
        low, high = calibration.input_ranges[name]
        rounding: Linear = StaticLinear(linear, bits=recipe.activation_bits, low=low, high=high)
    elif recipe.activation_bits == 8 and recipe.group_size and quantised:
        rounding = BlockLinear(linear, block=recipe.group_size)
    else:
        sees_clip = name.startswith("encoder") or name.endswith(("cross_attn.key", "cross_attn.value"))
        rounding = DynamicLinear(linear, bits=recipe.activation_bits, range_over="clip" if sees_clip else "token")
    keep_quantised(rounding, quantised)
    return rounding
