"""Samples that come one block after another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Note = Callable[[str], None]
"""Takes a sentence on what a file is not as it should be, such as `its header states no length`."""

BLOCK_VALUES = 1 << 17
"""Samples of all channels that are held at once."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One recording of a file; several are heard one after another. `rate` in Hz.

    `frames` is what the file states or what its headers add up to; None where nothing tells.
    `blocks` reads from the beginning at every call: float32 (frames, channels), full scale is 1.
    """

    rate: int
    channels: int
    frames: int | None
    blocks: Callable[[], Iterator[Floats]]


def block_frames(channels: int) -> int:
    """Frames of a block."""
    return max(1, BLOCK_VALUES // max(1, channels))
