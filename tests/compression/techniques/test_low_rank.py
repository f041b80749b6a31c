"""Low-rank factors against the singular values of the outputs themselves, and in a network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from whisper.model import Linear, Whisper

from common.errors import CompressionError
from compression.calibration.calibration import Calibration, CalibrationSample, measure
from compression.calibration.inputs import InputRecorder, InputStatistics, KeptInputs
from compression.compress import compress, unrounded
from compression.recipe.recipe import Recipe
from compression.techniques.activations import StaticLinear
from compression.techniques.grids import Grid
from compression.techniques.low_rank import factored, factors
from compression.techniques.rounding import quantise_calibrated
from compression.techniques.smoothing import smooth
from compression.whisper.load import LoadedModel
from compression.whisper.network import encode

OUTPUTS, INPUTS = 24, 40


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(rows: int = 500) -> Tensor:
    """Rows that depend on each other, of different sizes and not about 0."""
    mixed = torch.randn(rows, INPUTS, generator=generator(0)) @ torch.randn(INPUTS, INPUTS, generator=generator(1))
    return mixed * torch.logspace(-1, 0.5, INPUTS) + 3 * torch.randn(INPUTS, generator=generator(2))


def statistics(x: Tensor) -> InputStatistics:
    recorder = InputRecorder()
    recorder.add(x)
    return recorder.statistics()


def layer() -> Linear:
    linear = Linear(INPUTS, OUTPUTS)
    linear.weight.data = torch.randn(OUTPUTS, INPUTS, generator=generator(3))
    linear.bias.data = torch.randn(OUTPUTS, generator=generator(4))
    return linear


@torch.no_grad()
def error(linear: nn.Module, other: nn.Module, x: Tensor) -> float:
    """Mean square over the rows."""
    return float((linear(x) - other(x)).double().square().sum() / len(x))


@pytest.mark.parametrize("rank", [1, 5, 12, 20])
def test_no_factors_of_this_rank_disturb_the_outputs_less(rank: int) -> None:
    """Eckart and Young 1936: the least is what the outputs' further singular values hold, about their mean."""
    linear, x = layer(), inputs()
    outputs = (x.double() @ linear.weight.detach().double().T).numpy()
    singular = np.linalg.svd(outputs - outputs.mean(0), compute_uv=False)
    assert error(linear, factors(linear, statistics(x), rank), x) == pytest.approx(
        np.square(singular[rank:]).sum() / len(x), rel=1e-3
    )


@pytest.mark.parametrize("rank", [1, 5, 12, 20])
def test_they_disturb_them_less_than_factors_made_without_inputs(rank: int) -> None:
    linear, x = layer(), inputs()
    of = statistics(x)
    blind = factors(linear, replace(of, covariance=np.eye(INPUTS, dtype=np.float32)), rank)
    product = blind[1].weight.detach().double() @ blind[0].weight.detach().double()
    u, s, v = np.linalg.svd(linear.weight.detach().double().numpy(), full_matrices=False)
    np.testing.assert_allclose(product.numpy(), (u[:, :rank] * s[:rank]) @ v[:rank], atol=1e-5)
    assert error(linear, factors(linear, of, rank), x) < 0.8 * error(linear, blind, x)


