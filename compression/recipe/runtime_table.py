"""`python -m compression.recipe.runtime_table`: the table of docs/targets.md, from what `runtimes.py` declares."""

from collections.abc import Callable

from compression.recipe.runtimes import RUNTIMES, Runtime

Cell = Callable[[Runtime], str]

_WIDTHS = {
    "each matrix": "each matrix its own",
    "integers or floats": "integers in every matrix, or in none",
    "one width": "the same in every matrix",
}
_SHAPES = {"each layer": "any, by layer", "each stack": "any, one number for a stack", "original": "the original's"}
_WINDOWS = {"file": "any", "call": "any, given with each call", "30 s": "30 s"}


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))


def _groups(runtime: Runtime) -> str:
    if runtime.group_sizes is None:
        return "any"
    sizes = ", ".join("one scale per output channel" if size == 0 else str(size) for size in runtime.group_sizes)
    return sizes if runtime.grouped_bits is None else f"{sizes}; groups only at {_listed(runtime.grouped_bits)} bits"


def _activations(runtime: Runtime) -> str:
    integers, floats = _listed(runtime.integer_activations), _listed(runtime.float_activations)
    return integers if integers == floats else f"{integers}; {floats} beside floating-point weights"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _layers(runtime: Runtime) -> str:
    refused = [f"{count} in the decoder: {why}" for count, why in runtime.refused_decoder_layers.items()]
    return "; ".join(["any may be missing", *(f"not {reason}" for reason in refused)])


ROWS: dict[str, Cell] = {
    "runtime": lambda runtime: runtime.name,
    "bits of weights (`attention_bits`, `ffn_bits`, `embedding_bits`)": lambda runtime: _listed(runtime.weight_bits),
    "which of them together": lambda runtime: _WIDTHS[runtime.widths],
    "bits of convolutions": lambda runtime: _listed(runtime.convolution_bits),
    "`group_size`": _groups,
    "`scale_bits`": lambda runtime: _listed(runtime.scale_bits),
    "zero points (`symmetric = false`)": lambda runtime: _yes(runtime.zero_points),
    "`activation_bits`": _activations,
    "static ranges": lambda runtime: _yes(runtime.static_ranges),
    "attention heads": lambda runtime: _SHAPES[runtime.heads],
    "FFN channels": lambda runtime: _SHAPES[runtime.ffn_channels],
    "layers": _layers,
    "low-rank layers": lambda runtime: _yes(runtime.ranks),
    "shorter vocabulary": lambda runtime: _yes(runtime.vocabularies),
    "`frequent_tokens`": lambda runtime: _yes(runtime.frequent_tokens),
    "encoder window": lambda runtime: _WINDOWS[runtime.window],
}


def table() -> str:
    """Markdown: a column for each target, a row for each technique."""
    lines = [f"| | {' | '.join(f'`{target}`' for target in RUNTIMES)} |", "|---" * (len(RUNTIMES) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(cell(runtime) for runtime in RUNTIMES.values())} |" for name, cell in ROWS.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
