"""Costs against a second summation, closed forms, and the shipped device profiles."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp, hypot

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from compression.recipe.recipe import Recipe
from devices.interval import UncertainTime
from devices.operation import Operation
from devices.profile import DeviceProfile, load_profile
from devices.streams import stream_of, streamed_bytes
from evaluators.costs.inventory import operations, prompt_length
from evaluators.costs.items import InventoryItem
from evaluators.costs.price import RUNTIME_BYTES, price
from tests.networks import network_of_shape
from tests.strategies import recipes, small_dimensions

SMALL = small_dimensions()


class FakeProfile:
    """Latencies by a formula that tells every field of an operation apart."""

    active_power_w = 2.5
    idle_power_w = 1.0
    threads, cores = 2, 4
    source = "estimated"
    encoder_log_std, decoder_log_std = 0.2, 0.3
    encoder_factor, decoder_factor = 0.9, 1.1

    def __init__(self, slowness: float = 1.0) -> None:
        self.slowness = slowness

    def latency(self, operation: Operation) -> UncertainTime:
        work = operation.heads * operation.m * operation.k * operation.n * operation.weight_bits
        ms = self.slowness * 1e-9 * (work + 7 * operation.activation_bits + 1000 * operation.group_size + 1000)
        return UncertainTime(ms=ms, log_std=0.01 * len(operation.kind))

    def stream_extra_ms(self, reads: Mapping[Operation, float], step_ms: float) -> float:
        return self.slowness * sum(0.01 * kind.weight_bits * mb for kind, mb in reads.items()) + 0.1 * step_ms


PROFILE = FakeProfile()
FACTORS = {"encoder": 0.9, "decoder": 1.1}
SHARED = {"encoder": 0.2, "decoder": 0.3}


def peak_bytes(items: Sequence[InventoryItem]) -> int:
    """Loading the encoder, loading the decoder beside it, running both."""
    stages = {stage: [item for item in items if item.stage == stage] for stage in FACTORS}
    held = {stage: sum(i.loaded_bytes + i.mapped_bytes for i in some) for stage, some in stages.items()}
    loading = {stage: sum(i.loading_bytes for i in some) for stage, some in stages.items()}
    both = held["encoder"] + held["decoder"]
    running = both + sum(i.cache_bytes for i in items)
    running += sum(max(i.activation_bytes for i in some) for some in stages.values())
    return RUNTIME_BYTES + max(held["encoder"] + loading["encoder"], both + loading["decoder"], running)


@settings(deadline=None)
@given(recipes(SMALL), st.floats(0.5, 30), st.integers(1, 60))
def test_costs_are_sums_over_the_inventory(recipe: Recipe, audio_s: float, tokens: int) -> None:
    costs = price(SMALL, recipe, PROFILE, audio_s=audio_s, tokens=tokens)
    items = operations(SMALL, recipe, audio_s=audio_s, tokens=tokens)
    stage_ms = {
        stage: factor * sum(i.count * PROFILE.latency(i.operation).ms for i in items if i.stage == stage)
        for stage, factor in FACTORS.items()
    }
    steps = prompt_length(SMALL) + tokens
    step = [item for item in items if item.stage == "decoder"]
    operations_ms = sum(i.count * PROFILE.latency(i.operation).ms for i in step) / steps
    reads: Counter[Operation] = Counter()
    for item in step:
        if stream := stream_of(item.operation):
            reads[stream] += streamed_bytes(item.operation) / 1e6  # type: ignore[assignment]
    stage_ms["decoder"] += steps * FACTORS["decoder"] * PROFILE.stream_extra_ms(reads, operations_ms)
    latency_ms = sum(stage_ms.values())
    assert costs.size_bytes == sum(item.weight_bytes for item in items)
    assert costs.parameters == sum(item.parameters for item in items)
    assert costs.flops == sum(item.flops for item in items)
    assert costs.peak_memory_bytes == peak_bytes(items)
    assert costs.encoder.ms == pytest.approx(stage_ms["encoder"])
    assert costs.token.ms == pytest.approx(stage_ms["decoder"] / steps)
    assert costs.token_operations_ms == pytest.approx(operations_ms)
    assert costs.token_reads == pytest.approx(reads)
    assert costs.latency_ms == pytest.approx(latency_ms)
    assert costs.rtf == pytest.approx(latency_ms / 1000 / audio_s)
    assert costs.energy_mj == pytest.approx(2.5 * latency_ms)
    assert costs.energy_above_idle_mj == pytest.approx(1.5 * latency_ms)
    assert costs.occupancy == pytest.approx(costs.rtf * 2 / 4)
    assert costs.source == "estimated"


@settings(deadline=None)
@given(recipes(SMALL))
def test_errors_of_operations_add_up_and_join_the_profiles(recipe: Recipe) -> None:
    """All operations off by one standard deviation in the same direction, and independently of that the graphs."""
    costs, items = price(SMALL, recipe, PROFILE), operations(SMALL, recipe)
    times = [(FACTORS[i.stage] * i.count, PROFILE.latency(i.operation)) for i in items]
    off = sum(count * latency.ms * latency.log_std for count, latency in times)
    common = sum(SHARED[i.stage] * count * latency.ms for i, (count, latency) in zip(items, times, strict=True))
    extra_ms = FACTORS["decoder"] * PROFILE.stream_extra_ms(costs.token_reads, costs.token_operations_ms)
    streaming_ms = (prompt_length(SMALL) + 30) * extra_ms
    whole_ms = sum(count * latency.ms for count, latency in times) + streaming_ms
    log_std = hypot(off, common + SHARED["decoder"] * streaming_ms) / whole_ms
    assert costs.latency_high_ms == pytest.approx(costs.latency_ms * exp(1.6448536 * log_std))
    assert costs.latency_low_ms == pytest.approx(costs.latency_ms / exp(1.6448536 * log_std))
    assert 0.2 <= costs.encoder.log_std <= hypot(0.01 * len("dynamic_quantise"), 0.2)
    assert 0.3 <= costs.token.log_std * (1 + 1e-9) <= hypot(0.01 * len("dynamic_quantise"), 0.3)


def test_profiles_do_not_share_what_is_remembered() -> None:
    recipe = Recipe.original(SMALL)
    fast, slow = (price(SMALL, recipe, FakeProfile(slowness)) for slowness in (1.0, 7.0))
    assert slow.latency_ms == pytest.approx(7 * fast.latency_ms)


def test_peak_memory_of_float16_is_that_of_loading_the_decoder() -> None:
    """tiny.en: float16 weights are widened and rearranged, so that the decoder's are there twice."""
    dimensions = replace(small_dimensions(state=384, heads=6, layers=4, vocabulary=51864), n_text_ctx=448)
    recipe = Recipe.original(dimensions)
    network = network_of_shape(dimensions, recipe)
    projected = ("cross_attn.key", "cross_attn.value")
    decoder = sum(
        p.numel() for n, p in network.decoder.named_parameters() if not any(matrix in n for matrix in projected)
    )
    everything = sum(parameter.numel() for parameter in network.parameters()) + 1500 * 384
    tables = 2 * (51864 + 448) * 384  # the mapped file
    found = price(dimensions, recipe, PROFILE).peak_memory_bytes
    assert found == RUNTIME_BYTES + 4 * everything + tables + 4 * decoder