def test_the_outputs_keep_their_mean() -> None:
    linear, x = layer(), inputs()
    with torch.no_grad():
        found, expected = factors(linear, statistics(x), 3)(x).mean(0), linear(x).mean(0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_a_matrix_of_this_rank_is_left_as_it_is() -> None:
    linear = layer()
    linear.weight.data = linear.weight.data[:, :7] @ torch.randn(7, INPUTS, generator=generator(5))
    assert error(linear, factors(linear, statistics(inputs()), 7), 10 * inputs()) < 1e-5


def test_inputs_that_never_change_do_no_harm() -> None:
    x = inputs()
    x[:, 3:] = x[0, 3:]
    for still in (x, x[:1].expand(50, -1)):
        linear = layer()
        assert error(linear, factors(linear, statistics(still), 4), still) < 1e-4


def with_rank(recipe: Recipe, rank: int, **changes: object) -> Recipe:
    return recipe.with_each_layer(ffn_rank=rank, **changes)


def original(model: LoadedModel, bits: int = 32) -> Recipe:
    return Recipe.original(model.dimensions, stored_bits=bits)


def logits(network: Whisper, sample: CalibrationSample) -> Tensor:
    with torch.inference_mode():
        return network.decoder(sample.tokens[None], encode(network, sample.mel[None]))


def kept_inputs(calibration: Calibration, network: Whisper) -> KeptInputs:
    kept = KeptInputs(calibration.inputs, kept_layers={"encoder": (0,), "decoder": (0, 1)}, columns={})
    for name, (first, _) in factored(network):
        kept.factorise(name, first.weight)
    return kept


def test_matrices_really_become_factors(model: LoadedModel, calibration: Calibration) -> None:
    recipe = with_rank(original(model), 24, ffn_channels=96)
    recipe = replace(recipe, decoder=(None, recipe.decoder[1]))
    network = compress(model, recipe, calibration).network
    assert [name for name, _ in factored(network)] == [
        f"{stack}.blocks.0.mlp.{place}" for stack in ("encoder", "decoder") for place in (0, 2)
    ]
    for block in (*network.encoder.blocks, *network.decoder.blocks):
        (first, second), (third, fourth) = block.mlp[0], block.mlp[2]
        assert [tuple(layer.weight.shape) for layer in (first, second, third, fourth)] == [
            *((24, 64), (96, 24)),
            *((24, 96), (64, 24)),
        ]
        assert [layer.bias is None for layer in (first, second, third, fourth)] == [True, False] * 2


def test_a_network_of_low_rank_says_the_same(model: LoadedModel, samples: list[CalibrationSample]) -> None:
    poor = replace(model, network=compress(model, original(model)).network)
    for block in (*poor.network.encoder.blocks, *poor.network.decoder.blocks):
        for place in (0, 2):
            weight = block.mlp[place].weight.data
            weight.copy_(weight[:, :10] @ torch.randn(10, weight.shape[1], generator=generator(place)) / 8)
    network = compress(poor, with_rank(original(model), 10), measure(poor, samples)).network
    for sample in samples:
        expected = logits(poor.network, sample)
        torch.testing.assert_close(logits(network, sample), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_a_rank_that_saves_nothing_changes_nothing(model: LoadedModel, samples: list[CalibrationSample]) -> None:
    """64 x 256 values are 51.2 times 64 + 256."""
    recipe = with_rank(original(model), 52)
    assert recipe.canonical(model.dimensions) == original(model)
    assert not recipe.needs_calibration(model.dimensions)
    assert torch.equal(logits(compress(model, recipe).network, samples[0]), logits(model.network, samples[0]))
    assert with_rank(original(model), 51).needs_calibration(model.dimensions)
    with pytest.raises(CompressionError, match="needs calibration speech"):
        compress(model, with_rank(original(model), 51))


def test_what_second_factors_read(
    model: LoadedModel, calibration: Calibration, samples: list[CalibrationSample]
) -> None:
    """Told from what the whole layer read, against what is recorded; nothing before this layer was changed."""
    network = unrounded(model, with_rank(original(model), 24), calibration).network
    kept, recorder = kept_inputs(calibration, network), InputRecorder()
    second = network.encoder.blocks[0].mlp[0][1]
    with torch.no_grad(), second.register_forward_pre_hook(lambda _, x: recorder.add(x[0])):
        for sample in samples:
            encode(network, sample.mel[None])
    told, seen = kept.of("encoder.blocks.0.mlp.0.1"), recorder.statistics()
    close = {"rtol": 0, "atol": 1e-4 * float(np.abs(seen.rows).max()) ** 2}
    for name in ("mean", "covariance", "rows"):
        np.testing.assert_allclose(getattr(told, name), getattr(seen, name), **close)
    assert np.array_equal(told.low, told.rows.min(0))
    assert np.array_equal(told.high, told.rows.max(0))
    assert kept.of("encoder.blocks.0.mlp.0.0") is calibration.inputs["encoder.blocks.0.mlp.0"]


def test_both_factors_are_rounded_with_regard_to_what_they_read(model: LoadedModel, calibration: Calibration) -> None:
    recipe = replace(with_rank(original(model), 24, ffn_bits=4), group_size=16, rounding="calibrated")
    matrices, before = compress(model, recipe, calibration).matrices, unrounded(model, recipe, calibration).network
    first, second = before.decoder.blocks[1].mlp[2]
    moment = calibration.inputs["decoder.blocks.1.mlp.2"].moment
    weight = first.weight.detach().double()
    moments = (moment, weight @ moment @ weight.T)
    for place, (factor, of) in enumerate(zip((first, second), moments, strict=True)):
        expected = quantise_calibrated(factor.weight.detach(), Grid(bits=4, group_size=16), of)
        found = matrices[f"decoder.blocks.1.mlp.2.{place}"]
        assert (found.codes == expected.codes).float().mean() > 0.99  # the moments are float32 in one of the two
        assert torch.equal(found.scales, expected.scales)


def test_static_ranges_of_second_factors_are_those_of_the_kept_rows(
    model: LoadedModel, calibration: Calibration
) -> None:
    recipe = replace(with_rank(original(model), 24), activation_bits=8, activation_ranges="static")
    network, before = compress(model, recipe, calibration).network, unrounded(model, recipe, calibration).network
    first, second = network.decoder.blocks[0].mlp[2]
    assert isinstance(first, StaticLinear)
    assert isinstance(second, StaticLinear)
    read = calibration.inputs["decoder.blocks.0.mlp.2"]
    assert (first.low, first.high) == pytest.approx((read.low.min(), read.high.max()))
    rows = torch.from_numpy(read.rows) @ before.decoder.blocks[0].mlp[2][0].weight.detach().T
    assert (second.low, second.high) == pytest.approx((float(rows.min()), float(rows.max())), rel=1e-4)


def test_smoothing_between_factors_changes_nothing_else(
    model: LoadedModel, calibration: Calibration, samples: list[CalibrationSample]
) -> None:
    network = unrounded(model, with_rank(original(model), 24), calibration).network
    kept = kept_inputs(calibration, network)
    before = [logits(network, sample) for sample in samples]
    weights = {name: second.weight.detach().clone() for name, (_, second) in factored(network)}
    plain = {name: kept.of(f"{name}.1") for name in weights}
    with torch.no_grad():
        smooth(network, kept, 0.5)
    for sample, expected in zip(samples, before, strict=True):
        torch.testing.assert_close(logits(network, sample), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    for name, (_, second) in factored(network):
        scales = second.weight.detach() / weights[name]
        assert not torch.allclose(scales, torch.ones(()), rtol=0.01), name
        np.testing.assert_allclose(kept.of(f"{name}.1").high * scales[0].numpy(), plain[name].high, rtol=1e-3)
