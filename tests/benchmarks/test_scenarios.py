"""The article's recipes on two models and their devices, and what dominates what."""

from dataclasses import replace

import pytest
from article import SCENARIOS
from scenarios import Figures, Measured, Result, Wer, markdown

from compression.export.targets import check_exportable
from compression.recipe.dimensions import Dimensions, published_dimensions
from compression.recipe.recipe import Recipe
from devices.profile import load_profile
from search.configuration.config import SearchConfig
from search.pricing import trial_costs
from search.space.space import runtime_violation
from search.trial import TrialCosts
from tests.benchmarks.calibrations import random_calibration

MODELS = {name: published_dimensions(name) for name in ("tiny.en", "base")}


def recipe_of(name: str, dimensions: Dimensions) -> Recipe:
    recipe = SCENARIOS[name].recipe(Recipe.original(dimensions), random_calibration(dimensions))
    recipe.check(dimensions)
    return recipe.canonical(dimensions)


def costs_of(recipe: Recipe, name: str, dimensions: Dimensions) -> TrialCosts:
    device = SCENARIOS[name].device
    config = SearchConfig.build(None, {"model": "tiny.en", "device": device, "trials": 1})
    return trial_costs(recipe, dimensions, load_profile(device), config)


def units(recipe: Recipe, field: str) -> int:
    return sum(getattr(layer, field, 0) for layer in (*recipe.encoder, *recipe.decoder) if layer)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_recipes_run_on_their_devices_and_can_be_exported(name: str, model: str) -> None:
    recipe, original = recipe_of(name, MODELS[model]), Recipe.original(MODELS[model])
    profile = load_profile(SCENARIOS[name].device)
    assert runtime_violation(recipe, profile.runtime, original=original) is None
    check_exportable(recipe, MODELS[model], "onnxruntime")
    before, after = (costs_of(choice, name, MODELS[model]) for choice in (original, recipe))
    assert after.size_mb < before.size_mb
    assert after.peak_memory_mb < profile.ram_available_mb


@pytest.mark.parametrize("model", MODELS)
def test_recipes_are_what_the_article_says(model: str) -> None:
    dimensions = MODELS[model]
    original = Recipe.original(dimensions)
    phone, camera, car = (recipe_of(name, dimensions) for name in ("phone", "camera", "car"))
    heads = units(original, "heads") + units(original, "cross_heads")
    assert units(phone, "heads") + units(phone, "cross_heads") == round(0.6 * heads)
    assert set(phone.weight_bits) == {8}
    channels = units(camera, "ffn_channels") / units(original, "ffn_channels")
    assert channels == pytest.approx(0.7, abs=0.005)
    assert {layer.ffn_bits for layer in (*camera.encoder, *camera.decoder) if layer} == {4}
    assert camera.activation_ranges == "static"
    assert sum(layer is None for layer in car.encoder) == 2
    assert None not in car.decoder
    assert (set(car.weight_bits), car.activation_bits) == ({8}, 16)


def figures(costs: TrialCosts, wer: float, **changes: float) -> Figures:
    measured = Measured(
        recipe_id="a", summary="s", wer=Wer(wer=wer, low=wer / 2, high=2 * wer), wer_confirm=None, artifact=None
    )
    return Figures(costs=replace(costs, **changes), measured=measured)


def test_a_recipe_is_dominated_when_nothing_is_higher() -> None:
    dimensions = MODELS["tiny.en"]
    costs = costs_of(Recipe.original(dimensions), "car", dimensions)
    plain = figures(costs, 0.1)
    assert plain.dominates(plain)
    assert figures(costs, 0.09).dominates(plain)
    assert not figures(costs, 0.11).dominates(plain)
    assert costs.latency_ms
    for name, value in (("size_mb", costs.size_mb), ("flops_g", costs.flops_g), ("latency_ms", costs.latency_ms)):
        assert figures(costs, 0.1, **{name: 0.9 * value}).dominates(plain)
        assert not figures(costs, 0.05, **{name: 1.1 * value}).dominates(plain)


def test_the_table_shows_shares_beside_the_claims() -> None:
    dimensions = MODELS["tiny.en"]
    costs = costs_of(Recipe.original(dimensions), "car", dimensions)
    half = figures(costs, 0.2, flops_g=costs.flops_g / 2)
    result = Result(
        name="car",
        device="imx8mplus",
        claim=SCENARIOS["car"].claim,
        original=figures(costs, 0.1),
        by_hand=half,
        found=half,
        found_trial=7,
        run="run",
        is_dominated=True,
        is_trained=False,
    )
    lines = "\n".join(markdown(result)).splitlines()
    (flops,) = [line for line in lines if line.startswith("| GFLOPs")]
    assert [cell.split("(")[-1].strip() for cell in flops.split("|")[2:-1]] == ["100%)", "50%)", "50%)", "50%"]
    assert "| WER % | 10.00 (5.00 to 20.00) | 20.00 (10.00 to 40.00) | 20.00 (10.00 to 40.00) |  |" in lines
    assert lines[-1] == "The search's trial 7 (s) dominates it."
