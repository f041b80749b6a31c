"""Trained weights: in the recipe by digest, in a file by name, in the network by value."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.errors import CompressionError, InputError
from compression.compress import compress
from compression.recipe.order import at_least_as_compressed
from compression.recipe.recipe import Recipe
from compression.recipe.recovery_spec import Recovery
from compression.techniques.grids import Grid, round_to_grid
from compression.techniques.trained_weights import WEIGHTS_FILE, load_recovered, save_recovered, weights_digest
from compression.whisper.load import LoadedModel, load_model
from tests.full_disk import files_of_at_most
from tests.strategies import small_dimensions

NAME = "decoder.blocks.1.mlp.2.weight"
DIMENSIONS = small_dimensions()
ORIGINAL = Recipe.original(DIMENSIONS)
QAT = {"method": "qat", "weights_sha256": "ab" * 32}
RECOVERED = replace(ORIGINAL, recovery=Recovery(method="distill", weights_sha256="ab" * 32))


@pytest.fixture(scope="module")
def model(small_checkpoint: Path) -> LoadedModel:
    return load_model(str(small_checkpoint))


@pytest.fixture
def weights(model: LoadedModel) -> dict[str, torch.Tensor]:
    return {NAME: model.network.get_parameter(NAME).detach() + 0.01}


def recovered(model: LoadedModel, weights: dict[str, torch.Tensor], **changes: object) -> Recipe:
    recovery = Recovery(method="qat", weights_sha256=weights_digest(weights))
    return replace(Recipe.original(model.dimensions), recovery=recovery, **changes)  # type: ignore[arg-type]


def test_a_recipe_without_recovery_has_the_json_that_it_always_had() -> None:
    assert "recovery" not in json.loads(ORIGINAL.to_json())
    assert json.loads(RECOVERED.to_json()).keys() - json.loads(ORIGINAL.to_json()).keys() == {"recovery"}


def test_a_recovered_recipe_survives_json_and_has_an_id_of_its_own() -> None:
    assert Recipe.from_json(RECOVERED.to_json()) == RECOVERED
    other = replace(RECOVERED, recovery=Recovery(method="distill", weights_sha256="cd" * 32))
    assert len({ORIGINAL.id, RECOVERED.id, other.id}) == 3
    assert RECOVERED.canonical(DIMENSIONS) == RECOVERED
    assert RECOVERED.summary() == f"{ORIGINAL.summary()} | recovered by distill"


def test_recovered_recipes_are_not_compared_with_others() -> None:
    smaller = replace(ORIGINAL, embedding_bits=8)
    assert at_least_as_compressed(smaller, ORIGINAL)
    assert not at_least_as_compressed(smaller, RECOVERED)
    assert not at_least_as_compressed(replace(smaller, recovery=RECOVERED.recovery), ORIGINAL)
    assert at_least_as_compressed(replace(smaller, recovery=RECOVERED.recovery), RECOVERED)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (
            {"method": "magic", "weights_sha256": "ab" * 32},
            "method in ('reconstruct', 'distill', 'qat', 'scales') must hold",
        ),
        ({"method": "distill", "weights_sha256": "AB" * 32}, "weights_sha256 of 64 hexadecimal digits must hold"),
        ({"method": "distill", "weights_sha256": 3}, "weights_sha256 of 64 hexadecimal digits must hold, but got 3"),
        ({"method": "distill"}, "weights_sha256 is missing"),
        ({}, "method is missing"),
        (["distill"], "must be a JSON object, but got ['distill']"),
        (False, "must be a JSON object, but got False"),
        (QAT | {"nearest": "encoder"}, "nearest of ('encoder', 'decoder') must hold, but got 'encoder'"),
        (QAT | {"nearest": [["encoder"]]}, "nearest of ('encoder', 'decoder') must hold"),
        (QAT | {"sha": 1}, "unknown field 'sha'. Known: method, nearest, weights_sha256"),
    ],
)
def test_no_nonsense_in_json(values: object, complaint: str) -> None:
    text = json.dumps(json.loads(ORIGINAL.to_json()) | {"recovery": values})
    with pytest.raises(InputError, match=f"^recovery: {re.escape(complaint)}"):
        Recipe.from_json(text)


def test_the_network_has_the_trained_weights_on_the_artifacts_grid(
    model: LoadedModel, weights: dict[str, torch.Tensor]
) -> None:
    network = compress(model, recovered(model, weights), recovered=weights).network
    expected = round_to_grid(weights[NAME], Grid(bits=16))[0]
    assert torch.equal(network.get_parameter(NAME), expected)
    unchanged = "decoder.blocks.0.mlp.2.weight"
    assert torch.equal(network.get_parameter(unchanged), model.network.get_parameter(unchanged))


def test_digest_is_of_names_shapes_and_values(weights: dict[str, torch.Tensor]) -> None:
    values = weights[NAME]
    digests = [
        weights_digest(changed)
        for changed in (weights, {"other": values}, {NAME: values.flatten()}, {NAME: values + 1e-6}, {})
    ]
    assert len(set(digests)) == len(digests)
    assert weights_digest({NAME: values.clone()}) == digests[0]
    two = {"b": values, "a": values + 1}
    assert weights_digest(two) == weights_digest(dict(reversed(two.items())))


def test_weights_survive_their_file(tmp_path: Path, model: LoadedModel, weights: dict[str, torch.Tensor]) -> None:
    recipe = recovered(model, weights)
    save_recovered(tmp_path / "here", recipe, weights)
    loaded = load_recovered(recipe, tmp_path / "here")
    assert loaded is not None
    assert loaded.keys() == weights.keys()
    assert torch.equal(loaded[NAME], weights[NAME])
    assert Recipe.from_json((tmp_path / "here" / "recipe.json").read_text()) == recipe


def test_weights_that_find_no_room_are_an_error_of_the_disk(
    tmp_path: Path, model: LoadedModel, weights: dict[str, torch.Tensor]
) -> None:
    recipe = recovered(model, weights)
    save_recovered(tmp_path, recipe, weights)
    large = {NAME: torch.zeros(300, 300)}
    with files_of_at_most(200_000), pytest.raises(OSError, match="File too large"):
        save_recovered(tmp_path, recipe, large)
    loaded = load_recovered(recipe, tmp_path)
    assert loaded is not None
    assert torch.equal(loaded[NAME], weights[NAME])


def test_recipes_without_recovery_need_no_file() -> None:
    assert load_recovered(ORIGINAL, None) is None


def test_missing_damaged_and_other_weights_are_one_line(
    tmp_path: Path, model: LoadedModel, weights: dict[str, torch.Tensor]
) -> None:
    recipe = recovered(model, weights)
    for folder in (None, tmp_path):
        with pytest.raises(InputError, match=f"recipe {recipe.id} has trained weights, which are not in"):
            load_recovered(recipe, folder)
    save_recovered(tmp_path, recipe, {NAME: weights[NAME] + 1})
    with pytest.raises(InputError, match="holds other weights than recipe"):
        load_recovered(recipe, tmp_path)
    file = tmp_path / WEIGHTS_FILE
    for content in (file.read_bytes()[:50], b"", b"text"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="is damaged"):
            load_recovered(recipe, tmp_path)
    torch.save([1, 2], file)
    with pytest.raises(InputError, match="is damaged"):
        load_recovered(recipe, tmp_path)


def test_weights_that_do_not_fit_are_refused(model: LoadedModel, weights: dict[str, torch.Tensor]) -> None:
    recipe = recovered(model, weights)
    for wrong in (None, {"decoder.blocks.7.mlp.2.weight": weights[NAME]}, {NAME: weights[NAME][:3]}):
        with pytest.raises(CompressionError, match=f"recipe {recipe.id}"):
            compress(model, recipe, recovered=wrong)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, {"scales": torch.ones(64, 8).half()}),
        ({}, {"scales": torch.ones(64, 1).half(), "zero_points": torch.ones(64, 8, dtype=torch.uint8)}),
        ({}, {"scales": torch.ones(64, 8), "zero_points": torch.ones(64, 8, dtype=torch.uint8)}),
        ({"ffn_bits": 16}, {"scales": torch.ones(64, 8).half(), "zero_points": torch.ones(64, 8, dtype=torch.uint8)}),
    ],
    ids=["no zero points", "other shape", "other type", "no grid"],
)
def test_a_grid_that_does_not_fit_is_refused(
    model: LoadedModel,
    weights: dict[str, torch.Tensor],
    changes: dict[str, int],
    parts: dict[str, torch.Tensor],
) -> None:
    weights |= {f"{NAME}.{part}": values for part, values in parts.items()}
    recipe = recovered(model, weights, group_size=32, symmetric=False).with_each_layer(**{"ffn_bits": 4} | changes)
    with pytest.raises(CompressionError, match=f"trained with {NAME} do not fit"):
        compress(model, recipe, None, weights)


def test_a_grid_without_its_weights_is_refused(model: LoadedModel, weights: dict[str, torch.Tensor]) -> None:
    weights |= {"encoder.conv1.weight.scales": torch.ones(64, 1).half()}
    with pytest.raises(CompressionError, match=r"do not fit at encoder\.conv1\.weight\.scales"):
        compress(model, recovered(model, weights), None, weights)
