"""compress(model, recipe, calibration) -> network: a pure function."""

import copy

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
from compression.vocabulary import shorten


def compress(model: LoadedModel, recipe: Recipe, calibration: Calibration | None = None) -> Whisper:
    """A new, really smaller network; the model is left alone.

    Its weights are float32 values on the grids that the artifact stores, so its WER is the artifact's. The
    original recipe gives the original logits bit for bit. `window_s` is not in the network: the evaluator crops
    the mel spectrogram. Raises InputError when the recipe does not fit the model, CompressionError when it needs
    calibration that is not there.
    """
    recipe.check(model.dimensions)
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        prune(network, recipe, calibration)
        shorten(network, recipe, calibration)
        _store_weights(network, recipe)
    if recipe.activation_bits < 32:
        _quantise_activations(network, recipe, calibration)
    return network.eval()


def _set_weight(module: nn.Module, grid: Grid) -> None:
    values, quantised = stored(module.get_parameter("weight").detach(), grid)
    module.register_parameter("weight", nn.Parameter(values))
    keep_quantised(module, quantised)


def _store_weights(network: Whisper, recipe: Recipe) -> None:
    """Round every stored tensor in place; biases, norms and positions are float16 unless all weights are float32."""

    def grid(bits: int) -> Grid:
        return Grid(bits=bits, group_size=recipe.group_size, symmetric=recipe.symmetric)

    if min(recipe.weight_bits) < 32:
        _halve_vectors(network)
    for stack in ("encoder", "decoder"):
        layers = [layer for layer in getattr(recipe, stack) if layer]
        for block, layer in zip(getattr(network, stack).blocks, layers, strict=True):
            for name, module in block.named_modules():
                if isinstance(module, Linear):
                    _set_weight(module, grid(layer.ffn_bits if name.startswith("mlp") else layer.attention_bits))
    for convolution in (network.encoder.conv1, network.encoder.conv2):
        _set_weight(convolution, Grid(bits=recipe.convolution_bits, symmetric=recipe.symmetric))
    _set_weight(network.decoder.token_embedding, grid(recipe.embedding_bits))


def _halve_vectors(network: Whisper) -> None:
    """Round biases, normalisations and the decoder's positions to float16 in place."""
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1 or name.endswith("positional_embedding"):
            parameter.copy_(parameter.half().float())


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
