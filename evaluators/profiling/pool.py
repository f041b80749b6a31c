"""Which operations a latency table is made of: those of random workloads of the models that it is for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from math import log2

import numpy as np

from compression.recipe.dimensions import published_dimensions
from devices.facts import RuntimeSupport
from devices.operation import Operation
from devices.streams import stream_of
from devices.table import KernelClass
from evaluators.costs.inventory import operations
from evaluators.costs.items import InventoryItem
from evaluators.profiling.random_workloads import Workload, random_workloads

DESIGN_SEED = 0
WORKLOADS = 150
"""Per model."""
FIRST_OPERATIONS = 10
"""Per kernel, spread over its shapes, before any fit."""
LEAST_STREAMED_BITS = 4
"""Kernels of fewer bits are bound by arithmetic: a stream of theirs takes seconds and tells nothing."""


def items_of(workload: Workload) -> tuple[InventoryItem, ...]:
    """What a workload executes."""
    w = workload
    return operations(w.dimensions, w.recipe, audio_s=w.audio_s, tokens=w.tokens)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The workloads that a table is for, and their operations."""

    workloads: tuple[Workload, ...]

    @classmethod
    def of(cls, models: Sequence[str], runtime: RuntimeSupport) -> "Pool":
        """Raises UnknownNameError for a model that OpenAI has not published."""
        drawn = [random_workloads(published_dimensions(name), runtime, seed=DESIGN_SEED) for name in models]
        return cls(workloads=tuple(workload for many in drawn for workload in islice(many, WORKLOADS)))

    @cached_property
    def counts(self) -> tuple[Counter[Operation], ...]:
        """How often each workload executes each operation."""
        found = []
        for workload in self.workloads:
            counts: Counter[Operation] = Counter()
            for item in items_of(workload):
                counts[item.operation] += item.count
            found.append(counts)
        return tuple(found)

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """All that occur, the most frequent first."""
        total: Counter[Operation] = Counter()
        for counts in self.counts:
            total.update(counts.keys())
        return tuple(operation for operation, _ in total.most_common())

    def first_operations(self) -> list[Operation]:
        """Of every kernel, some that lie far from each other in the logarithms of their shapes; and all logits.

        The logits are most of a token's time, and no recipe changes their shape. The workloads' activations are rounded
        in ranges found on the way; recipes may also have calibrated ones, for the same shapes.
        """
        kernels: dict[KernelClass, list[Operation]] = {}
        ranges_found = [operation for operation in self.operations if operation.kind == "dynamic_quantise"]
        calibrated = [replace(operation, kind="quantise") for operation in ranges_found]
        for operation in (*self.operations, *calibrated):
            kernels.setdefault(kernel_of(operation), []).append(operation)
        spread = [operation for group in kernels.values() for operation in _spread(group, FIRST_OPERATIONS)]
        return list(dict.fromkeys([*self._logits(), *spread]))

    def streams(self) -> list[Operation]:
        """One megabyte of every kind of stream that the workloads read."""
        streams = dict.fromkeys(stream_of(operation) for operation in self.operations)
        return [stream for stream in streams if stream and stream.weight_bits >= LEAST_STREAMED_BITS]

    def _logits(self) -> list[Operation]:
        vocabularies = {w.dimensions.n_vocab for w in self.workloads}
        return [operation for operation in self.operations if operation.kind == "gemv" and operation.n in vocabularies]


def kernel_of(operation: Operation) -> KernelClass:
    """Whatever the threads and cores."""
    return KernelClass.of(operation, threads=1, core_set="any")


def _spread(group: Sequence[Operation], count: int) -> list[Operation]:
    """Farthest-point sampling, from the middle on."""
    points = np.array([[log2(max(v, 1)) for v in (o.heads, o.m, o.k, o.n, o.group_size)] for o in group])
    chosen = [int(np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1)))]
    distances = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < count and distances.max() > 0:
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return [group[index] for index in chosen]
