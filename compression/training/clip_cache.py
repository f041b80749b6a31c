"""What is worked out once per clip and used again in every epoch."""

from collections.abc import Callable

import torch
from torch import Tensor

from compression.training.batches import Batch, batch_of

LIMIT_BYTES = 3 << 30
"""What does not fit is worked out again each time. 120 clips of 15 s in three copies take 415 MB of tiny's outputs."""
Tensors = tuple[Tensor, ...]


class ClipCache:
    """Tensors by clip. Each is made in a batch of one, so that its value does not depend on the others."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes, self._held_bytes = limit_bytes, 0
        self._tensors: dict[str, Tensors] = {}

    def of(self, batch: Batch, make: Callable[[Batch], Tensors]) -> list[Tensors]:
        """Those of each clip. Where they are new, `make` gets a batch of the clip alone, without gradients."""
        return [self._of(batch, index, make) for index in range(len(batch))]

    def _of(self, batch: Batch, index: int, make: Callable[[Batch], Tensors]) -> Tensors:
        clip = batch.clips[index]
        if clip.key in self._tensors:
            return self._tensors[clip.key]
        with torch.no_grad():
            made = make(batch_of([clip]).to(batch.mel.device))
        size = sum(tensor.nbytes for tensor in made)
        if self._held_bytes + size <= self._limit_bytes:
            self._tensors[clip.key] = made
            self._held_bytes += size
        return made
