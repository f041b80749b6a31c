"""What runtimes are declared to execute: the document, the profiles and the targets agree with it."""

from pathlib import Path

import pytest

from compression.export.targets import TARGETS
from compression.recipe.recipe import Recipe
from compression.recipe.runtime_table import table
from compression.recipe.runtimes import RUNTIMES, Runtime, unsupported_reason
from devices.profile import known_profiles, load_profile
from tests.compression.export.models import COMPACT, changed

ORIGINAL = Recipe.original(COMPACT, stored_bits=16)


def test_every_target_is_declared_and_runs_the_original() -> None:
    assert TARGETS.keys() == RUNTIMES.keys()
    assert [unsupported_reason(target, ORIGINAL, COMPACT) for target in RUNTIMES] == [None] * len(RUNTIMES)


def test_the_document_shows_what_is_declared() -> None:
    assert table() in Path("docs/targets.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", known_profiles())
def test_what_a_profile_offers_its_runtime_executes(name: str) -> None:
    offered = load_profile(name).runtime
    runtime: Runtime = RUNTIMES[offered.name]
    assert set(offered.weight_bits) | set(offered.embedding_bits) <= set(runtime.weight_bits)
    assert set(offered.convolution_bits) <= set(runtime.convolution_bits)
    assert set(offered.activation_bits) <= set(runtime.integer_activations)
    assert runtime.group_sizes is None or set(offered.group_sizes) <= set(runtime.group_sizes)
    assert runtime.latencies == offered.name


@pytest.mark.parametrize("size", [8, 24, 512])
def test_groups_that_no_kernel_has_are_refused(size: int) -> None:
    reason = unsupported_reason("onnxruntime", changed(ORIGINAL, bits=4, group_size=size), COMPACT)
    assert reason is not None
    assert reason.startswith(f"group_size = {size}: ONNX Runtime has one scale per output channel or groups of 16, 32")
