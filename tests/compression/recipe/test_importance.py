from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import CompressionError
from compression.recipe.importance import allocate, kept_units

SCORES = st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=4), min_size=1, max_size=3)


@given(SCORES, st.data())
def test_allocation_removes_the_least_important(layers: list[list[int]], data: st.DataObject) -> None:
    """Against every way to remove so many units and leave one in each layer: none costs less."""
    scores = {f"layer {i}": np.array(layer, np.float32) for i, layer in enumerate(layers)}
    removable = sum(len(layer) - 1 for layer in layers)
    removed = data.draw(st.integers(0, removable))
    kept = allocate(scores, removed)
    assert sum(len(layer) for layer in layers) - sum(kept.values()) == removed

    def cost(counts: tuple[int, ...]) -> float:
        return sum(float(np.sort(s)[: len(s) - n].sum()) for s, n in zip(scores.values(), counts, strict=True))

    possible = product(*(range(1, len(layer) + 1) for layer in layers))
    total = sum(map(len, layers)) - removed
    assert cost(tuple(kept.values())) == min(cost(counts) for counts in possible if sum(counts) == total)


def test_blocks_leave_whole() -> None:
    scores = {"a": np.arange(64, dtype=np.float32), "b": np.full(64, 100, np.float32)}
    assert allocate(scores, 40, block=16) == {"a": 32, "b": 64}


def test_a_layer_keeps_a_unit() -> None:
    with pytest.raises(CompressionError, match="at most 2 can"):
        allocate({"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}, 3)


def test_kept_units_keep_their_order() -> None:
    assert kept_units(np.array([3.0, 1.0, 5.0, 1.0], np.float32), 3).tolist() == [0, 1, 2]
