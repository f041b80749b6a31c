"""OpenAI's dimensions against the parameter counts of its model card, and against a checkpoint."""

import re

import pytest

from common.errors import UnknownNameError
from compression.recipe.dimensions import Dimensions, published_dimensions, published_models
from compression.recipe.recipe import Recipe
from compression.whisper.load import LoadedModel
from evaluators.costs.inventory import operations

MILLIONS = {
    **dict.fromkeys(("tiny", "tiny.en"), 39),
    **dict.fromkeys(("base", "base.en"), 74),
    **dict.fromkeys(("small", "small.en"), 244),
    **dict.fromkeys(("medium", "medium.en"), 769),
    **dict.fromkeys(("large", "large-v1", "large-v2", "large-v3"), 1550),
    **dict.fromkeys(("turbo", "large-v3-turbo"), 809),
}
"""openai/whisper, model-card.md. They are a little above what the checkpoints hold (37.8 for tiny)."""


def parameters(dimensions: Dimensions) -> int:
    return sum(item.parameters for item in operations(dimensions, Recipe.original(dimensions)))


@pytest.mark.parametrize("name", published_models())
def test_parameters_are_those_of_the_model_card(name: str) -> None:
    """Through the inventory, plus the encoder's positions, which are computed and so not in it."""
    dimensions = published_dimensions(name)
    positions = dimensions.n_audio_ctx * dimensions.n_audio_state
    count = (parameters(dimensions) + positions) / 1e6
    assert count == pytest.approx(MILLIONS[name], rel=0.035)
    assert count <= MILLIONS[name] + 0.5


@pytest.mark.parametrize("name", published_models())
def test_parameters_by_hand(name: str) -> None:
    """Radford et al. 2022: keys have no bias, the decoder's embedding is shared with the logits."""
    d = published_dimensions(name)
    width, attention = d.n_audio_state, 4 * d.n_audio_state**2 + 3 * d.n_audio_state
    feed_forward, norm = 8 * width**2 + 5 * width, 2 * width
    convolutions = 3 * d.n_mels * width + 3 * width**2 + 2 * width
    encoder = convolutions + d.n_audio_layer * (attention + feed_forward + 2 * norm) + norm
    decoder = (d.n_vocab + 448) * width + d.n_text_layer * (2 * attention + feed_forward + 3 * norm) + norm
    assert d.n_text_state == width
    assert parameters(d) == encoder + decoder


@pytest.mark.parametrize("name", published_models())
def test_what_all_whispers_share(name: str) -> None:
    d = published_dimensions(name)
    assert (d.n_audio_ctx, d.n_text_ctx, d.audio_head_width, d.text_head_width) == (1500, 448, 64, 64)
    assert d.is_multilingual == (not name.endswith(".en"))
    is_third_large = name in ("large", "large-v3", "turbo", "large-v3-turbo")
    assert d.n_mels == (128 if is_third_large else 80)
    assert d.n_vocab == 51864 + d.is_multilingual + is_third_large


def test_those_of_the_checkpoint(tiny_en: LoadedModel) -> None:
    assert published_dimensions("tiny.en") == tiny_en.dimensions


def test_names_are_smallest_first() -> None:
    counts = [parameters(published_dimensions(name)) for name in published_models() if "turbo" not in name]
    first_larges = counts[: -len(("large", "large-v1", "large-v2", "large-v3"))]
    assert first_larges == sorted(first_larges)
    assert max(first_larges) < min(counts[len(first_larges) :])


@pytest.mark.parametrize("name", ["huge", "Tiny", "", "large.en"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"unknown model '{re.escape(name)}'.* Known: base, base.en, large, "):
        published_dimensions(name)
