"""The one list of operations behind every cost; formulas and conventions are in docs/costs.md.

FLOPs, bytes, memory, latency and energy are sums (or maxima) over the same items, so they cannot disagree.
The list is made of parts, one per sub-layer, which are built once and shared between recipes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from common.errors import InputError
from compression.recipe.dimensions import Dimensions
from compression.recipe.embedding import FREQUENT_BITS, EmbeddingRows
from compression.recipe.kernels import Precision
from compression.recipe.recipe import Recipe
from devices.operation import Operation
from evaluators.costs.items import InventoryItem, ItemBuilder, Stage, UtteranceShape, product
from runtime.window import WINDOW_LIMIT_S, encoder_frames

__all__ = ["InventoryItem", "Part", "Stage", "operations", "parts", "prompt_length"]

CACHED_PARTS = 2**15


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Part:
    """The items of one sub-layer, their names without its place.

    Compared by identity, which makes it a cheap key for sums over it.
    """

    stage: Stage
    items: tuple[InventoryItem, ...]


def operations(
    dimensions: Dimensions, recipe: Recipe, *, audio_s: float = 10.0, tokens: int = 30
) -> tuple[InventoryItem, ...]:
    """Every operation of one utterance of `audio_s` seconds and `tokens` generated tokens, batch 1.

    Raises InputError when the recipe does not fit the dimensions or the utterance does not fit Whisper.
    """
    placed = parts(dimensions, recipe, audio_s=audio_s, tokens=tokens)
    return tuple(replace(item, name=f"{place}.{item.name}") for place, part in placed for item in part.items)


def parts(
    dimensions: Dimensions, recipe: Recipe, *, audio_s: float = 10.0, tokens: int = 30
) -> Iterator[tuple[str, Part]]:
    """The inventory by sub-layer with its place (`encoder.0`); equal sub-layers are the same object.

    Raises as `operations` does.
    """
    recipe.check(dimensions)
    setting = _interned(_setting(dimensions, recipe, audio_s, tokens))
    layers = sum(layer is not None for layer in recipe.decoder)
    yield "encoder", _session(setting, "encoder", 1 + 2 * layers)
    yield "decoder", _session(setting, "decoder", 2 + 6 * layers)
    yield "encoder", _convolutions(setting, recipe.convolution_bits)
    for index, encoder in enumerate(recipe.encoder):
        if encoder:
            place = f"encoder.{index}"
            rank = encoder.factor_rank(dimensions.n_audio_state)
            yield place, _encoder_attention(setting, encoder.heads, encoder.attention_bits)
            yield place, _ffn(setting, "encoder", encoder.ffn_channels, rank, encoder.ffn_bits)
    for index, decoder in enumerate(recipe.decoder):
        if decoder:
            place = f"decoder.{index}"
            rank = decoder.factor_rank(dimensions.n_text_state)
            yield place, _self_attention(setting, decoder.heads, decoder.attention_bits)
            yield place, _cross_projection(setting, decoder.cross_heads, decoder.attention_bits)
            yield place, _cross_attention(setting, decoder.cross_heads, decoder.attention_bits)
            yield place, _ffn(setting, "decoder", decoder.ffn_channels, rank, decoder.ffn_bits)
    yield "decoder", _vocabulary(setting, recipe.embedding_rows(dimensions))


def prompt_length(dimensions: Dimensions) -> int:
    """Tokens fed before the first word: start and no-timestamps, and language and task when multilingual."""
    return 4 if dimensions.is_multilingual else 2


def _setting(dimensions: Dimensions, recipe: Recipe, audio_s: float, tokens: int) -> UtteranceShape:
    if not 0 < audio_s <= WINDOW_LIMIT_S:
        raise InputError(
            f"reference utterance of {audio_s:g} s: must be longer than 0 s and at most {WINDOW_LIMIT_S:g} s"
        )
    prompt = prompt_length(dimensions)
    if not 1 <= tokens <= dimensions.n_text_ctx - prompt:
        raise InputError(f"reference utterance of {tokens} tokens: must be 1 to {dimensions.n_text_ctx - prompt}")
    return UtteranceShape(
        dimensions=dimensions,
        frames=encoder_frames(recipe.window_s, audio_s),
        steps=prompt + tokens,
        group_size=recipe.group_size,
        scale_bits=recipe.scale_bits,
        symmetric=recipe.symmetric,
        activation_bits=recipe.activation_bits,
        activation_ranges=recipe.activation_ranges,
        float_bits=recipe.vector_bits,
    )


@lru_cache(maxsize=1024)
def _interned(setting: UtteranceShape) -> UtteranceShape:
    """The first equal setting: the caches below then compare by identity, which is faster."""
    return setting


@lru_cache(maxsize=CACHED_PARTS)
def _session(setting: UtteranceShape, stage: Stage, values: int) -> Part:
    """Running a graph that takes and gives so many values: caches go in and out at every step."""
    count = 1 if stage == "encoder" else setting.steps
    build = ItemBuilder(setting=setting, stage=stage, rows=1, count=count)
    return Part(stage=stage, items=(build.item("session", Operation(kind="session", n=values)),))


@lru_cache(maxsize=CACHED_PARTS)
def _convolutions(setting: UtteranceShape, bits: int) -> Part:
    """The encoder outside its layers. Sinusoidal positions are computed when it is loaded; adding them is free."""
    dimensions = setting.dimensions
    first = ItemBuilder(setting=setting, stage="encoder", rows=setting.frames, count=1, bits=bits)
    second = replace(first, rows=setting.positions)
    items = (
        first.convolution("conv1", dimensions.n_mels, input_rows=setting.frames),
        first.gelu("conv1_gelu", dimensions.n_audio_state),
        second.convolution(
            "conv2", dimensions.n_audio_state, input_rows=setting.frames, positions=dimensions.n_audio_ctx
        ),
        second.gelu("conv2_gelu", dimensions.n_audio_state),
        second.layer_norm("ln_post"),
    )
    return Part(stage="encoder", items=items)


@lru_cache(maxsize=CACHED_PARTS)
def _encoder_attention(setting: UtteranceShape, heads: int, bits: int) -> Part:
    rows = setting.positions
    build = ItemBuilder(setting=setting, stage="encoder", group="attention", rows=rows, count=1, bits=bits)
    state, inner = build.state, heads * build.head_width
    items = (
        build.layer_norm("ln"),
        *build.linear("query_key_value", state, 3 * inner, alive=rows * state, biases=2 * inner),
        build.attention("attention", heads, rows),
        *build.linear("out", inner, state, alive=rows * state),
    )
    return Part(stage="encoder", items=items)


@lru_cache(maxsize=CACHED_PARTS)
def _ffn(setting: UtteranceShape, stage: Stage, channels: int, rank: int, bits: int) -> Part:
    rows, count = (setting.positions, 1) if stage == "encoder" else (1, setting.steps)
    build = ItemBuilder(setting=setting, stage=stage, group="ffn", rows=rows, count=count, bits=bits)
    residual = rows * build.state
    items = (
        build.layer_norm("ln"),
        *build.factors("0", build.state, channels, rank, alive=residual),
        build.gelu("gelu", channels, alive=residual),
        *build.factors("2", channels, build.state, rank, alive=residual),
    )
    return Part(stage=stage, items=items)


def _mean_lengths(steps: int) -> tuple[tuple[int, int], ...]:
    """(keys, executions) for causal attention over steps that see 1, 2, ..., `steps` keys.

    The mean length (steps + 1) / 2, half of the executions at either neighbour when it is no integer: the sum
    over the steps is exact.
    """
    if steps % 2:
        return (((steps + 1) // 2, steps),)
    return ((steps // 2, steps // 2), (steps // 2 + 1, steps // 2))


@lru_cache(maxsize=CACHED_PARTS)
def _self_attention(setting: UtteranceShape, heads: int, bits: int) -> Part:
    build = ItemBuilder(setting=setting, stage="decoder", group="attention", rows=1, count=setting.steps, bits=bits)
    state, inner = build.state, heads * build.head_width
    attention = (
        replace(build, count=count).attention("cached_attention", heads, length, cache_values=2 * count * inner)
        for length, count in _mean_lengths(setting.steps)
    )
    items = (
        build.layer_norm("ln"),
        *build.linear("query_key_value", state, 3 * inner, alive=state, biases=2 * inner),
        *attention,
        *build.linear("out", inner, state, alive=state),
    )
    return Part(stage="decoder", items=items)


@lru_cache(maxsize=CACHED_PARTS)
def _cross_projection(setting: UtteranceShape, heads: int, bits: int) -> Part:
    """Keys and values of cross-attention, projected once per window by the encoder's graph."""
    rows = setting.positions
    build = ItemBuilder(setting=setting, stage="encoder", group="cross_attention", rows=rows, count=1, bits=bits)
    inner = heads * build.head_width
    split = build.item(
        "split_heads",
        Operation(kind="split_heads", m=rows, n=2 * inner),
        activations=rows * (build.state + 2 * inner),
        cache_values=2 * rows * inner,
    )
    projection = build.linear("key_value", build.state, 2 * inner, biases=inner)
    return Part(stage="encoder", items=(*projection, split))


