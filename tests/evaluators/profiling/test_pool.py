"""Which operations are measured: enough that every recipe of the space can be priced."""

from collections import Counter
from dataclasses import replace
from itertools import islice
from math import dist, log2

import pytest
from hypothesis import assume, given, settings

from compression.recipe.dimensions import published_dimensions
from compression.recipe.recipe import Recipe
from compression.recipe.runtimes import unsupported_reason
from devices.operation import OPERATION_KINDS, Operation
from devices.profile import load_description
from devices.roofline import precisions
from evaluators.costs.inventory import operations
from evaluators.profiling import pool
from evaluators.profiling.pool import FIRST_OPERATIONS, Pool, kernel_of
from evaluators.profiling.random_workloads import random_workloads
from evaluators.profiling.run import MEASURED_RUNTIME, RUNTIME
from tests.strategies import recipes

TINY = published_dimensions("tiny.en")


@pytest.fixture(scope="module")
def tiny_pool() -> Pool:
    return Pool.of(("tiny.en",), MEASURED_RUNTIME)


@pytest.fixture(scope="module")
def first(tiny_pool: Pool) -> list[Operation]:
    return tiny_pool.first_operations()


def test_counts_are_those_of_the_inventory(tiny_pool: Pool) -> None:
    for workload, counts in islice(zip(tiny_pool.workloads, tiny_pool.counts, strict=True), 5):
        items = operations(workload.dimensions, workload.recipe, audio_s=workload.audio_s, tokens=workload.tokens)
        by_hand: Counter[Operation] = Counter()
        for item in items:
            by_hand.update({item.operation: item.count})
        assert counts == by_hand


def test_frequent_operations_come_first(tiny_pool: Pool) -> None:
    appearances = Counter(operation for counts in tiny_pool.counts for operation in counts)
    order = [appearances[operation] for operation in tiny_pool.operations]
    assert order == sorted(order, reverse=True)
    assert set(appearances) == set(tiny_pool.operations)


def test_two_models_share_the_workloads() -> None:
    both = Pool.of(("tiny.en", "base"), MEASURED_RUNTIME)
    assert {workload.dimensions.n_audio_state for workload in both.workloads} == {384, 512}
    assert len(both.workloads) == 2 * pool.WORKLOADS


def test_a_profile_made_of_them_offers_what_its_runtime_says(first: list[Operation]) -> None:
    """What `load_profile` asks of a table."""
    description = load_description("rpi4").model_copy(update={"runtime": RUNTIME})
    held = {(operation.kind, operation.weight_bits, operation.activation_bits) for operation in first}
    for kind in OPERATION_KINDS:
        for precision in precisions(kind, description):
            assert (kind, *precision) in held


@settings(deadline=None, max_examples=80)
@given(recipe=recipes(TINY, bits=(4, 8, 16, 32)))
def test_every_recipe_runs_kernels_that_are_measured(first: list[Operation], recipe: Recipe) -> None:
    """Whatever its ranges of activations, which random workloads do not vary."""
    recipe = recipe.canonical(TINY)
    assume(unsupported_reason("onnxruntime", recipe, TINY) is None)
    measured = {kernel_of(operation) for operation in first}
    for item in operations(TINY, recipe):
        assert kernel_of(item.operation) in measured, item.operation


def point(operation: Operation) -> tuple[float, ...]:
    o = operation
    return tuple(log2(max(value, 1)) for value in (o.heads, o.m, o.k, o.n, o.group_size))


def is_logits(operation: Operation) -> bool:
    return (operation.kind, operation.m, operation.n) == ("gemv", 1, TINY.n_vocab)


def test_all_logits_are_measured(tiny_pool: Pool, first: list[Operation]) -> None:
    logits = {operation for operation in tiny_pool.operations if is_logits(operation)}
    assert {(shape.weight_bits, shape.group_size) for shape in logits} >= {
        (32, 0),
        (8, 64),
        (8, 128),
        (4, 32),
        (4, 128),
    }
    assert logits <= set(first)


def test_the_first_operations_cover_the_shapes_of_every_kernel(tiny_pool: Pool, first: list[Operation]) -> None:
    """Farthest-point sampling (Gonzalez 1985): none is farther from the chosen ones than these from each other."""
    assert len(set(first)) == len(first)
    for kernel in {kernel_of(operation) for operation in tiny_pool.operations}:
        chosen = [operation for operation in first if kernel_of(operation) == kernel]
        others = [operation for operation in tiny_pool.operations if kernel_of(operation) == kernel]
        if any(is_logits(operation) for operation in chosen):  # they are all there, beside those that cover
            assert len(chosen) >= FIRST_OPERATIONS
            continue
        assert len(chosen) == min(FIRST_OPERATIONS, len({point(operation) for operation in others}))
        if len(chosen) < FIRST_OPERATIONS:
            continue
        between = min(dist(point(a), point(b)) for a in chosen for b in chosen if a != b)
        farthest = max(min(dist(point(operation), point(other)) for other in chosen) for operation in others)
        assert farthest <= between + 1e-9


def test_calibrated_ranges_are_measured_at_the_shapes_of_those_found_on_the_way(first: list[Operation]) -> None:
    calibrated = {replace(operation, kind="dynamic_quantise") for operation in first if operation.kind == "quantise"}
    assert calibrated == {operation for operation in first if operation.kind == "dynamic_quantise"}
    assert {operation.activation_bits for operation in calibrated} == {8, 16}


def test_workloads_are_those_of_the_seed(tiny_pool: Pool) -> None:
    drawn = islice(random_workloads(TINY, MEASURED_RUNTIME, seed=pool.DESIGN_SEED), pool.WORKLOADS)
    assert tiny_pool.workloads == tuple(drawn)
