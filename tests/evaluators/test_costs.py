"""Costs against a second summation, closed forms, and the shipped device profiles."""

import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from compression.recipe import Recipe
from devices.operation import Operation
from devices.profile import DeviceProfile, OperationLatency, load_profile
from evaluators.costs import RUNTIME_BYTES, price
from evaluators.inventory import operations
from tests.strategies import recipes, small_dimensions

SMALL = small_dimensions()


class FakeProfile:
    """Latencies by a formula that tells every field of an operation apart."""

    active_power_w = 2.5
    idle_power_w = 1.0
    threads, cores = 2, 4
    source = "estimated"

    def __init__(self, slowness: float = 1.0) -> None:
        self.slowness = slowness

    def latency(self, operation: Operation) -> OperationLatency:
        work = operation.m * operation.k * operation.n * operation.weight_bits + operation.activation_bits
        mean_ms = self.slowness * (1e-9 * work + 1e-6 * operation.group_size + 1e-6)
        return OperationLatency(mean_ms=mean_ms, low_ms=mean_ms / 2, high_ms=mean_ms * 3)


PROFILE = FakeProfile()


@settings(deadline=None)
@given(recipes(SMALL), st.floats(0.5, 30), st.integers(1, 60))
def test_costs_are_sums_over_the_inventory(recipe: Recipe, audio_s: float, tokens: int) -> None:
    costs = price(SMALL, recipe, PROFILE, audio_s=audio_s, tokens=tokens)
    items = operations(SMALL, recipe, audio_s=audio_s, tokens=tokens)
    by_stage = {stage: [item for item in items if item.stage == stage] for stage in ("encoder", "decoder")}
    latency_ms = sum(item.count * PROFILE.latency(item.operation).mean_ms for item in items)
    activation_bytes = sum(max(item.activation_bytes for item in stage) for stage in by_stage.values())
    assert costs.size_bytes == sum(item.weight_bytes for item in items)
    assert costs.parameters == sum(item.parameters for item in items)
    assert costs.encoder_flops == sum(item.flops for item in by_stage["encoder"])
    assert costs.decoder_flops == sum(item.flops for item in by_stage["decoder"])
    assert costs.flops == costs.encoder_flops + costs.decoder_flops
    assert costs.peak_memory_bytes == RUNTIME_BYTES + activation_bytes + sum(
        item.loaded_bytes + item.cache_bytes for item in items
    )
    assert costs.latency_ms == pytest.approx(latency_ms)
    assert costs.latency_low_ms == pytest.approx(latency_ms / 2)
    assert costs.latency_high_ms == pytest.approx(latency_ms * 3)
    assert costs.rtf == pytest.approx(latency_ms / 1000 / audio_s)
    assert costs.energy_mj == pytest.approx(2.5 * latency_ms)
    assert costs.energy_above_idle_mj == pytest.approx(1.5 * latency_ms)
    assert costs.occupancy == pytest.approx(costs.rtf * 2 / 4)
    assert costs.source == "estimated"


def test_profiles_do_not_share_what_is_remembered() -> None:
    recipe = Recipe.original(SMALL)
    fast, slow = (price(SMALL, recipe, FakeProfile(slowness)) for slowness in (1.0, 7.0))
    assert slow.latency_ms == pytest.approx(7 * fast.latency_ms)


def test_peak_memory_of_the_original_follows_its_formula() -> None:
    dimensions = small_dimensions(state=384, heads=6, layers=4)
    costs = price(dimensions, Recipe.original(dimensions), PROFILE, tokens=30)
    rows, state, heads, steps = 1500, 384, 6, 32
    softmax = rows * state + rows * state + 2 * heads * rows * rows  # residual stream, values, scores in and out
    cross_values = 2 * rows * state  # encoder output and one projection
    caches = 4 * 2 * state * (steps + rows)
    floats = costs.parameters + softmax + cross_values + caches
    assert costs.peak_memory_bytes == RUNTIME_BYTES + 4 * floats


def test_quantised_weights_stay_packed_in_memory() -> None:
    original = Recipe.original(SMALL)
    quantised = replace(original, embedding_bits=8)
    before, after = price(SMALL, original, PROFILE), price(SMALL, quantised, PROFILE)
    table = 500 * 128
    assert before.size_bytes - after.size_bytes == 2 * table - (table + 2 * 500)
    assert before.peak_memory_bytes - after.peak_memory_bytes == 4 * table - (table + 4 * 500)


@pytest.fixture(scope="module")
def imx8mplus() -> DeviceProfile:
    return load_profile("imx8mplus")


@settings(deadline=None, max_examples=30)
@given(recipe=recipes(SMALL, bits=(4, 8, 16)), convolution_bits=st.sampled_from((8, 16)))
def test_shipped_profile_prices_what_its_runtime_offers(
    imx8mplus: DeviceProfile, recipe: Recipe, convolution_bits: int
) -> None:
    costs = price(SMALL, replace(recipe, convolution_bits=convolution_bits), imx8mplus)
    assert 0 < costs.latency_low_ms < costs.latency_ms < costs.latency_high_ms
    assert costs.energy_mj == pytest.approx(costs.latency_ms * imx8mplus.active_power_w)
    assert costs.source == imx8mplus.source


def test_precision_that_the_profile_lacks_is_an_error_not_a_default(imx8mplus: DeviceProfile) -> None:
    with pytest.raises(InputError, match="3-bit weights"):
        price(SMALL, replace(Recipe.original(SMALL), embedding_bits=3), imx8mplus)


def test_a_thousand_recipes_a_second_when_warm() -> None:
    dimensions = small_dimensions(state=384, heads=6, layers=4, vocabulary=51864)
    candidates = [
        replace(Recipe.original(dimensions), window_s=window_s, embedding_bits=bits)
        for window_s in (15, 20, 25, 30)
        for bits in (2, 4, 8, 16)
    ]
    for candidate in candidates:
        price(dimensions, candidate, PROFILE)
    start = time.process_time()
    for _ in range(20):
        for candidate in candidates:
            price(dimensions, candidate, PROFILE)
    assert 20 * len(candidates) / (time.process_time() - start) > 1000


def test_pricing_does_not_import_torch() -> None:
    code = "import sys, evaluators.costs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
