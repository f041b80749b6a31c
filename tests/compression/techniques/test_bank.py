"""Roundings that are kept: the same with and without them, whatever became of their files."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from compression.calibration.calibration import Calibration
from compression.calibration.inputs import KeptInputs
from compression.compress import compress, multiplied, unrounded
from compression.recipe.recipe import Recipe
from compression.techniques import bank
from compression.techniques.grids import Grid, quantise
from compression.techniques.pruning import prune
from compression.techniques.rounding import quantise_calibrated, round_columns
from compression.whisper.load import LoadedModel
from compression.whisper.sites import sites

NAME = "encoder.blocks.0.mlp.0"
GRID = Grid(bits=4, group_size=16, symmetric=False)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty bank, and nothing in memory."""
    monkeypatch.setenv("WHISPERFIT_CACHE", str(tmp_path))
    forget()
    yield tmp_path / "bank"
    forget()


def forget() -> None:
    for remembered in (bank.original_on, bank.calibrated, bank._feedback):
        remembered.cache_clear()


def whole(calibration: Calibration) -> KeptInputs:
    return KeptInputs(calibration.inputs, kept_layers={"encoder": (0,), "decoder": (0, 1)}, columns={})


def rounded(model: LoadedModel, **changes: object) -> Recipe:
    recipe = Recipe.original(model.dimensions, stored_bits=16).with_each_layer(attention_bits=4, ffn_bits=3)
    recipe = replace(recipe, embedding_bits=4, group_size=16, symmetric=False, rounding="calibrated")
    return replace(recipe, **changes)


def recipes(model: LoadedModel) -> dict[str, Recipe]:
    base = rounded(model)
    channels = base.with_each_layer(ffn_channels=96)
    return {
        "whole": base,
        "nearest": replace(base, rounding="nearest"),
        "channels": channels,
        "heads": replace(base.with_each_layer(heads=1), importance="iterative"),
        "a layer": replace(channels, decoder=(None, channels.decoder[1])),
        "smoothed": replace(channels, activation_bits=8, smoothing=0.5),
        "low rank": channels.with_each_layer(ffn_rank=16),
        "float": replace(base, embedding_bits=16),
    }


def same(one: bank.QuantisedMatrix, other: bank.QuantisedMatrix) -> bool:
    return one.parts.keys() == other.parts.keys() and all(
        torch.equal(part, other.parts[name]) for name, part in one.parts.items()
    )


