"""Export to Hugging Face's transformers: a folder that `WhisperForConditionalGeneration.from_pretrained` loads.

The weights are what the recipe's network computes with: values on the recipe's grids, each as a float. So transcripts
are those of the recipe, and the file is as large as its widest type makes it: bits that the recipe saves are not saved
here, but channels and layers that left are.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from whisper.model import Whisper
from whisper.tokenizer import Tokenizer

from compression.export.alignment import alignment_heads
from compression.recipe.dimensions import Dimensions
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.decoding_rules import rules_of
from compression.whisper.huggingface_format import their_name
from compression.whisper.load import LoadedModel
from compression.whisper.tokenizer import tokenizer_json, tokenizer_of
from runtime.audio import SAMPLE_RATE
from runtime.mel import FFT_SAMPLES, HOP_SAMPLES, WINDOW_FRAMES, WINDOW_SAMPLES


def export(model: LoadedModel, recipe: Recipe, compressed: Compressed, out: Path) -> None:
    """Write `compress(model, recipe, ...)` into the folder `out`; the recipe must not be refused."""
    network, tokenizer = compressed.network, tokenizer_of(compressed.network)
    state = _stored({their_name(name): value for name, value in network.state_dict().items()})
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    dtype = str(next(iter(state.values())).dtype).removeprefix("torch.")
    files: dict[str, object] = {
        "config.json": _config(network, tokenizer) | {"dtype": dtype},
        "generation_config.json": _generation(model, recipe, network, tokenizer),
        "preprocessor_config.json": _preprocessor(model.dimensions),
        "tokenizer.json": tokenizer_json(tokenizer),
        "tokenizer_config.json": _tokenizer_config(tokenizer),
    }
    for name, content in files.items():
        (out / name).write_text(json.dumps(content), encoding="utf-8")


def _stored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """All in float16 where that changes no value, else in float32."""
    is_half = all(torch.equal(value.half().float(), value) for value in state.values())
    return {name: (value.half() if is_half else value).contiguous().clone() for name, value in state.items()}


def _config(network: Whisper, tokenizer: Tokenizer) -> dict[str, Any]:
    dims, encoder, decoder = network.dims, network.encoder.blocks, network.decoder.blocks
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "d_model": dims.n_audio_state,
        "num_mel_bins": dims.n_mels,
        "vocab_size": dims.n_vocab,
        "max_source_positions": dims.n_audio_ctx,
        "max_target_positions": dims.n_text_ctx,
        "encoder_layers": len(encoder),
        "decoder_layers": len(decoder),
        "num_hidden_layers": len(encoder),
        "encoder_attention_heads": dims.n_audio_head,
        "decoder_attention_heads": dims.n_text_head,
        "encoder_ffn_dim": encoder[0].mlp[0].out_features,
        "decoder_ffn_dim": decoder[0].mlp[0].out_features,
        **_ends(tokenizer),
    }


def _ends(tokenizer: Tokenizer) -> dict[str, int]:
    return {
        "decoder_start_token_id": tokenizer.sot,
        "bos_token_id": tokenizer.eot,
        "eos_token_id": tokenizer.eot,
        "pad_token_id": tokenizer.eot,
    }


def _generation(model: LoadedModel, recipe: Recipe, network: Whisper, tokenizer: Tokenizer) -> dict[str, Any]:
    rules = rules_of(network, tokenizer)
    values = {
        **_ends(tokenizer),
        "max_length": network.dims.n_text_ctx,
        "is_multilingual": network.is_multilingual,
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "prev_sot_token_id": tokenizer.sot_prev,
        "suppress_tokens": list(rules.suppressed),
        "begin_suppress_tokens": list(rules.begin_suppressed),
        "alignment_heads": alignment_heads(recipe, network),
        "return_timestamps": False,
    }
    if network.is_multilingual:
        codes = zip(tokenizer.all_language_codes, tokenizer.all_language_tokens, strict=True)
        tasks = {"transcribe": tokenizer.transcribe, "translate": tokenizer.translate}
        values |= {"lang_to_id": {f"<|{code}|>": token for code, token in codes}, "task_to_id": tasks}
    if model.language:
        values |= {"language": model.language, "task": "transcribe"}
    return values


def _preprocessor(dimensions: Dimensions) -> dict[str, Any]:
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": dimensions.n_mels,
        "sampling_rate": SAMPLE_RATE,
        "hop_length": HOP_SAMPLES,
        "n_fft": FFT_SAMPLES,
        "chunk_length": WINDOW_SAMPLES // SAMPLE_RATE,
        "n_samples": WINDOW_SAMPLES,
        "nb_max_frames": WINDOW_FRAMES,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    end = tokenizer.decode_with_timestamps([tokenizer.eot])
    return {
        "tokenizer_class": "WhisperTokenizer",
        "bos_token": end,
        "eos_token": end,
        "unk_token": end,
        "pad_token": end,
        "add_prefix_space": False,
        "model_max_length": 1024,
    }
