"""Hypothesis strategies that several packages' tests draw from; `from tests.strategies import ...`."""

from collections.abc import Sequence
from typing import get_args

from hypothesis import strategies as st

from compression.recipe.dimensions import VOCABULARIES, Dimensions
from compression.recipe.recipe import (
    ACTIVATION_BITS,
    SCALE_BITS,
    WEIGHT_BITS,
    ActivationRanges,
    DecoderLayer,
    EncoderLayer,
    ImportanceMeasure,
    RangeEstimator,
    Recipe,
    Rounding,
)


def small_dimensions(*, layers: int = 2, state: int = 128, heads: int = 2, vocabulary: int = 500) -> Dimensions:
    """A Whisper small enough to build and trace in a test, with Whisper's own window and heads of `state / heads`."""
    return Dimensions(
        n_mels=80,
        n_audio_ctx=1500,
        n_audio_state=state,
        n_audio_head=heads,
        n_audio_layer=layers,
        n_vocab=vocabulary,
        n_text_ctx=64,
        n_text_state=state,
        n_text_head=heads,
        n_text_layer=layers,
    )


def stacks(layers: st.SearchStrategy, count: int) -> st.SearchStrategy:
    """Tuples of layers or None, with at least one layer."""
    return st.tuples(*[st.none() | layers] * count).filter(any)


def recipes(
    dimensions: Dimensions, *, bits: Sequence[int] = WEIGHT_BITS, coarse: bool = False
) -> st.SearchStrategy[Recipe]:
    """Valid recipes for a model, not canonical; `coarse` draws from few values, so that many can be compared."""
    weight_bits = st.sampled_from(bits)
    is_whispers = dimensions.n_vocab in VOCABULARIES
    vocabularies = st.sampled_from((0, 1024, 30000)) if is_whispers else st.just(0)

    def channels(most: int) -> st.SearchStrategy[int]:
        return st.sampled_from((most // 2, most)) if coarse else st.integers(1, most)

    def ranks(width: int) -> st.SearchStrategy[int]:
        """As many are too high to save anything as not."""
        return st.sampled_from((0, 1, width // 2)) if coarse else st.just(0) | st.integers(0, 2 * width)

    encoder = st.builds(
        EncoderLayer,
        heads=st.integers(1, dimensions.n_audio_head),
        ffn_channels=channels(dimensions.audio_ffn),
        attention_bits=weight_bits,
        ffn_bits=weight_bits,
        ffn_rank=ranks(dimensions.n_audio_state),
    )
    decoder = st.builds(
        DecoderLayer,
        heads=st.integers(1, dimensions.n_text_head),
        cross_heads=st.integers(1, dimensions.n_text_head),
        ffn_channels=channels(dimensions.text_ffn),
        attention_bits=weight_bits,
        ffn_bits=weight_bits,
        ffn_rank=ranks(dimensions.n_text_state),
    )
    return st.builds(
        Recipe,
        encoder=stacks(encoder, dimensions.n_audio_layer),
        decoder=stacks(decoder, dimensions.n_text_layer),
        embedding_bits=weight_bits,
        convolution_bits=weight_bits,
        activation_bits=st.sampled_from(ACTIVATION_BITS),
        activation_ranges=st.sampled_from(get_args(ActivationRanges)),
        group_size=st.sampled_from((0, 16) if coarse else (0, 16, 32, 64, 100, 128)),
        symmetric=st.booleans(),
        scale_bits=st.sampled_from(SCALE_BITS),
        window_s=st.sampled_from((15.0, 30.0)) if coarse else st.floats(1, 30) | st.integers(1, 30),
        importance=st.just("combined") if coarse else st.sampled_from(get_args(ImportanceMeasure)),
        refit=st.just(False) if coarse else st.booleans(),
        rounding=st.just("nearest") if coarse else st.sampled_from(get_args(Rounding)),
        range_estimator=st.just("minmax") if coarse else st.sampled_from(get_args(RangeEstimator)),
        smoothing=st.just(0.0) if coarse else st.sampled_from((0.0, 0.5)),
        vocabulary=vocabularies,
        frequent_tokens=st.sampled_from((0, 700, 1500)) if is_whispers else st.just(0),
        vocabulary_language=st.sampled_from(("de", "en+de")),
    )