@lru_cache(maxsize=CACHED_PARTS)
def _cross_attention(setting: UtteranceShape, heads: int, bits: int) -> Part:
    build = ItemBuilder(
        setting=setting,
        stage="decoder",
        group="cross_attention",
        rows=1,
        count=setting.steps,
        bits=bits,
    )
    state, inner = build.state, heads * build.head_width
    items = (
        build.layer_norm("ln"),
        *build.linear("query", state, inner, alive=state),
        build.attention("cross_attention", heads, setting.positions),
        *build.linear("out", inner, state, alive=state),
    )
    return Part(stage="decoder", items=items)


@lru_cache(maxsize=CACHED_PARTS)
def _vocabulary(setting: UtteranceShape, rows: EmbeddingRows) -> Part:
    """The decoder outside its layers. Look-up and logits share the table, which the look-up holds.

    Where frequent tokens have more bits than the rest, that is two tables: every step reads and multiplies by both.
    """
    dimensions = setting.dimensions
    build = ItemBuilder(setting=setting, stage="decoder", rows=1, count=setting.steps, bits=rows.bits)
    positions = build.floats(dimensions.n_text_ctx * build.state)
    finer = replace(build, bits=FREQUENT_BITS, group="frequent")
    joined = rows.rest + rows.finer if rows.finer else 0
    items = (
        _look_up(build, rows.rest),
        *((_look_up(finer, rows.finer),) if rows.finer else ()),
        replace(build, bits=setting.float_bits).embedding("positional_embedding", positions),
        build.layer_norm("ln"),
        *((_logits(finer, rows.finer),) if rows.finer else ()),
        _logits(build, rows.rest, alive=rows.finer + joined),
    )
    return Part(stage="decoder", items=items)


def _look_up(build: ItemBuilder, rows: int) -> InventoryItem:
    """Of a row of a table of tokens."""
    return build.embedding("token_embedding", build.matrix(rows, build.state))


def _logits(build: ItemBuilder, rows: int, *, alive: int = 0) -> InventoryItem:
    """Of the tokens of a table. `alive`: those of another one, and all of them in one piece."""
    precision = Precision(weight_bits=build.bits, group_size=build.group_size)
    operation = product(1, build.state, rows, precision)
    return build.item("logits", operation, activations=build.state + rows + alive)
