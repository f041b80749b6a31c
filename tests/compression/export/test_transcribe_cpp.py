"""Files for transcribe.cpp read back by llama.cpp's own package, and refusals; its own loader runs in test_contract."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

from compression.compress import compress
from compression.export.manifest import Sources
from compression.export.targets import export
from compression.export.transcribe_cpp import FILE_NAME, their_name
from compression.export.vocabulary import KeptTokens
from compression.recipe.recipe import Recipe
from compression.recipe.runtimes import unsupported_reason
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel
from compression.whisper.tokenizer import printable, text_tokens, tokenizer_of
from evaluators.costs.price import stored_bytes
from tests.compression.export.models import COMPACT, changed, check_refused, compact_calibration, compact_model, without
from tests.networks import random_network

ORIGINAL = Recipe.original(COMPACT)
BLOCKS = {bits: changed(ORIGINAL, bits=bits, group_size=32) for bits in (8, 5, 4)}
MIXED = changed(
    replace(BLOCKS[4], embedding_bits=8), encoder={"attention_bits": 5}, decoder={"ffn_bits": 16, "attention_bits": 32}
)
NARROW = changed(BLOCKS[5], encoder={"ffn_channels": 100}, decoder={"ffn_channels": 72})
SHORTER = replace(BLOCKS[4], vocabulary=8192, vocabulary_language="en")
RECIPES = {
    "original": ORIGINAL,
    "float32": Recipe.original(COMPACT, stored_bits=32),
    **{f"{bits} bits": recipe for bits, recipe in BLOCKS.items()},
    "bits by matrix": MIXED,
    "two layers": without(BLOCKS[8], "decoder", 1),
    "narrow": NARROW,
    "shorter vocabulary": SHORTER,
}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return compact_model()


def written(model: LoadedModel, recipe: Recipe, folder: Path) -> tuple[Compressed, GGUFReader]:
    recipe = recipe.canonical(model.dimensions)
    network = compress(model, recipe, compact_calibration(model))
    export(model, recipe, network, folder, target="transcribe-cpp", sources=Sources(model="compact"))
    return network, GGUFReader(folder / FILE_NAME)


def keys_of(file: GGUFReader) -> dict[str, object]:
    return {name: field.contents() for name, field in file.fields.items()}


def types_of(file: GGUFReader) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in file.tensors}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_values_are_the_networks_bit_for_bit(recipe: Recipe, model: LoadedModel, tmp_path: Path) -> None:
    """All but the zeros that fill up a block."""
    network, file = written(model, recipe, tmp_path / "artifact")
    stored = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in file.tensors}
    state = {their_name(name): value.numpy() for name, value in network.network.state_dict().items()}
    assert stored.keys() == state.keys() | {"frontend.mel_filterbank", "frontend.window"}
    for name, value in state.items():
        own = tuple(slice(size) for size in value.shape)
        assert np.array_equal(stored[name][own], value), name
        assert np.count_nonzero(stored[name]) == np.count_nonzero(value), name


def test_each_matrix_has_its_own_type(model: LoadedModel, tmp_path: Path) -> None:
    _, file = written(model, MIXED, tmp_path / "artifact")
    types = types_of(file)
    expected = {
        "enc.blocks.1.attn.q.weight": "Q5_0",
        "enc.blocks.1.ffn.fc2.weight": "Q4_0",
        "dec.blocks.2.self_attn.k.weight": "F32",
        "dec.blocks.2.cross_attn.out.weight": "F32",
        "dec.blocks.2.ffn.fc1.weight": "F16",
        "dec.token_embd.weight": "Q8_0",
        "enc.conv.1.weight": "F16",
    }
    assert expected.items() <= types.items()
    others = {
        name: kind for name, kind in types.items() if name.endswith((".bias", "pos_emb.weight")) or "norm" in name
    }
    assert set(others.values()) == {"F32"}


def test_channels_fill_whole_blocks(model: LoadedModel, tmp_path: Path) -> None:
    network, file = written(model, NARROW, tmp_path / "artifact")
    shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in file.tensors}  # inputs first
    assert network.network.encoder.blocks[0].mlp[0].out_features == 100
    assert shapes["enc.blocks.0.ffn.fc1.weight"] == (64, 128)
    assert shapes["enc.blocks.0.ffn.fc1.bias"] == (128,)
    assert shapes["enc.blocks.0.ffn.fc2.weight"] == (128, 64)
    assert shapes["dec.blocks.2.ffn.fc2.weight"] == (96, 64)
    keys = keys_of(file)
    assert (keys["stt.whisper.encoder.ffn_dim"], keys["stt.whisper.decoder.ffn_dim"]) == (128, 96)


def test_the_keys_that_the_loader_reads(model: LoadedModel, tmp_path: Path) -> None:
    _, file = written(model, RECIPES["two layers"], tmp_path / "artifact")
    keys = keys_of(file)
    expected = {
        "general.architecture": "whisper",
        "general.languages": ["en"],
        "stt.capability.lang_detect": False,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.eos_token_id": 50256,
        "stt.whisper.encoder.n_layers": 2,
        "stt.whisper.encoder.d_model": 64,
        "stt.whisper.encoder.n_heads": 4,
        "stt.whisper.encoder.max_source_positions": 1500,
        "stt.whisper.decoder.n_layers": 2,
        "stt.whisper.decoder.vocab_size": 51864,
        "stt.whisper.decoder_start_token_id": 50257,
        "stt.whisper.no_timestamps_token_id": 50362,
        "stt.frontend.n_samples": 480_000,
    }
    assert expected.items() <= keys.items()
    rules = KeptTokens.of(Compressed.original(model.network))
    assert keys["stt.whisper.suppress_tokens"] == rules.suppressed
    assert keys["stt.whisper.begin_suppress_tokens"] == rules.begin_suppressed


def test_tokens_are_rows_of_the_shorter_vocabulary(model: LoadedModel, tmp_path: Path) -> None:
    """No token but the end is said that is no text: transcribe.cpp would show those below 50257."""
    network, file = written(model, SHORTER, tmp_path / "artifact")
    keys, kept = keys_of(file), KeptTokens.of(network)
    tokenizer = tokenizer_of(network.network)
    ids = network.vocabulary.ids.tolist()
    texts = text_tokens(tokenizer)
    tokens = keys["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    assert tokens[:8192] == [printable(texts[token]) for token in ids[:8192]]
    assert tokens[8192:8194] == ["<|endoftext|>", "<|startoftranscript|>"]
    assert len(tokens) == len(ids) == keys["stt.whisper.decoder.vocab_size"]
    assert keys["stt.whisper.no_timestamps_token_id"] == kept.row(tokenizer.no_timestamps)
    never = set(range(kept.row(tokenizer.sot), kept.row(tokenizer.timestamp_begin)))
    assert set(keys["stt.whisper.suppress_tokens"]) == never | set(kept.suppressed)  # type: ignore[call-overload]
    merges = keys["tokenizer.ggml.merges"]
    assert isinstance(merges, list)
    assert merges[:2] == ["Ġ t", "Ġ a"]
    assert {part for merge in merges for part in [*merge.split(" "), merge.replace(" ", "")]} <= set(tokens[:8192])


def test_a_multilingual_model_names_its_languages(tmp_path: Path) -> None:
    dimensions = replace(COMPACT, n_vocab=51865)
    torch.manual_seed(0)
    network = random_network(dimensions)
    model = LoadedModel(name="many", digest="0", dimensions=dimensions, stored_bits=32, network=network)
    _, file = written(model, Recipe.original(dimensions, stored_bits=32), tmp_path / "artifact")
    keys = keys_of(file)
    tokens, languages = keys["tokenizer.ggml.tokens"], keys["general.languages"]
    assert isinstance(tokens, list)
    assert isinstance(languages, list)
    assert tokens.index("<|de|>") == 50261
    assert all(f"<|{code}|>" in tokens for code in languages)
    assert (keys["stt.whisper.transcribe_token_id"], keys["stt.whisper.prev_sot_token_id"]) == (50359, 50361)


@pytest.mark.parametrize("bits", [8, 5, 4])
def test_matrices_cost_what_the_search_prices(bits: int, model: LoadedModel, tmp_path: Path) -> None:
    """But for float32 instead of float16 in vectors, and the encoder's positions and the frontend."""
    _, file = written(model, BLOCKS[bits], tmp_path / "artifact")
    priced = [
        tensor for tensor in file.tensors if tensor.name != "enc.pos_emb.weight" and "frontend" not in tensor.name
    ]
    vectors = sum(int(tensor.n_elements) for tensor in priced if tensor.tensor_type == GGMLQuantizationType.F32)
    assert sum(int(tensor.n_bytes) for tensor in priced) - 2 * vectors == stored_bytes(COMPACT, BLOCKS[bits])