def test_peak_memory_of_a_long_window_is_that_of_running() -> None:
    """Hidden values of the encoder's FFN before and after GELU, beside the residual stream; caches; one token."""
    dimensions = small_dimensions(state=384, heads=6, layers=4)
    recipe = Recipe.original(dimensions, stored_bits=32)
    costs = price(dimensions, recipe, PROFILE, tokens=30)
    rows, state, steps = 1500, 384, 32
    ffn = rows * state + 2 * rows * 4 * state
    token = max(state + 8 * state, state + 7 * state, state + 500)
    caches = 2 * 4 * state * (steps + rows)
    positions = rows * state
    floats = costs.parameters + positions + ffn + token + caches
    assert costs.peak_memory_bytes == RUNTIME_BYTES + 4 * floats


def test_quantised_weights_stay_packed_in_memory() -> None:
    """An embedding of 8 bits, as the logits read it and as its file is mapped for the look-up."""
    original = Recipe.original(SMALL)
    quantised = replace(original, embedding_bits=8)
    before, after = price(SMALL, original, PROFILE), price(SMALL, quantised, PROFILE)
    table = 500 * 128
    assert before.size_bytes - after.size_bytes == 2 * table - (table + 2 * 500)
    held = {"float16": 4 * table, "8 bits": (table + 4 * 500) + (table + 2 * 500)}
    assert before.peak_memory_bytes - after.peak_memory_bytes == held["float16"] - held["8 bits"]


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
    code = "import sys, evaluators.costs.price; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
