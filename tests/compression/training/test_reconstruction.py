"""The refit against numpy's least squares, and what it does to a network."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from whisper.model import Linear

from compression.calibration.calibration import measure
from compression.recipe.recipe import Recipe, Rounding
from compression.techniques.grids import Grid, round_to_grid
from compression.training import reconstruction
from compression.training.reconstruction import reconstruct
from compression.training.run import recovered_recipe
from compression.training.subject import Subject
from compression.whisper.load import LoadedModel
from compression.whisper.network import decoder_states, encode
from tests.compression.training.data import SAMPLES, bits, subject


def error(subject: Subject) -> float:
    """Squared distance of the decoder's last states from the original's, over the samples."""
    ours, theirs = subject.compressed().network, subject.model.network
    total = 0.0
    with torch.no_grad():
        for sample in SAMPLES:
            mel, tokens = sample.mel.unsqueeze(0), sample.tokens.unsqueeze(0)
            states = [decoder_states(network, tokens, encode(network, mel))[-1] for network in (ours, theirs)]
            total += float((states[0] - states[1]).square().sum())
    return total


def refitted(subject: Subject) -> Subject:
    recipe, weights = recovered_recipe(subject, "reconstruct", reconstruct(subject, SAMPLES))
    return replace(subject, recipe=recipe, recovered=weights)


def test_the_solution_is_that_of_augmented_least_squares() -> None:
    """Ridge regression is least squares with sqrt(lambda) I below the inputs and sqrt(lambda) W below the targets."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 6, generator=generator), torch.randn(50, 3, generator=generator)
    weight, bias = torch.randn(3, 6, generator=generator).double(), torch.randn(3, generator=generator).double()
    equations = reconstruction._NormalEquations(Linear(6, 3))
    equations.add(x[:20].unsqueeze(0), y[:20].unsqueeze(0))
    equations.add(x[20:].unsqueeze(0), y[20:].unsqueeze(0))
    fitted, offset = equations.solve(weight, bias)
    inputs = np.concatenate([x.double().numpy(), np.ones((50, 1))], axis=1)
    ridge = np.sqrt(reconstruction.RIDGE * np.square(inputs[:, :6]).sum(0).mean())
    below = ridge * np.eye(6, 7)
    solution, *_ = np.linalg.lstsq(
        np.concatenate([inputs, below]), np.concatenate([y.numpy(), ridge * weight.numpy().T]), rcond=None
    )
    np.testing.assert_allclose(fitted.numpy(), solution[:6].T, atol=1e-5)
    np.testing.assert_allclose(offset.numpy(), solution[6], atol=1e-5)


def test_an_uncompressed_network_is_left_as_it_is(small_model: LoadedModel) -> None:
    for name, values in reconstruct(subject(small_model), SAMPLES).items():
        torch.testing.assert_close(values, small_model.network.get_parameter(name).detach(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": 3, "group_size": 32},
        {"bits": 4, "activation_bits": 8},
        {"bits": 4, "activation_bits": 8, "smoothing": 0.5},
    ],
    ids=str,
)
def test_a_quantised_network_comes_nearer_to_its_original(small_model: LoadedModel, changes: dict[str, int]) -> None:
    before = replace(bits(small_model, **changes), calibration=measure(small_model, SAMPLES))  # type: ignore[arg-type]
    assert error(refitted(before)) < 0.8 * error(before)


def test_a_network_without_heads_channels_and_a_layer_comes_nearer(small_model: LoadedModel) -> None:
    original = Recipe.original(small_model.dimensions)
    encoder, decoder = original.encoder[0], original.decoder[0]
    assert encoder
    assert decoder
    calibration = measure(small_model, SAMPLES)
    for changes in (
        {"encoder": (replace(encoder, heads=1, ffn_channels=100),)},
        {"encoder": (replace(encoder, ffn_rank=24),), "decoder": (replace(decoder, ffn_rank=24), decoder)},
        {"decoder": (replace(decoder, cross_heads=1, ffn_channels=100), decoder)},
        {"decoder": (None, decoder)},
        {"decoder": (decoder, None)},
    ):
        before = replace(subject(small_model, **changes), calibration=calibration)
        assert error(refitted(before)) < 0.8 * error(before)


def test_only_the_last_layers_of_sub_layers_change_and_are_stored_on_their_grids(small_model: LoadedModel) -> None:
    after = refitted(bits(small_model, 4, group_size=32))
    assert after.recovered
    layers = ("attn.out", "cross_attn.out", "mlp.2")
    assert {name.rpartition(".")[0].split(".", 3)[-1] for name in after.recovered} == set(layers)
    network = after.compressed().network
    for name, refit in after.recovered.items():
        expected = (
            round_to_grid(refit, Grid(bits=4, group_size=32))[0] if name.endswith("weight") else refit.half().float()
        )
        assert torch.equal(network.get_parameter(name), expected), name


def test_it_ends_where_it_is_told_to(small_model: LoadedModel) -> None:
    told: list[str] = []

    def go_on(name: str) -> bool:
        told.append(name)
        return len(told) <= 2

    weights = reconstruct(bits(small_model, 4, group_size=32), SAMPLES, go_on=go_on)
    assert told == [f"encoder layer 0, sub-layer {n} of 2" for n in (1, 2)] + ["decoder layer 0, sub-layer 1 of 3"]
    assert all(name.startswith("encoder") for name in weights)


@pytest.mark.parametrize("rounding", get_args(Rounding))
def test_what_follows_sees_what_the_artifact_will_have(
    small_model: LoadedModel, rounding: Rounding, monkeypatch: pytest.MonkeyPatch
) -> None:
    refits: list[reconstruction._Refit] = []

    class Kept(reconstruction._Refit):
        def __init__(self, subject: Subject) -> None:
            super().__init__(subject)
            refits.append(self)

    monkeypatch.setattr(reconstruction, "_Refit", Kept)
    before = bits(small_model, 4, group_size=32, rounding=rounding)
    after = refitted(replace(before, calibration=measure(small_model, SAMPLES)))
    seen = dict(refits[0].network.named_parameters())
    assert all(torch.equal(seen[name], values) for name, values in after.compressed().network.named_parameters())
