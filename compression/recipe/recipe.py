"""A recipe: one way to compress one Whisper, as a frozen value.

A recipe names what is kept, never which weights: importance (see `compression.calibration.calibration`) decides which
heads and channels stay. Everything that changes the resulting model is in the recipe, so that its WER is
reproducible from the recipe, the model and the calibration speech alone.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal, Self, get_args

from common.errors import naming, require
from common.files import sha256_of_text
from compression.recipe.dimensions import VOCABULARIES, Dimensions
from compression.recipe.embedding import EmbeddingRows, embedding_rows
from compression.recipe.json_form import canonical_json, made, made_layers, read_object
from compression.recipe.kernels import ActivationRanges, Precision
from compression.recipe.recovery_spec import STACKS, Recovery
from compression.recipe.summary import summary_of

WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8, 16, 32)
"""Stored bits per weight: 2 to 8 are integer grids with scales, 16 and 32 are floating point."""
SCALE_BITS = (8, 16)
ACTIVATION_BITS = (8, 16, 32)
MAX_WINDOW_S = 30.0
MIN_WINDOW_S = 1.0
MIN_VOCABULARY = 1024
"""Text tokens that a shorter vocabulary holds at least: bytes, signs and numbers always stay."""

RangeEstimator = Literal["minmax", "percentile", "mse"]
Rounding = Literal["nearest", "calibrated"]
ImportanceMeasure = Literal["combined", "iterative"]
IMPORTANCE_MEASURES: tuple[ImportanceMeasure, ...] = get_args(ImportanceMeasure)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderLayer:
    """What stays of an encoder layer: self-attention heads, FFN channels, and their weight bits.

    `ffn_rank`: of both FFN matrices, each then two factors (see `compression.techniques.low_rank`); 0: whole.
    """

    heads: int
    ffn_channels: int
    attention_bits: int
    ffn_bits: int
    ffn_rank: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            require(type(value) is int, f"{field.name} whole", value)
            if field.name.endswith("_bits"):
                require(value in WEIGHT_BITS, f"{field.name} in {WEIGHT_BITS}", value)
            else:
                least = 0 if field.name == "ffn_rank" else 1
                require(value >= least, f"{field.name} >= {least}", value)

    def factor_rank(self, width: int) -> int:
        """The rank of FFN matrices of `width` x `ffn_channels`; 0 where they stay whole.

        They also do where two factors would have as many weights or more.
        """
        return self.ffn_rank if self.ffn_rank * (width + self.ffn_channels) < width * self.ffn_channels else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderLayer(EncoderLayer):
    """What stays of a decoder layer; `heads` are those of self-attention."""

    cross_heads: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One candidate.

    `encoder`, `decoder`: one entry per layer of the original; None where the layer is dropped.
    `group_size`: weights per scale along the input of a linear layer; 0 means one scale per output channel.
    `scale_bits`: of the scales of groups: 16 are float16, 8 are codes on one float16 scale per output channel.
    `symmetric`: integer grids without zero points.
    `activation_bits`: 32 leaves activations alone; 16 and 8 quantise the input of every linear layer.
    `activation_ranges`: from each input itself (dynamic) or from calibration speech (static).
    `window_s`: shortest encoder window in seconds; longer clips get their length plus a margin, at most 30 s.
    `vocabulary`: text tokens kept, 0 for all; those stay that `vocabulary_language` needs most (see
    `compression.techniques.vocabulary`): a code of Whisper's, or several as `de+en`.
    `frequent_tokens`: so many of the first text tokens that are kept, and all special tokens, have rows of 8 bits in
    the embedding where `embedding_bits` are fewer; 0: no row has other bits than the rest.
    `importance`: the measure that decides which heads and channels stay (see `compression.calibration.calibration`);
    `iterative`: they leave one by one, and the projections behind them are refitted by least squares after each.
    `refit`: whether that is done at the end with `combined`; the mean of removed units always goes into
    the bias.
    `rounding`: of weights on integer grids, see `compression.techniques.rounding`; convolutions go to the nearest
    points.
    `range_estimator`: how calibration speech gives static ranges, see `compression.techniques.ranges`.
    `smoothing`: the share a of `compression.techniques.smoothing`, 0 where activations keep their outliers.
    `recovery`: the trained weights that take the place of the pruned ones before rounding; None: none.
    """

    encoder: tuple[EncoderLayer | None, ...]
    decoder: tuple[DecoderLayer | None, ...]
    embedding_bits: int
    convolution_bits: int
    activation_bits: int = 32
    activation_ranges: ActivationRanges = "dynamic"
    group_size: int = 0
    symmetric: bool = True
    window_s: float = MAX_WINDOW_S
    importance: ImportanceMeasure = "combined"
    refit: bool = False
    rounding: Rounding = "nearest"
    range_estimator: RangeEstimator = "minmax"
    smoothing: float = 0.0
    recovery: Recovery | None = None
    vocabulary: int = 0
    vocabulary_language: str = ""
    frequent_tokens: int = 0
    scale_bits: int = 16

    def __post_init__(self) -> None:
        bits, counts = ("embedding_bits", "convolution_bits", "activation_bits"), ("group_size", "frequent_tokens")
        for name in (*bits, *counts, "vocabulary", "scale_bits"):
            require(type(getattr(self, name)) is int, f"{name} whole", getattr(self, name))
        for name in ("symmetric", "refit"):
            require(isinstance(getattr(self, name), bool), f"{name} true or false", getattr(self, name))
        for name in ("embedding_bits", "convolution_bits"):
            require(getattr(self, name) in WEIGHT_BITS, f"{name} in {WEIGHT_BITS}", getattr(self, name))
        require(
            self.activation_bits in ACTIVATION_BITS,
            f"activation_bits in {ACTIVATION_BITS}",
            self.activation_bits,
        )
        for name, choices in (
            ("scale_bits", SCALE_BITS),
            ("activation_ranges", get_args(ActivationRanges)),
            ("importance", IMPORTANCE_MEASURES),
            ("rounding", get_args(Rounding)),
            ("range_estimator", get_args(RangeEstimator)),
        ):
            require(getattr(self, name) in choices, f"{name} in {choices}", getattr(self, name))
        for name in counts:
            require(getattr(self, name) >= 0, f"{name} >= 0", getattr(self, name))
        for name in ("window_s", "smoothing"):
            value = getattr(self, name)
            require(isinstance(value, int | float) and not isinstance(value, bool), f"{name} a number", value)
        require(0 <= self.smoothing <= 1, "0 <= smoothing <= 1", self.smoothing)
        require(
            MIN_WINDOW_S <= self.window_s <= MAX_WINDOW_S,
            f"{MIN_WINDOW_S:g} <= window_s <= {MAX_WINDOW_S:g}",
            self.window_s,
        )
        for name in ("window_s", "smoothing"):  # 15 and 15.0 are equal: so are their ids
            object.__setattr__(self, name, float(getattr(self, name)))
        self._check_vocabulary()
        for name in ("encoder", "decoder"):
            require(any(getattr(self, name)), f"at least one {name} layer kept", getattr(self, name))

    def _check_vocabulary(self) -> None:
        rule = f"vocabulary 0 or >= {MIN_VOCABULARY}"
        require(self.vocabulary == 0 or self.vocabulary >= MIN_VOCABULARY, rule, self.vocabulary)
        language = self.vocabulary_language
        require(isinstance(language, str), "vocabulary_language a text", language)
        require(bool(language) or not self.vocabulary, "vocabulary_language with a vocabulary", language)
        object.__setattr__(self, "vocabulary_language", "+".join(sorted(language.split("+"))))

    @classmethod
    def original(cls, dimensions: Dimensions, *, stored_bits: int = 16) -> Self:
        """The recipe that changes nothing; `stored_bits` is the checkpoint's precision, 16 or 32."""
        encoder = EncoderLayer(
            heads=dimensions.n_audio_head,
            ffn_channels=dimensions.audio_ffn,
            attention_bits=stored_bits,
            ffn_bits=stored_bits,
        )
        decoder = DecoderLayer(
            heads=dimensions.n_text_head,
            cross_heads=dimensions.n_text_head,
            ffn_channels=dimensions.text_ffn,
            attention_bits=stored_bits,
            ffn_bits=stored_bits,
        )
        return cls(
            encoder=(encoder,) * dimensions.n_audio_layer,
            decoder=(decoder,) * dimensions.n_text_layer,
            embedding_bits=stored_bits,
            convolution_bits=stored_bits,
        ).canonical(dimensions)

    def with_each_layer(self, **changes: Any) -> Self:
        """The recipe with these fields in every layer that it keeps."""
        return replace(
            self,
            encoder=tuple(layer and replace(layer, **changes) for layer in self.encoder),
            decoder=tuple(layer and replace(layer, **changes) for layer in self.decoder),
        )

    def layer_values(self, stack: str, *names: str) -> Iterator[tuple[str, int]]:
        """These fields of every kept layer by the names of their genes, such as (`decoder.2.heads`, 6)."""
        for index, layer in enumerate(getattr(self, stack)):
            if layer:
                yield from ((f"{stack}.{index}.{name}", getattr(layer, name)) for name in names)

    def matrix_bits(self) -> Iterator[tuple[str, int]]:
        """The bits of every matrix but the convolutions', by gene."""
        for stack in STACKS:
            yield from self.layer_values(stack, "attention_bits", "ffn_bits")
        yield "embedding_bits", self.embedding_bits

    @property
    def weight_bits(self) -> tuple[int, ...]:
        """Every weight precision in the recipe: kept layers first, then embedding and convolutions."""
        return (*(bits for _, bits in self.matrix_bits()), self.convolution_bits)

    @property
    def vector_bits(self) -> int:
        """Bits of biases, normalisations and positions: float16 unless every weight is float32."""
        return 32 if min(self.weight_bits) == 32 else 16

    def precision(self, weight_bits: int) -> Precision:
        """Of the linear layers whose weights have so many bits."""
        return Precision(
            weight_bits=weight_bits,
            group_size=self.group_size,
            activation_bits=self.activation_bits,
            activation_ranges=self.activation_ranges,
        )

    @property
    def is_quantised(self) -> bool:
        return any(bits <= 8 for bits in self.weight_bits)

    @property
    def has_groups(self) -> bool:
        """Whether the group size has an effect: convolutions have one scale per channel whatever it is."""
        *grouped, _convolutions = self.weight_bits
        return any(bits <= 8 for bits in grouped)

    @property
    def has_several_scales(self) -> bool:
        """Whether rows have several scales."""
        return self.has_groups and self.group_size > 0

    @property
    def _grid_defaults(self) -> dict[str, Any]:
        """Of what decides how weights are rounded: the fields without an effect, at their defaults."""
        no_groups = {} if self.has_groups else {"group_size": 0, "rounding": "nearest"}
        no_scales = {} if self.has_several_scales else {"scale_bits": 16}
        return no_groups | no_scales | ({} if self.is_quantised else {"symmetric": True})

    def is_pruned(self, dimensions: Dimensions) -> bool:
        """Whether heads or channels of a kept layer are removed."""
        encoder = any(
            e.heads < dimensions.n_audio_head or e.ffn_channels < dimensions.audio_ffn for e in self.encoder if e
        )
        decoder = any(
            min(d.heads, d.cross_heads) < dimensions.n_text_head or d.ffn_channels < dimensions.text_ffn
            for d in self.decoder
            if d
        )
        return encoder or decoder

    @property
    def is_refitted(self) -> bool:
        """Whether what stays behind removed units takes over what it can predict of them."""
        return self.refit or self.importance == "iterative"

    def needs_calibration(self, dimensions: Dimensions) -> bool:
        """Whether speech decides what the recipe does to a model."""
        by_activations = self.rounding != "nearest" or self.activation_ranges == "static" or self.smoothing > 0
        return self.is_pruned(dimensions) or bool(self.ranks(dimensions)) or by_activations or self.vocabulary > 0

    def ranks(self, dimensions: Dimensions) -> dict[str, int]:
        """The rank of each layer whose FFN matrices become factors, by gene: `encoder.0.ffn_rank`."""
        return {
            f"{stack}.{index}.ffn_rank": rank
            for stack, width in _widths(dimensions)
            for index, layer in enumerate(getattr(self, stack))
            if layer and (rank := layer.factor_rank(width))
        }

    def embedding_rows(self, dimensions: Dimensions) -> EmbeddingRows:
        """How many rows of the token embedding have how many bits."""
        return embedding_rows(self, dimensions)

    def check(self, dimensions: Dimensions) -> None:
        """Raise InputError unless the recipe fits a model of these dimensions."""
        most = {"heads": dimensions.n_audio_head, "ffn_channels": dimensions.audio_ffn}
        _check_layers("encoder", self.encoder, depth=dimensions.n_audio_layer, most=most)
        heads = dimensions.n_text_head
        most = {"heads": heads, "cross_heads": heads, "ffn_channels": dimensions.text_ffn}
        _check_layers("decoder", self.decoder, depth=dimensions.n_text_layer, most=most)
        widest = max(dimensions.audio_ffn, dimensions.text_ffn)
        if self.has_groups:
            require(self.group_size <= widest, f"group_size <= {widest}, the most inputs of a layer,", self.group_size)
        for name in ("vocabulary", "frequent_tokens"):
            if tokens := getattr(self, name):
                rule = f"{name} < {dimensions.text_tokens}, of one of Whisper's vocabularies"
                require(dimensions.n_vocab in VOCABULARIES and tokens < dimensions.text_tokens, rule, tokens)

    def canonical(self, dimensions: Dimensions) -> Self:
        """The same compression with every field that has no effect at its default.

        Two recipes that make the same model are then equal and share one id.
        """
        rows = self.embedding_rows(dimensions)
        changes: dict[str, Any] = {"embedding_bits": rows.bits, "frequent_tokens": rows.frequent, **self._grid_defaults}
        if not self.is_pruned(dimensions):
            changes |= {"importance": "combined", "refit": False}
        if self.importance == "iterative":
            changes["refit"] = False
        if self.activation_bits == 32:
            changes |= {"activation_ranges": "dynamic", "smoothing": 0.0}
        if changes.get("activation_ranges", self.activation_ranges) == "dynamic":
            changes["range_estimator"] = "minmax"
        if self.recovery and changes.get("rounding", self.rounding) == "nearest":
            changes["recovery"] = replace(self.recovery, nearest=())
        if not self.vocabulary:
            changes["vocabulary_language"] = ""
        for stack, width in _widths(dimensions):
            changes[stack] = tuple(layer and _with_useful_rank(layer, width) for layer in getattr(self, stack))
        return replace(self, **changes)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, a format version.

        A field that is younger than the format is left out at its default, so recipes keep the ids that they had.
        """
        return canonical_json(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises InputError when the text is no recipe of this format version, naming the layer and the field."""
        values = read_object(text)
        for stack, layer in (("encoder", EncoderLayer), ("decoder", DecoderLayer)):
            if stack in values:
                values[stack] = made_layers(layer, values[stack], stack)
        if values.get("recovery") is not None:
            with naming("recovery"):
                values["recovery"] = made(Recovery, values["recovery"])
        return made(cls, values)

    @property
    def id(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return _id(self)

    @property
    def encoder_key(self) -> str:
        """Identifies all that decides the encoder's output: recipes that share it share their encoder.

        Smoothing divides it by what the decoder's weights decide; the bits of all weights decide those of the vectors.
        """
        values = asdict(self) | {"vector_bits": self.vector_bits}
        decoder = () if self.smoothing else ("decoder",)
        for name in (*decoder, "embedding_bits", "frequent_tokens", "vocabulary", "vocabulary_language"):
            del values[name]
        return sha256_of_text(json.dumps(values, sort_keys=True))

    def summary(self) -> str:
        """One line for people: `enc 4L 22h ffn5120 w8/4 | dec 4L 24+20h ffn6144 w8/8 | emb8 conv8 a32 g32z 15s`.

        Layers, heads (self + cross), FFN channels, bits of attention / FFN; z marks grids with zero points, s8 scales
        of 8 bits, s after activation bits static ranges. Ranks follow the channels, 0 where only some layers have one:
        `ffn5120 r0,192`; a shorter vocabulary the embedding, and so do frequent tokens of 8 bits: `emb4 8192en f1024`.
        What is not rounded to the nearest point, smoothed or given another range than all values is named.
        """
        return summary_of(self)


def _widths(dimensions: Dimensions) -> tuple[tuple[str, int], ...]:
    return (("encoder", dimensions.n_audio_state), ("decoder", dimensions.n_text_state))


def _with_useful_rank(layer: EncoderLayer, width: int) -> EncoderLayer:
    rank = layer.factor_rank(width)
    return layer if rank == layer.ffn_rank else replace(layer, ffn_rank=rank)


def _check_layers(stack: str, layers: tuple[EncoderLayer | None, ...], *, depth: int, most: Mapping[str, int]) -> None:
    """`depth`: layers of the model. `most`: what each of them has, by field."""
    require(len(layers) == depth, f"{depth} {stack} layers", len(layers))
    for index, layer in enumerate(layers):
        if layer:
            for name, has in most.items():
                require(getattr(layer, name) <= has, f"{stack}.{index}: {name} <= {has}", getattr(layer, name))


@lru_cache(maxsize=2**14)
def _id(recipe: Recipe) -> str:
    """Worked out once for each recipe of a run, whose records are all found by it."""
    return sha256_of_text(recipe.to_json())[:12]
