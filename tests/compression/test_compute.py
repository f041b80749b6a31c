"""Calibration, compression and training on a device that is no CPU: see `tests.pretended_device`."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from whisper.model import Whisper

from compression.calibration.calibration import Calibration, measure
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.sensitivity import sensitivity
from compression.techniques.compressed import Compressed
from compression.techniques.grids import Grid
from compression.techniques.rounding import quantise_calibrated
from compression.training.reconstruction import reconstruct
from compression.training.run import Limits, WhisperTraining
from compression.training.settings import TrainingSettings
from compression.training.subject import Subject
from compression.whisper.load import LoadedModel, load_model
from tests.compression.conftest import SMALL
from tests.compression.training.data import SAMPLES, RandomBatches
from tests.pretended_device import DEVICE, PretendedTensor, pretended_device
from tests.strategies import recipes


@pytest.fixture(scope="module")
def there(small_checkpoint: Path) -> Iterator[LoadedModel]:
    """The small model on the device."""
    with pretended_device() as device:
        yield load_model(str(small_checkpoint)).on(device)


def values(network: Whisper) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().cpu() for name, parameter in network.named_parameters()}


def check_same(found: Compressed, expected: Compressed) -> None:
    """Up to roundings that lie between two points."""
    assert all(isinstance(parameter.data, PretendedTensor) for parameter in found.network.parameters())
    for name, parameter in values(expected.network).items():
        apart = (values(found.network)[name] - parameter).abs() > 1e-4 * parameter.abs().max()
        assert apart.float().mean() < 0.01, name


def test_the_model_moves_with_all_that_computes(there: LoadedModel, model: LoadedModel) -> None:
    assert there.compute == DEVICE
    assert there.parameter_digests == model.parameter_digests


def test_calibration(there: LoadedModel, model: LoadedModel) -> None:
    expected, found = measure(model, SAMPLES[:2]), measure(there, SAMPLES[:2])
    for name, statistics in expected.inputs.items():
        np.testing.assert_allclose(found.inputs[name].covariance, statistics.covariance, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(
            found.gradient_squares.get(name, 0), expected.gradient_squares.get(name, 0), rtol=1e-2
        )
    for key, rise in expected.layer_importance.items():
        assert found.layer_importance[key] == pytest.approx(rise, abs=1e-4)
    for key, measures in expected.importances.items():
        np.testing.assert_allclose(found.importances[key]["combined"], measures["combined"], rtol=1e-2, atol=1e-6)
    assert (found.token_counts == expected.token_counts).all()


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(recipe=recipes(SMALL))
def test_every_technique(there: LoadedModel, model: LoadedModel, calibration: Calibration, recipe: Recipe) -> None:
    check_same(compress(there, recipe, calibration), compress(model, recipe, calibration))


def test_calibrated_rounding(there: LoadedModel) -> None:
    """Column by column for all rows at once, not in the compiled kernel."""
    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(40, 200, generator=generator), torch.randn(300, 200, generator=generator)
    grid, moment = Grid(bits=4, group_size=32), inputs.T.double() @ inputs.double()
    expected, found = quantise_calibrated(weight, grid, moment), quantise_calibrated(weight.to(DEVICE), grid, moment)
    assert (found.codes.cpu() != expected.codes).float().mean() < 0.01
    assert torch.equal(found.scales.cpu(), expected.scales)


def test_sensitivity(there: LoadedModel, model: LoadedModel, calibration: Calibration) -> None:
    grid = replace(Recipe.original(SMALL), group_size=32)
    expected, found = (sensitivity(each, calibration, grid, bits=[4]) for each in (model, there))
    assert {group: found[group][4] for group in found} == pytest.approx({g: expected[g][4] for g in expected}, rel=1e-2)


def four_bits(model: LoadedModel, calibration: Calibration) -> Subject:
    recipe = replace(
        Recipe.original(SMALL).with_each_layer(attention_bits=4, ffn_bits=4, ffn_channels=96),
        embedding_bits=4,
        group_size=32,
        activation_bits=8,
        smoothing=0.5,
    )
    return Subject(model=model, recipe=recipe.canonical(SMALL), calibration=calibration, recovered=None)


@pytest.mark.parametrize("method", ["distill", "qat", "scales"])
def test_training(there: LoadedModel, model: LoadedModel, calibration: Calibration, method: str) -> None:
    losses, limits = [], Limits(seconds=None, clock=lambda: 0.0, should_stop=lambda: False)
    for each in (model, there):
        wanted = TrainingSettings(steps=2, batch_size=3, learning_rate=1e-3, hidden=0.5)
        training = WhisperTraining(four_bits(each, calibration), method, wanted)
        losses.append(training.run(RandomBatches(), limits, checkpoint=None, watch=lambda _: None).points[-1])
        trained = training.weights()
        assert not any(isinstance(weight, PretendedTensor) for weight in trained.values())
    assert losses[1].held_out_loss == pytest.approx(losses[0].held_out_loss, rel=1e-2)


def test_reconstruction(there: LoadedModel, model: LoadedModel, calibration: Calibration) -> None:
    """Of float weights, since one code that differs changes every layer behind it; as far as many rows decide them."""
    recipe = Recipe.original(SMALL, stored_bits=16).with_each_layer(ffn_channels=96)
    subjects = [Subject(model=each, recipe=recipe, calibration=calibration, recovered=None) for each in (model, there)]
    expected, found = (reconstruct(each, SAMPLES[:2]) for each in subjects)
    for name, weight in expected.items():
        if name.startswith("encoder"):
            torch.testing.assert_close(found[name].cpu(), weight, rtol=1e-3, atol=1e-3)