@pytest.mark.parametrize("name", ["whole", "nearest", "channels", "heads", "a layer", "smoothed", "low rank", "float"])
def test_compress_gives_what_fresh_rounding_gives(
    name: str, model: LoadedModel, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every matrix of the unrounded network, rounded on its own; and the same again from the bank."""
    recipe = recipes(model)[name].canonical(model.dimensions)
    made = unrounded(model, recipe, calibration)
    first = compress(model, recipe, calibration)
    for module, matrix in first.matrices.items():
        weight = made.network.get_submodule(module).get_parameter("weight").detach().flatten(1)
        grid = Grid(
            bits=matrix.bits, group_size=0 if "conv" in module else recipe.group_size, symmetric=recipe.symmetric
        )
        if recipe.rounding == "nearest" or "conv" in module:
            assert same(matrix, quantise(weight, grid)), module
        else:
            expected = quantise_calibrated(weight, grid, made.inputs.of(multiplied(module)).moment)
            assert torch.equal(matrix.scales, expected.scales), module
            assert (matrix.codes == expected.codes).float().mean() > 0.99, module  # ties: sums in another order
    bank.original_on.cache_clear()
    monkeypatch.setattr(bank, "quantise", None)
    again = compress(model, recipe, calibration)
    assert all(same(first.matrices[module], matrix) for module, matrix in again.matrices.items())
    for key, value in first.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key]), key


def test_what_stays_of_a_matrix_is_taken_from_the_bank(
    model: LoadedModel, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the whole model, a recipe without some channels, heads and tokens rounds only what was refitted."""
    compress(model, rounded(model), calibration)
    fresh: list[torch.Tensor] = []

    def counting(weight: torch.Tensor, *rest: Any) -> bank.QuantisedMatrix:
        fresh.append(weight)
        return round_columns(weight, *rest)

    monkeypatch.setattr(bank, "round_columns", counting)
    pruned = replace(rounded(model).with_each_layer(ffn_channels=96, heads=1), importance="iterative")
    compress(model, pruned, calibration)
    projections = [site.projection for site in sites(model.network) if site.units != "cross_heads"]
    assert len(fresh) == len(projections)


def test_rows_of_the_units_that_stay(model: LoadedModel, calibration: Calibration) -> None:
    recipe = rounded(model).with_each_layer(ffn_channels=96)
    made = unrounded(model, recipe, calibration)
    assert made.rows.keys() == {
        f"{stack}.blocks.{n}.mlp.0" for stack, n in (("encoder", 0), ("decoder", 0), ("decoder", 1))
    }
    for name, rows in made.rows.items():
        before, after = (net.get_submodule(name) for net in (model.network, made.network))
        assert torch.equal(before.weight[rows], after.weight)
        assert torch.equal(before.bias[rows], after.bias)


def test_a_damaged_file_is_made_again(model: LoadedModel, calibration: Calibration, folder: Path) -> None:
    inputs = whole(calibration)
    expected = bank.original_on(model, NAME, GRID, inputs, NAME)
    (file,) = folder.iterdir()
    intact = file.read_bytes()
    middle = intact.index(expected.codes.numpy().tobytes()[:64]) + 20
    for damaged in (
        b"",
        intact[:100],
        intact[:-100],
        intact[:middle] + bytes([intact[middle] ^ 1]) + intact[middle + 1 :],
    ):
        file.write_bytes(damaged)
        forget()
        assert same(bank.original_on(model, NAME, GRID, inputs, NAME), expected)
        assert file.read_bytes() == intact


def test_a_whole_file_spares_the_rounding(
    model: LoadedModel, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = whole(calibration)
    expected = bank.original_on(model, NAME, GRID, inputs, NAME)
    forget()
    monkeypatch.setattr(bank, "round_columns", None)
    assert same(bank.original_on(model, NAME, GRID, inputs, NAME), expected)


def test_each_matrix_grid_and_moment_has_its_own(model: LoadedModel, calibration: Calibration, folder: Path) -> None:
    inputs = whole(calibration)
    moved = KeptInputs(
        {name: replace(of, mean=of.mean + 1) for name, of in calibration.inputs.items()},
        kept_layers={"encoder": (0,), "decoder": (0, 1)},
        columns={},
    )
    for name, of in product((NAME, "encoder.blocks.0.attn.query", "encoder.blocks.0.attn.key"), (inputs, moved)):
        for grid in (GRID, replace(GRID, symmetric=True), replace(GRID, bits=8), replace(GRID, group_size=32)):
            bank.original_on(model, name, grid, of, name)
    assert len(list(folder.iterdir())) == 3 * 2 * 4


@pytest.mark.parametrize("place", ["a file", "full"])
def test_no_bank_ends_nothing(
    place: str, model: LoadedModel, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "a file":
        (tmp_path / "bank").write_bytes(b"")
    else:
        monkeypatch.setattr(bank, "whole_file", full)
    made = bank.original_on(model, NAME, GRID, whole(calibration), NAME)
    weight = model.network.get_submodule(NAME).get_parameter("weight").detach()
    assert same(made, quantise_calibrated(weight, GRID, calibration.inputs[NAME].moment))


def full(_: Path) -> None:
    raise OSError(28, "No space left on device")


def test_a_digest_tells_moments_apart_as_their_values_do(model: LoadedModel, calibration: Calibration) -> None:
    """Inputs of pruned, smoothed and factored layers of several recipes."""
    found = []
    for recipe in recipes(model).values():
        if recipe.rounding == "calibrated":
            made = unrounded(model, recipe, calibration)
            named = [name for name, module in made.network.named_modules() if type(module).__name__ == "Linear"]
            found += [(made.inputs.digest(name), made.inputs.of(name).moment) for name in named]
    assert len({digest for digest, _ in found}) > 10
    for (digest, moment), (other_digest, other) in product(found, found):
        assert (digest == other_digest) == (moment.shape == other.shape and torch.allclose(moment, other, rtol=1e-12))


def test_a_recipe_that_prunes_nothing_says_so(model: LoadedModel) -> None:
    stayed = prune(unrounded(model, rounded(model, rounding="nearest"), None).network, rounded(model), None)
    assert not stayed.columns
    assert not stayed.rows
