"""A pruned Whisper with random weights that says many different tokens, and some sample speech."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from whisper.model import Whisper

from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import DecoderLayer, EncoderLayer, Recipe
from evaluators.speech.speech_set import SpeechSet, load_speech_set
from tests.networks import network_of_shape
from tests.strategies import small_dimensions

ENGLISH_VOCABULARY, MULTILINGUAL_VOCABULARY = 51864, 51865


def pruned_recipe(dimensions: Dimensions) -> Recipe:
    """One block gone from a decoder of three, other numbers of heads and channels everywhere."""
    encoder = EncoderLayer(heads=1, ffn_channels=100, attention_bits=16, ffn_bits=16)
    decoder = DecoderLayer(heads=1, cross_heads=2, ffn_channels=90, attention_bits=16, ffn_bits=16)
    layers = (decoder, None, replace(decoder, heads=2, cross_heads=1))
    return replace(Recipe.original(dimensions), encoder=(encoder, None, None), decoder=layers)


def talkative(network: Whisper, seed: int) -> Whisper:
    """Random weights of a size that makes the next token depend on all that came before, not only on the last."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1 and "embedding" not in name:
                parameter.copy_(3 * torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
        embedding = network.decoder.token_embedding
        embedding.weight.copy_(torch.randn(embedding.weight.shape, generator=generator) / 2)
        positions = network.decoder.positional_embedding
        positions.copy_(torch.randn(positions.shape, generator=generator) / 2)
    return network


def pruned_network(vocabulary: int, seed: int = 0) -> Whisper:
    dimensions = small_dimensions(layers=3, state=64, heads=2, vocabulary=vocabulary)
    return talkative(network_of_shape(dimensions, pruned_recipe(dimensions)), seed)


@pytest.fixture(scope="session")
def pruned() -> Whisper:
    return pruned_network(ENGLISH_VOCABULARY)


@pytest.fixture(scope="session")
def sample() -> SpeechSet:
    """Five utterances of the built-in search set."""
    speech = load_speech_set(Path("sample-search"))
    return replace(speech, utterances=speech.utterances[:5])


def linears(network: Whisper) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
