"""The files of `search --try`: what is refused, in one line, and what a run keeps of a trained recipe."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.errors import InputError
from compression.recipe.recovery_spec import Recovery
from compression.techniques.trained_weights import load_recovered, save_recovered, weights_digest
from devices.profile import load_profile
from search.commands.own_recipes import check_own, read_own
from tests.search.conftest import DIMENSIONS, ORIGINAL

MODEL: Any = SimpleNamespace(dimensions=DIMENSIONS)
LOADED: Any = SimpleNamespace(model=MODEL, profile=load_profile("imx8mplus"), original=ORIGINAL)


def written(folder, recipe, name="recipe.json"):
    (folder / name).write_text(recipe.to_json(), encoding="utf-8")
    return folder / name


def test_recipes_keep_their_order_and_become_canonical(tmp_path):
    first = replace(ORIGINAL, embedding_bits=8)
    files = [written(tmp_path, recipe, f"{n}.json") for n, recipe in enumerate((first, ORIGINAL))]
    check_own(files, LOADED)
    assert read_own(files, MODEL, tmp_path / "recovered") == [first.canonical(DIMENSIONS), ORIGINAL]
    assert not (tmp_path / "recovered").exists()


@pytest.mark.parametrize(
    ("recipe", "complaint"),
    [
        (replace(ORIGINAL, encoder=ORIGINAL.encoder[:1]), "recipe .*own.json: .*encoder"),
        (replace(ORIGINAL, embedding_bits=5), r"--try .*own.json: does not run on imx8mplus: .* embedding bits"),
        (
            replace(ORIGINAL, recovery=Recovery(method="qat", weights_sha256="0" * 64)),
            "has trained weights, which are not in",
        ),
    ],
    ids=["another model's", "not for the device", "without its weights"],
)
def test_one_that_does_not_fit_is_one_line(recipe, complaint, tmp_path):
    file = written(tmp_path, recipe, "own.json")
    with pytest.raises(InputError, match=complaint) as refused:
        check_own([file], LOADED)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_no_recipe_is_one_line_with_the_files_name(text, tmp_path):
    (tmp_path / "own.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"recipe .*own\.json: "):
        check_own([tmp_path / "own.json"], LOADED)


def test_trained_weights_move_into_the_run(tmp_path):
    weights = {"encoder.ln_post.weight": torch.rand(384)}
    spec = Recovery(method="qat", weights_sha256=weights_digest(weights))
    recipe = replace(ORIGINAL, embedding_bits=8, recovery=spec).canonical(DIMENSIONS)
    save_recovered(tmp_path / "given", recipe, weights)
    file = tmp_path / "given" / "recipe.json"
    check_own([file], LOADED)
    (read,) = read_own([file], MODEL, tmp_path / "recovered")
    kept = load_recovered(read, tmp_path / "recovered" / read.id)
    assert kept is not None
    assert torch.equal(kept["encoder.ln_post.weight"], weights["encoder.ln_post.weight"])
