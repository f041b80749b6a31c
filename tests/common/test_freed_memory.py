"""What is freed between arrays that stay leaves the process."""

import numpy as np
import pytest

from common import freed_memory
from common.freed_memory import give_back_freed_memory
from runtime.memory import STATUS, of_status

MANY, FLOATS = 4000, 15_000  # of 60 kB: below what glibc maps by itself


def resident_mb() -> float:
    return (of_status(STATUS, "RssAnon") or 0) / 1e6


@pytest.mark.skipif(freed_memory._malloc_trim() is None, reason="the C library has no malloc_trim")
def test_holes_between_arrays_are_given_back() -> None:
    arrays = [np.ones(FLOATS, dtype=np.float32) for _ in range(MANY)]
    kept = arrays[::4]
    del arrays
    before = resident_mb()
    give_back_freed_memory()
    freed = MANY * 3 / 4 * FLOATS * 4 / 1e6
    assert before - resident_mb() > freed / 2
    assert sum(float(array[0]) for array in kept) == len(kept)


def test_nothing_happens_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory, "_malloc_trim", lambda: None)
    give_back_freed_memory()
