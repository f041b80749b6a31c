"""A recipe in one line; what its parts mean says `Recipe.summary`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compression.recipe.recipe import Recipe


def summary_of(recipe: Recipe) -> str:
    """See `Recipe.summary`."""
    encoder = [layer for layer in recipe.encoder if layer]
    decoder = [layer for layer in recipe.decoder if layer]
    heads = f"{sum(e.heads for e in decoder)}+{sum(e.cross_heads for e in decoder)}"
    stacks = (
        f"enc {_stack_summary(encoder, str(sum(e.heads for e in encoder)))}",
        f"dec {_stack_summary(decoder, heads)}",
    )
    group = f" g{recipe.group_size or 'channel'}{'' if recipe.symmetric else 'z'}" if recipe.is_quantised else ""
    scales = f" s{recipe.scale_bits}" if recipe.scale_bits < 16 else ""
    static = "s" if recipe.activation_ranges == "static" else ""
    choices = [
        f"smooth{recipe.smoothing:g}" if recipe.smoothing else "",
        recipe.range_estimator if recipe.range_estimator != "minmax" else "",
        recipe.rounding if recipe.rounding != "nearest" else "",
    ]
    activations = f"a{recipe.activation_bits}{static}"
    vocabulary = f" {recipe.vocabulary}{recipe.vocabulary_language}" if recipe.vocabulary else ""
    frequent = f" f{recipe.frequent_tokens}" if recipe.frequent_tokens else ""
    bits = f"emb{recipe.embedding_bits}{vocabulary}{frequent} conv{recipe.convolution_bits}"
    model = " ".join([bits, f"{activations}{group}{scales}", *filter(None, choices), f"{recipe.window_s:g}s"])
    recovered = (f"recovered by {recipe.recovery.method}",) if recipe.recovery else ()
    return " | ".join((*stacks, model, *recovered))


def _stack_summary(layers: list[Any], heads: str) -> str:
    channels = sum(layer.ffn_channels for layer in layers)
    attention, ffn, ranks = (
        ",".join(str(value) for value in sorted({getattr(layer, name) for layer in layers}))
        for name in ("attention_bits", "ffn_bits", "ffn_rank")
    )
    rank = f" r{ranks}" if ranks != "0" else ""
    return f"{len(layers)}L {heads}h ffn{channels}{rank} w{attention}/{ffn}"
