"""CTranslate2 models against torch, and against the reader of the uncompressed ones."""

import json
from dataclasses import replace
from pathlib import Path

import ctranslate2
import numpy as np
import pytest
import torch
from whisper.tokenizer import get_tokenizer

from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.export.ctranslate2 import export
from compression.recipe.recipe import Recipe
from compression.recipe.runtimes import unsupported_reason
from compression.whisper.ctranslate2_format import _read_variables
from compression.whisper.load import LoadedModel, load_model
from compression.whisper.network import encode
from tests.compression.export.models import COMPACT, changed, check_refused, compact_calibration, compact_model, without

ORIGINAL = Recipe.original(COMPACT)
EIGHT = changed(ORIGINAL, bits=8, convolution_bits=8)
UNEVEN_FFN = changed(ORIGINAL, encoder={"ffn_channels": 200}, decoder={"ffn_channels": 96})
FEWER_HEADS = changed(ORIGINAL, encoder={"heads": 3}, decoder={"heads": 2, "cross_heads": 2})
RECIPES = {
    "original": ORIGINAL,
    "32 bits": changed(ORIGINAL, bits=32, convolution_bits=32),
    "8 bits": EIGHT,
    "8 bits, 16 in convolutions": changed(ORIGINAL, bits=8),
    "layers dropped": without(without(ORIGINAL, "decoder", 1), "encoder", 0),
    "channels pruned": changed(UNEVEN_FFN, bits=8),
    "heads pruned": FEWER_HEADS,
    "all of it": without(changed(FEWER_HEADS, bits=8, encoder={"ffn_channels": 40}), "decoder", 0),
}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return compact_model()


@pytest.fixture(scope="module")
def calibration(model: LoadedModel) -> Calibration:
    return compact_calibration(model)


def run(folder: Path) -> ctranslate2.models.Whisper:
    return ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32", intra_threads=1)


def mel() -> torch.Tensor:
    return torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(2))


def heard(model: ctranslate2.models.Whisper) -> torch.Tensor:
    return torch.from_numpy(np.array(model.encode(ctranslate2.StorageView.from_array(mel().numpy()), to_cpu=True)))


def said(model: ctranslate2.models.Whisper, prompt: list[int], length: int) -> tuple[list[int], list[torch.Tensor]]:
    """Tokens after the prompt, and the logits that each was chosen by."""
    features = ctranslate2.StorageView.from_array(mel().numpy())
    (result,) = model.generate(
        features, [prompt], beam_size=1, max_length=2 * length, suppress_tokens=None, return_logits_vocab=True
    )
    return result.sequences_ids[0], [torch.from_numpy(np.array(step)) for step in result.logits[0]]


@pytest.mark.parametrize("name", RECIPES)
def test_ctranslate2_computes_what_torch_computes(
    name: str, model: LoadedModel, calibration: Calibration, tmp_path: Path
) -> None:
    compressed = compress(model, RECIPES[name], calibration)
    network = compressed.network
    export(model, RECIPES[name], compressed, tmp_path)
    theirs = run(tmp_path)
    tokenizer = get_tokenizer(False)
    prompt = [tokenizer.sot, tokenizer.no_timestamps]
    tokens, logits = said(theirs, prompt, length=6)
    with torch.inference_mode():
        features = encode(network, mel())
        expected = network.logits(torch.tensor([[*prompt, *tokens]]), features)[0]
    assert torch.allclose(heard(theirs), features, atol=1e-4)
    assert len(tokens) == 6
    for step, values in enumerate(logits):
        kept = values > -1e30  # suppressed tokens aside
        assert kept.sum() > 51000
        assert torch.allclose(values[kept], expected[len(prompt) - 1 + step][kept], atol=1e-3)


def test_floating_point_weights_come_back_exactly(model: LoadedModel, tmp_path: Path) -> None:
    export(model, ORIGINAL, compress(model, ORIGINAL), tmp_path)
    state = load_model(str(tmp_path)).network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.network.state_dict().items())


