"""Where a search begins: the original and evenly compressed recipes, so that a sampler knows both ends."""

from search.genes import Value
from search.space import Genes, Space


def starting_genes(space: Space) -> tuple[Genes, ...]:
    """Genes worth trying before a sampler knows anything, the original first.

    For each bit-width: all weights at it, then one part of the model (encoder, decoder, embedding) one step
    lower than the rest; the finest groups with zero points, and the shortest window. Nothing is removed.
    """
    default = space.default_genes
    window = {"window_s": space.choices["window_s"][-1]} if "window_s" in space.choices else {}
    starts: list[dict[str, Value]] = [default]
    levels = max((len(space.choices[name]) for name in _weight_genes(space)), default=1)
    for level in range(1, levels):
        even = default | window | _weights_at(space, level)
        starts.append(even)
        lower = _weights_at(space, level + 1)
        if level + 1 < levels:
            parts = ("encoder", "decoder", "embedding")
            starts += [even | {n: v for n, v in lower.items() if n.startswith(part)} for part in parts]
    return tuple(starts)


def _weight_genes(space: Space) -> list[str]:
    return [name for name in space.choices if name.endswith("_bits") and name != "activation_bits"]


def _weights_at(space: Space, level: int) -> dict[str, Value]:
    """Every weight gene at its value of this level, or at its last one."""
    return {name: space.choices[name][min(level, len(space.choices[name]) - 1)] for name in _weight_genes(space)}
