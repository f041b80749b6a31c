"""compress(model, recipe, calibration) -> network: a pure function."""

import copy
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from whisper.model import Linear, Whisper

from compression.activations import BlockLinear, DynamicLinear, StaticLinear
from compression.calibration import Calibration
from compression.inputs import LOGITS_INPUT, KeptInputs
from compression.models import LoadedModel
from compression.pruning import prune
from compression.quantisation import (
    Grid,
    QuantisedMatrix,
    Quantiser,
    keep_quantised,
    quantise,
    quantised_weight,
    stored,
)
from compression.ranges import input_range
from compression.recipe import EncoderLayer, Recipe
from compression.rounding import quantise_calibrated, quantise_clipped
from compression.smoothing import smooth


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
        columns = prune(network, recipe, calibration)
        inputs = KeptInputs(
            calibration.inputs if calibration else {},
            kept_layers={stack: _kept(getattr(recipe, stack)) for stack in ("encoder", "decoder")},
            columns=columns,
        )
        if recipe.smoothing:
            smooth(network, inputs, recipe.smoothing)
        _store_weights(network, recipe, inputs)
    if recipe.activation_bits < 32:
        _quantise_activations(network, recipe, inputs)
    return network.eval()


def _kept(layers: Sequence[EncoderLayer | None]) -> tuple[int, ...]:
    return tuple(index for index, layer in enumerate(layers) if layer)


def _set_weight(module: nn.Module, grid: Grid, quantiser: Quantiser = quantise) -> None:
    values, quantised = stored(module.get_parameter("weight").detach(), grid, quantiser)
    module.register_parameter("weight", nn.Parameter(values))
    keep_quantised(module, quantised)


def _quantiser(recipe: Recipe, inputs: KeptInputs, name: str) -> Quantiser:
    """How the matrix that multiplies an input is rounded."""
    if recipe.rounding == "nearest":
        return quantise
    return partial(_with_moment, recipe=recipe, inputs=inputs, name=name)


def _with_moment(weight: Tensor, grid: Grid, *, recipe: Recipe, inputs: KeptInputs, name: str) -> QuantisedMatrix:
    with_regard = quantise_clipped if recipe.rounding == "clipped" else quantise_calibrated
    return with_regard(weight, grid, inputs.of(name).moment)


def _store_weights(network: Whisper, recipe: Recipe, inputs: KeptInputs) -> None:
    """Round every stored tensor in place; biases, norms and positions are float16 unless all weights are float32."""

    def grid(bits: int) -> Grid:
        return Grid(bits=bits, group_size=recipe.group_size, symmetric=recipe.symmetric)

    if min(recipe.weight_bits) < 32:
        _halve_vectors(network)
    for name, module, layer in _linear_layers(network, recipe):
        bits = layer.ffn_bits if ".mlp." in name else layer.attention_bits
        _set_weight(module, grid(bits), _quantiser(recipe, inputs, name))
    for convolution in (network.encoder.conv1, network.encoder.conv2):
        _set_weight(convolution, Grid(bits=recipe.convolution_bits, symmetric=recipe.symmetric))
    _set_weight(network.decoder.token_embedding, grid(recipe.embedding_bits), _quantiser(recipe, inputs, LOGITS_INPUT))


def _linear_layers(network: Whisper, recipe: Recipe) -> Iterator[tuple[str, Linear, EncoderLayer]]:
    """Those of the blocks, by name, with what the recipe says of their layer."""
    for stack in ("encoder", "decoder"):
        layers = [layer for layer in getattr(recipe, stack) if layer]
        for index, (block, layer) in enumerate(zip(getattr(network, stack).blocks, layers, strict=True)):
            for name, module in list(block.named_modules()):
                if isinstance(module, Linear):
                    yield f"{stack}.blocks.{index}.{name}", module, layer


def _halve_vectors(network: Whisper) -> None:
    """Round biases, normalisations and the decoder's positions to float16 in place."""
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1 or name.endswith("positional_embedding"):
            parameter.copy_(parameter.half().float())


def _quantise_activations(network: Whisper, recipe: Recipe, inputs: KeptInputs) -> None:
    """Replace every linear layer in place by one that rounds its input."""
    for name, module, _ in list(_linear_layers(network, recipe)):
        network.set_submodule(name, _quantising(module, name, recipe, inputs))


def _quantising(linear: Linear, name: str, recipe: Recipe, inputs: KeptInputs) -> Linear:
    """The layer with its input rounded."""
    quantised = quantised_weight(linear)
    if recipe.activation_ranges == "static":
        low, high = input_range(inputs.of(name), bits=recipe.activation_bits, estimator=recipe.range_estimator)
        rounding: Linear = StaticLinear(linear, bits=recipe.activation_bits, low=low, high=high)
    elif recipe.activation_bits == 8 and recipe.group_size and quantised:
        rounding = BlockLinear(linear, block=recipe.group_size)
    else:
        sees_clip = name.startswith("encoder") or name.endswith(("cross_attn.key", "cross_attn.value"))
        rounding = DynamicLinear(linear, bits=recipe.activation_bits, range_over="clip" if sees_clip else "token")
    keep_quantised(rounding, quantised)
    return rounding