def test_integers_are_our_codes_and_the_reciprocals_of_our_scales(tmp_path: Path) -> None:
    """CTranslate2 widens them to float32 as code * (1 / stored scale) (src/ops/dequantize_cpu.cc)."""
    zeroed = compact_model()
    zeroed.network.decoder.token_embedding.weight.data[7] = 0
    compressed = compress(zeroed, EIGHT)
    export(zeroed, EIGHT, compressed, tmp_path)
    variables = _read_variables((tmp_path / "model.bin").read_bytes(), "model.bin")
    codes = variables["decoder/embeddings/weight"]
    factors = 1 / variables["decoder/embeddings/weight_scale"]
    expected = compressed.network.decoder.token_embedding.weight
    assert codes.dtype == torch.int8
    assert codes.min() == -128
    assert not expected[7].any()
    assert torch.allclose(codes * factors[:, None], expected, rtol=2**-23, atol=0)
    assert variables["decoder/projection/weight"] is codes
    assert variables["decoder/projection/weight_scale"] is variables["decoder/embeddings/weight_scale"]


def test_configuration(model: LoadedModel, tmp_path: Path) -> None:
    recipe = without(ORIGINAL, "decoder", 0)
    compressed = compress(model, recipe)
    heads = torch.zeros(3, 4, dtype=torch.bool)
    heads[0, 1] = heads[1, 2] = heads[2, 3] = True
    compressed.network.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    export(model, recipe, compressed, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["alignment_heads"] == [[0, 2], [1, 3]]
    assert config["suppress_ids_begin"] == [220, 50256]
    assert (config["lang_ids"][0], len(config["lang_ids"])) == (50258, 99)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == {"feature_size": 80}
    assert len(json.loads((tmp_path / "vocabulary.json").read_text())) == 51864


def test_alignment_is_openai_whispers_default_where_heads_left(
    model: LoadedModel, calibration: Calibration, tmp_path: Path
) -> None:
    export(model, FEWER_HEADS, compress(model, FEWER_HEADS, calibration), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["alignment_heads"] == [[1, 0], [1, 1], [2, 0], [2, 1]]


def test_every_recipe_of_these_tests_is_executed() -> None:
    assert [unsupported_reason("ctranslate2", recipe, COMPACT) for recipe in RECIPES.values()] == [None] * len(RECIPES)


REFUSED = {
    "vocabulary = 8192: CTranslate2 knows only Whisper's own vocabularies": changed(
        ORIGINAL, vocabulary=8192, vocabulary_language="en"
    ),
    "frequent_tokens = 512: CTranslate2 stores a matrix at one": changed(ORIGINAL, bits=4, frequent_tokens=512),
    "window_s = 15: CTranslate2 always encodes 30 s": changed(ORIGINAL, window_s=15.0),
    "activation_bits = 8: CTranslate2 has activations of 32 bits beside integer weights": changed(
        EIGHT, activation_bits=8
    ),
    "encoder.0.attention_bits = 4: CTranslate2 has matrices of 8, 16, 32 bits": changed(ORIGINAL, bits=4),
    "convolution_bits = 6: CTranslate2 has convolutions of": changed(EIGHT, convolution_bits=6),
    "embedding_bits = 8 beside encoder.0.attention_bits = 16": changed(ORIGINAL, embedding_bits=8),
    "decoder.0.ffn_bits = 16 beside encoder.0.attention_bits = 8": changed(EIGHT, decoder={"ffn_bits": 16}),
    "convolution_bits = 8 beside encoder.0.attention_bits = 16": changed(ORIGINAL, convolution_bits=8),
    "group_size = 32: CTranslate2 has one scale per output channel": changed(EIGHT, group_size=32),
    "symmetric = false": changed(EIGHT, symmetric=False),
    "decoder.0.cross_heads = 4 beside decoder.0.heads = 3": changed(ORIGINAL, decoder={"heads": 3}),
    "decoder.0.ffn_rank = 32: CTranslate2 has one matrix": changed(ORIGINAL, decoder={"ffn_rank": 32}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals_name_the_gene(reason: str) -> None:
    check_refused("ctranslate2", REFUSED[reason], reason)


def test_another_vocabulary_is_refused() -> None:
    text = unsupported_reason("ctranslate2", ORIGINAL, replace(COMPACT, n_vocab=300))
    assert text is not None
    assert text.startswith("a vocabulary of 300 tokens")
