"""From importance scores to what stays: how many units per layer, and which."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from common.errors import CompressionError

Scores = NDArray[np.float32]


def kept_units(scores: Scores, kept: int) -> NDArray[np.int64]:
    """Indices (kept,) of the most important units in their original order; ties go to the lower index."""
    return np.sort(np.argsort(-scores, kind="stable")[:kept])


def allocate(scores: Mapping[str, Scores], removed: int, *, block: int = 1) -> dict[str, int]:
    """How many units stay in each layer when `removed` leave over all of them, the least important first.

    Units leave a layer in blocks of `block`, the cheapest block by summed importance first; every layer keeps at
    least one block. `removed` is rounded down to whole blocks. Raises CompressionError when fewer can leave.
    """
    blocks: list[tuple[float, str, int]] = []
    for key, layer in scores.items():
        whole = np.sort(layer)[: len(layer) - len(layer) % block].reshape(-1, block)
        blocks += [(float(total), key, index) for index, total in enumerate(whole.sum(1)[:-1])]
    wanted = removed // block
    if wanted > len(blocks):
        raise CompressionError(f"pruning: {removed} units cannot leave, at most {len(blocks) * block} can")
    kept = {key: len(layer) for key, layer in scores.items()}
    for _, key, _ in sorted(blocks)[:wanted]:
        kept[key] -= block
    return kept
