"""The profile against its definition, worked out clip by clip from what the network reads and what comes back."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from whisper.model import Linear

from common.errors import CompressionError
from compression.calibration.calibration import DRAWING_SEED, CalibrationSample
from compression.calibration.inputs import EMBEDDING
from compression.compress import compress, grids
from compression.recipe.allocation import group_weights
from compression.recipe.recipe import Recipe
from compression.sensitivity import sensitivity
from compression.whisper.load import LoadedModel
from compression.whisper.network import encode

BITS = (2, 4, 8, 16)


def grid_of(model: LoadedModel, **changes: object) -> Recipe:
    grid = replace(Recipe.original(model.dimensions), group_size=16, symmetric=False, rounding="calibrated")
    return replace(grid, **changes)  # type: ignore[arg-type]


def inputs_and_gradients(
    model: LoadedModel, sample: CalibrationSample, generator: torch.Generator
) -> dict[str, tuple[Tensor, Tensor]]:
    """By matrix, its input (rows, K) and at its output the gradient (rows, N) of the loss of tokens that are drawn."""
    network = model.network
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, Linear):

            def remember(_: Linear, inputs: tuple[Tensor], output: Tensor, name: str = name) -> None:
                output.retain_grad()
                seen[name] = (inputs[0], output)

            hooks.append(module.register_forward_hook(remember))
    states: list[Tensor] = []
    hooks.append(network.decoder.ln.register_forward_hook(lambda _, __, output: states.append(output)))
    with torch.enable_grad():
        logits = network.decoder(sample.tokens[None, :-1], encode(network, sample.mel[None]))
        logits.retain_grad()
        behind = logits[0, sample.prompt_length - 1 :]
        drawn = torch.multinomial(behind.softmax(-1), 1, generator=generator)[:, 0]
        (-behind.log_softmax(-1).gather(1, drawn[:, None]).sum()).backward()
    for hook in hooks:
        hook.remove()
    seen[EMBEDDING] = (states[0], logits)
    found = {name: (x.detach()[0], output.grad[0]) for name, (x, output) in seen.items()}  # type: ignore[index]
    network.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("changes", [{}, {"rounding": "nearest", "symmetric": True, "group_size": 0}], ids=str)
def test_the_profile_is_its_definition(model, samples, calibration, changes):
    """1/2 sum_n E[g_n^2] E[(d_n x)^2], with the squares of gradients by token and those of changes by row."""
    grid = grid_of(model, **changes)
    profile = sensitivity(model, calibration, grid, bits=BITS)
    generator = torch.Generator().manual_seed(DRAWING_SEED)
    clips = [inputs_and_gradients(model, sample, generator) for sample in samples]
    tokens = sum(len(sample.tokens) - sample.prompt_length for sample in samples)
    four = replace(grid.with_each_layer(attention_bits=4, ffn_bits=4), embedding_bits=4)
    rounded = compress(model, four, calibration).network
    expected = dict.fromkeys(profile, 0.0)
    for name, module, _ in grids(model.network, four):
        if "conv" in name:
            continue
        change = rounded.get_submodule(name).weight.detach() - module.weight.detach()
        moved = torch.cat([clip[name][0] @ change.T for clip in clips]).square().mean(0)
        squares = torch.cat([clip[name][1] for clip in clips]).square().sum(0) / tokens
        stack, _, layer, part, *_ = name.split(".") if ".blocks." in name else ("", "", "", "")
        group = f"{stack}.{layer}.{'ffn' if part == 'mlp' else 'attention'}" if stack else "embedding"
        expected[group] += 0.5 * float(moved @ squares)
    assert {group: losses[4] for group, losses in profile.items()} == pytest.approx(expected, rel=1e-3)


def test_every_group_has_every_width_and_fewer_bits_lose_more(model, calibration):
    profile = sensitivity(model, calibration, grid_of(model), bits=BITS)
    dimensions = model.dimensions
    layers = {"encoder": range(dimensions.n_audio_layer), "decoder": range(dimensions.n_text_layer)}
    assert profile.keys() == group_weights(dimensions, vocabulary=0, **layers).keys()
    for losses in profile.values():
        assert tuple(losses) == BITS
        assert losses[16] == 0  # the checkpoint's own precision
        assert all(fewer > more for fewer, more in pairwise(losses.values()))


def test_calibrated_rounding_loses_less(model, calibration):
    calibrated = sensitivity(model, calibration, grid_of(model), bits=(4,))
    nearest = sensitivity(model, calibration, grid_of(model, rounding="nearest"), bits=(4,))
    assert sum(losses[4] for losses in calibrated.values()) < 0.9 * sum(losses[4] for losses in nearest.values())


def test_it_needs_calibration(model, calibration):
    silent = replace(calibration, inputs={}, gradient_squares={})
    with pytest.raises(CompressionError, match="needs calibration speech"):
        sensitivity(model, silent, grid_of(model), bits=(4,))