def test_what_is_executed() -> None:
    for recipe in (*RECIPES.values(), changed(BLOCKS[4], activation_bits=8)):
        assert unsupported_reason("transcribe-cpp", recipe, COMPACT) is None


REFUSED = {
    "frequent_tokens = 512: transcribe.cpp stores a matrix at one number of bits": changed(
        BLOCKS[4], frequent_tokens=512
    ),
    "window_s = 15: transcribe.cpp always encodes 30 s": changed(ORIGINAL, window_s=15.0),
    "encoder.1.heads = 3 of 4": replace(
        ORIGINAL, encoder=(ORIGINAL.encoder[0], changed(ORIGINAL, encoder={"heads": 3}).encoder[1])
    ),
    "encoder.1.ffn_channels = 96 beside encoder.0.ffn_channels = 256": replace(
        ORIGINAL, encoder=(ORIGINAL.encoder[0], changed(ORIGINAL, encoder={"ffn_channels": 96}).encoder[1])
    ),
    "decoder.0.ffn_rank = 32: transcribe.cpp has one matrix": changed(ORIGINAL, decoder={"ffn_rank": 32}),
    "encoder.0.attention_bits = 6": changed(ORIGINAL, bits=6),
    "convolution_bits = 8": changed(BLOCKS[8], convolution_bits=8),
    "group_size = 16: transcribe.cpp has groups of 32 weights": changed(BLOCKS[4], group_size=16),
    "scale_bits = 8": changed(BLOCKS[4], scale_bits=8),
    "symmetric = false: transcribe.cpp has no zero points": changed(BLOCKS[4], symmetric=False),
    "activation_bits = 16": changed(BLOCKS[8], activation_bits=16),
    "activation_ranges = static": changed(BLOCKS[8], activation_bits=8, activation_ranges="static"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals_name_the_gene(reason: str) -> None:
    check_refused("transcribe-cpp", REFUSED[reason], reason)
