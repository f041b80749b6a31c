"""Whispers as transformers saves them: read as transformers reads them, or refused in one line."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

from common.errors import InputError
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.decoding_rules import DecodingRules, rules_of
from compression.whisper.load import LoadedModel, load_model
from compression.whisper.network import encode
from compression.whisper.tokenizer import tokenizer_of
from evaluators.accuracy.decoding import Clip, decode
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import load_speech_set
from search.loading import load_speech

SHAPES = {
    "English-only": {"vocab_size": 51864},
    "multilingual": {"vocab_size": 51865},
    "large-v3": {"vocab_size": 51866, "num_mel_bins": 128},
    "turbo": {"vocab_size": 51866, "num_mel_bins": 128, "encoder_layers": 3, "decoder_layers": 1},
    "distil": {"vocab_size": 51865, "encoder_layers": 4, "decoder_layers": 2},
}


def made(**changes: Any) -> WhisperForConditionalGeneration:
    options = {"encoder_layers": 2, "decoder_layers": 2} | changes
    torch.manual_seed(0)
    return WhisperForConditionalGeneration(
        WhisperConfig(
            d_model=64,
            encoder_attention_heads=4,
            decoder_attention_heads=2,
            encoder_ffn_dim=256,
            decoder_ffn_dim=256,
            **options,
        )
    ).eval()


def mel_of(bands: int) -> Tensor:
    """(n_mels, 3000) of real speech."""
    [utterance, *_] = load_speech_set(Path("sample-search")).utterances
    return CachedFeatures(n_mels=bands).mel(utterance)


@torch.inference_mode()
def assert_same_logits(ours: LoadedModel, theirs: WhisperForConditionalGeneration) -> None:
    mel, tokens = mel_of(ours.dimensions.n_mels), torch.tensor([[50257, 50258, 50359, 11, 290, 257]])
    expected = theirs.float()(input_features=mel[None], decoder_input_ids=tokens).logits
    logits = ours.network.decoder(tokens, encode(ours.network, mel[None]))
    assert logits.std() > 1e-3
    assert torch.allclose(logits, expected, atol=1e-4)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(model: WhisperForConditionalGeneration, **options: Any) -> Path:
        model.save_pretrained(tmp_path / "model", **options)
        return tmp_path / "model"

    return save


def as_torch_file(folder: Path) -> Path:
    """The same as transformers saved it before safetensors."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_transformers_logits(shape, saved):
    theirs = made(**SHAPES[shape])
    ours = load_model(str(saved(theirs)))
    assert (ours.dimensions.n_audio_head, ours.dimensions.n_text_head) == (4, 2)
    assert_same_logits(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_exactly(dtype, saved):
    theirs = made().to(dtype)
    ours = load_model(str(saved(theirs)))
    assert_same_logits(ours, theirs)
    embedding = theirs.get_input_embeddings().weight
    assert torch.equal(ours.network.decoder.token_embedding.weight, embedding.float())
    assert ours.stored_bits == 16 if dtype == torch.float16 else ours.stored_bits in {16, 32}


def test_shards_and_files_of_torch_are_the_same_network(saved, tmp_path):
    theirs = made()
    folder = saved(theirs, max_shard_size="4MB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    sharded = load_model(str(folder))
    shutil.rmtree(folder)
    of_torch = load_model(str(as_torch_file(saved(theirs))))
    for loaded in (sharded, of_torch):
        assert_same_logits(loaded, theirs)
    assert sharded.digest != of_torch.digest  # of the files' bytes


def test_the_digest_tells_networks_apart_whose_weights_are_the_same(saved):
    folder = saved(made())
    digests = {load_model(str(folder)).digest}
    for name, values in (
        ("config.json", {"encoder_attention_heads": 2}),
        ("generation_config.json", {"suppress_tokens": [7]}),
        ("generation_config.json", {"begin_suppress_tokens": [7]}),
    ):
        change_json(name, **values)(folder)
        digests.add(load_model(str(folder)).digest)
    assert len(digests) == 4
    change_json("config.json", dropout=0.5)(folder)
    assert load_model(str(folder)).digest in digests


def test_a_network_without_its_head_is_read_too(saved, tmp_path):
    theirs = made()
    theirs.model.save_pretrained(tmp_path / "bare")
    assert_same_logits(load_model(str(tmp_path / "bare")), theirs)


@pytest.fixture
def resaved(tiny_en: LoadedModel, tmp_path: Path) -> Path:
    """OpenAI's tiny.en as transformers saves it, with an added token."""
    dimensions = tiny_en.dimensions
    config = WhisperConfig(
        vocab_size=dimensions.n_vocab,
        d_model=384,
        encoder_layers=4,
        decoder_layers=4,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        encoder_ffn_dim=1536,
        decoder_ffn_dim=1536,
    )
    theirs = WhisperForConditionalGeneration(config)
    theirs.model.load_state_dict(as_theirs(tiny_en.network.state_dict()))
    theirs.resize_token_embeddings(dimensions.n_vocab + 1)
    theirs.generation_config = GenerationConfig(
        decoder_start_token_id=50257,
        eos_token_id=50256,
        forced_decoder_ids=[[1, 50362]],
        begin_suppress_tokens=[220, 50256],
        suppress_tokens=list(DecodingRules.of_openai(tokenizer_of(tiny_en.network)).suppressed),
    )
    theirs.half().save_pretrained(tmp_path / "resaved")
    return tmp_path / "resaved"


def as_theirs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """By the names that transformers' own conversion script gives (convert_openai_to_hf.py)."""
    names = {
        "blocks": "layers",
        "mlp.0": "fc1",
        "mlp.2": "fc2",
        "mlp_ln": "final_layer_norm",
        ".attn.query": ".self_attn.q_proj",
        ".attn.key": ".self_attn.k_proj",
        ".attn.value": ".self_attn.v_proj",
        ".attn_ln": ".self_attn_layer_norm",
        ".attn.out": ".self_attn.out_proj",
        ".cross_attn.query": ".encoder_attn.q_proj",
        ".cross_attn.key": ".encoder_attn.k_proj",
        ".cross_attn.value": ".encoder_attn.v_proj",
        ".cross_attn_ln": ".encoder_attn_layer_norm",
        ".cross_attn.out": ".encoder_attn.out_proj",
        "decoder.ln.": "decoder.layer_norm.",
        "encoder.ln_post": "encoder.layer_norm",
        "decoder.token_embedding": "decoder.embed_tokens",
        "encoder.positional_embedding": "encoder.embed_positions.weight",
        "decoder.positional_embedding": "decoder.embed_positions.weight",
    }
    renamed = {}
    for name, value in state.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)  # noqa: PLW2901 - step by step
        renamed[name] = value
    return renamed


def test_a_real_whisper_is_the_same_from_either_format(tiny_en, resaved):
    ours = load_model(str(resaved))
    assert "1 added tokens" in ours.note
    assert (ours.dimensions, ours.stored_bits) == (tiny_en.dimensions, 16)
    for name, value in tiny_en.network.state_dict().items():
        assert torch.equal(ours.network.state_dict()[name], value), name
    tokenizer = tokenizer_of(ours.network)
    assert rules_of(ours.network, tokenizer) == rules_of(tiny_en.network, tokenizer)


def heard(network: Compressed, mel: Tensor) -> tuple[int, ...]:
    clip = Clip(features=encode(network.network, mel[None])[0], language="en", max_tokens=40)
    return decode(network, [clip])[0].tokens


def test_what_a_checkpoint_never_says_is_not_said(tiny_en, resaved):
    mel = mel_of(80)
    said = heard(Compressed.original(tiny_en.network), mel)
    generation = json.loads((resaved / "generation_config.json").read_text())
    generation["suppress_tokens"].append(said[2])
    (resaved / "generation_config.json").write_text(json.dumps(generation))
    ours = load_model(str(resaved))
    compressed = compress(ours, Recipe.original(ours.dimensions, stored_bits=16))  # a copy
    for network in (Compressed.original(ours.network), compressed):
        without = heard(network, mel)
        assert without[:2] == said[:2]
        assert said[2] not in without
    theirs = WhisperForConditionalGeneration.from_pretrained(resaved).float()
    generated = theirs.generate(mel[None], max_new_tokens=40, do_sample=False)[0].tolist()
    text = [token for token in generated if token < 50256]
    assert text == list(without)


@pytest.mark.parametrize(
    ("stated", "suppressed", "begins"),
    [
        ({"suppress_tokens": None}, (), ()),
        ({"begin_suppress_tokens": [220, 60000]}, (), (220,)),
        ({"suppress_tokens": [7, 60000], "begin_suppress_tokens": []}, (7,), ()),
    ],
)
def test_a_checkpoint_that_says_little_suppresses_little(stated, suppressed, begins, saved):
    folder = saved(made(vocab_size=51864))
    (folder / "generation_config.json").write_text(json.dumps(stated))
    network = load_model(str(folder)).network
    rules = rules_of(network, tokenizer_of(network))
    assert tuple(token for token in rules.suppressed if token < 50256) == suppressed
    assert rules.begin_suppressed == begins
    assert {50257, 50357, 50358, 50359, 50360, 50361} <= set(rules.suppressed)  # no text, whatever it says


@pytest.mark.parametrize(
    ("stated", "language", "note"),
    [
        ({}, None, ""),
        ({"language": "German", "task": "transcribe"}, "de", ""),
        ({"language": "<|es|>"}, "es", ""),
        ({"forced_decoder_ids": [[1, 50261], [2, 50359]]}, "de", ""),
        ({"forced_decoder_ids": [[1, None], [2, 50359]]}, None, ""),
        ({"forced_decoder_ids": [[1, 50261], [2, 50358]]}, "de", "made to translate"),
        ({"language": "fr", "task": "translate", "forced_decoder_ids": None}, "fr", "made to translate"),
    ],
    ids=str,
)
def test_the_language_that_a_checkpoint_decodes_in(stated, language, note, saved):
    folder = saved(made(vocab_size=51865))
    change_json("generation_config.json", **stated)(folder)
    model = load_model(str(folder))
    assert model.language == language
    assert note in model.note
    assert bool(note) == bool(model.note)


def test_a_language_that_the_network_does_not_know_is_said(saved):
    folder = saved(made(vocab_size=51865))
    change_json("generation_config.json", language="klingon")(folder)
    with pytest.raises(InputError, match="names the language 'klingon', which the model does not know"):
        load_model(str(folder))


def test_speech_without_a_language_is_in_the_checkpoints(saved, tmp_path):
    folder = saved(made(vocab_size=51865))
    change_json("generation_config.json", language="german")(folder)
    audio = Path("evaluators/sample_speech/audio/sample-31.flac").resolve()
    lines = [{"id": "a", "audio": str(audio), "text": "x"}, {"id": "b", "audio": str(audio), "text": "x"}]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(json.dumps(line) for line in (lines[0], lines[1] | {"language": "es"})))
    speech = load_speech(manifest, load_model(str(folder)), language=None, skip_broken=False)
    assert [utterance.language for utterance in speech.utterances] == ["de", "es"]


