"""Folders for transformers: against torch, read back, and what is refused."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.export.huggingface import export
from compression.recipe.recipe import Recipe
from compression.recipe.runtimes import unsupported_reason
from compression.whisper.load import LoadedModel, load_model
from compression.whisper.network import encode
from tests.compression.export.models import COMPACT, changed, check_refused, compact_calibration, compact_model, without

ORIGINAL = Recipe.original(COMPACT)
UNEVEN_FFN = changed(ORIGINAL, encoder={"ffn_channels": 200}, decoder={"ffn_channels": 96})
RECIPES = {
    "original": ORIGINAL,
    "4 bits": changed(ORIGINAL, bits=4, group_size=32),
    "frequent tokens": changed(ORIGINAL, bits=4, group_size=32, frequent_tokens=512),
    "layers dropped": without(without(ORIGINAL, "decoder", 1), "encoder", 0),
    "channels pruned": changed(UNEVEN_FFN, bits=8),
}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return compact_model()


@pytest.fixture(scope="module")
def calibration(model: LoadedModel) -> Calibration:
    return compact_calibration(model)


@pytest.mark.parametrize("name", RECIPES)
@torch.inference_mode()
def test_transformers_computes_what_torch_computes(name, model, calibration, tmp_path) -> None:
    compressed = compress(model, RECIPES[name], calibration)
    export(model, RECIPES[name], compressed, tmp_path)
    theirs = WhisperForConditionalGeneration.from_pretrained(tmp_path).float().eval()
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(2))
    tokens = torch.tensor([[50257, 50362, 11, 290, 257]])
    expected = compressed.network.logits(tokens, encode(compressed.network, mel))
    logits = theirs(input_features=mel, decoder_input_ids=tokens).logits
    assert torch.allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["original", "4 bits"])
def test_what_is_written_is_read_back_exactly(name, model, calibration, tmp_path) -> None:
    compressed = compress(model, RECIPES[name], calibration)
    export(model, RECIPES[name], compressed, tmp_path)
    again = load_model(str(tmp_path))
    for parameter, value in compressed.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[parameter], value), parameter
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == f"float{again.stored_bits}"


FIRST, *OTHERS = ORIGINAL.encoder
REFUSED = {
    "encoder.1.ffn_channels = 256 beside encoder.0.ffn_channels = 64: transformers has one number": replace(
        ORIGINAL, encoder=(replace(FIRST, ffn_channels=64), *OTHERS)
    ),
    "vocabulary = 8192: transformers knows only Whisper's own": changed(
        ORIGINAL, vocabulary=8192, vocabulary_language="en"
    ),
    "window_s = 15: transformers always encodes 30 s": changed(ORIGINAL, window_s=15.0),
    "activation_bits = 8: transformers has activations of 32 bits": changed(ORIGINAL, bits=8, activation_bits=8),
    "decoder.0.ffn_rank = 32: transformers has one matrix": changed(ORIGINAL, decoder={"ffn_rank": 32}),
    "decoder.0.heads = 3 of 4: transformers derives it from the model's width": changed(ORIGINAL, decoder={"heads": 3}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals_name_the_gene(reason: str) -> None:
    check_refused("huggingface", REFUSED[reason], reason)


def test_every_recipe_of_these_tests_is_executed() -> None:
    assert [unsupported_reason("huggingface", recipe, COMPACT) for recipe in RECIPES.values()] == [None] * len(RECIPES)