def change_json(name: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        known = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(known | values))

    return change


def only(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(b"{}")

    return change


def change_tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return changed


def shards(names: list[Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        index = {"weight_map": dict(enumerate(names))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def claim_terabytes(folder: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


EMBEDDING = "model.decoder.embed_tokens.weight"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another network": (change_json("config.json", model_type="wav2vec2"), "model_type 'wav2vec2'"),
    "bitsandbytes": (
        change_json("config.json", quantization_config={"quant_method": "bitsandbytes"}),
        "quantised already, by bitsandbytes",
    ),
    "another activation": (change_json("config.json", activation_function="relu"), "its activation is not gelu"),
    "an adapter": (only("adapter_config.json"), "a PEFT adapter: merge it"),
    "TensorFlow": (only("tf_model.h5"), "weights of TensorFlow: load them with from_tf=True"),
    "Flax": (only("flax_model.msgpack"), "weights of Flax"),
    "float8": (
        change_tensors(lambda state: state.update({EMBEDDING: state[EMBEDDING].to(torch.float8_e4m3fn)})),
        "as float8_e4m3fn",
    ),
    "integers": (change_tensors(lambda state: state.update({EMBEDDING: state[EMBEDDING].to(torch.int8)})), "as int8"),
    "an untied output": (
        change_tensors(lambda state: state.update({"proj_out.weight": state[EMBEDDING] + 1})),
        "not its embedding",
    ),
    "a lacking tensor": (
        change_tensors(lambda state: state.pop("model.encoder.conv1.bias")),
        "lacks 'encoder.conv1.bias'",
    ),
    "an unknown tensor": (change_tensors(lambda state: state.update({"a.b": torch.zeros(1)})), "unknown 'a.b'"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "lacks config.json"),
    "a broken configuration": (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
    "a list as configuration": (lambda folder: (folder / "config.json").write_text("[]"), "is no JSON object"),
    "no heads": (change_json("config.json", encoder_attention_heads=0), "n_audio_head"),
    "heads in words": (change_json("config.json", encoder_attention_heads="six"), "n_audio_head"),
    "tokens in words": (
        change_json("generation_config.json", suppress_tokens=["a"]),
        "suppress_tokens is no list of tokens",
    ),
    "a number as language": (change_json("generation_config.json", language=5), "language in generation_config.json"),
    "tokens that are no pairs": (
        change_json("generation_config.json", forced_decoder_ids=[50261]),
        "forced_decoder_ids are no pairs",
    ),
    "a broken file": (truncate, "broken or no safetensors file"),
    "a header of terabytes": (claim_terabytes, "broken or no safetensors file"),
    "an empty file": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "broken or no safetensors file"),
    "a missing shard": (shards(["model-1-of-2.safetensors"]), "lacks model-1-of-2.safetensors"),
    "a shard elsewhere": (shards(["../model.safetensors"]), "names no files of this folder"),
    "no shards": (shards([]), "names no files of this folder"),
    "numbers as shards": (shards([1]), "names no files of this folder"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_one_line(kind, saved):
    change, message = REFUSED[kind]
    folder = saved(made(vocab_size=51864))
    change(folder)
    with pytest.raises(InputError, match=message.replace("(", r"\(")) as refused:
        load_model(str(folder))
    assert "\n" not in str(refused.value)


def test_the_output_matrix_may_be_saved_beside_the_embedding(saved):
    theirs = made()
    folder = saved(theirs)
    change_tensors(lambda state: state.update({"proj_out.weight": state[EMBEDDING].clone()}))(folder)
    assert_same_logits(load_model(str(folder)), theirs)


def test_alignment_heads_are_taken_over(saved):
    folder = saved(made())
    change_json("generation_config.json", alignment_heads=[[0, 1], [1, 0]])(folder)
    network = load_model(str(folder)).network
    assert network.alignment_heads.to_dense().int().tolist() == [[0, 1], [1, 0]]
    assert replace(load_model(str(folder)), note="").dimensions.n_text_layer == 2
