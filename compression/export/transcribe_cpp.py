"""Export to transcribe.cpp: one file, `model.gguf`, with weights, mel filters, vocabulary and decoding rules.

Names, keys and types are those that its loader reads (handy-computer/transcribe.cpp, src/arch/whisper/weights.cpp and
src/transcribe-weights-util.h). Each matrix has a type of its own: float32, float16, or blocks of 32 weights with a
float16 scale, which hold our symmetric grids exactly (see `compression.export.ggml`). Its other blocks do not:

- Q4_1 and Q5_1 store the value of code 0 as float16, with 11 significant bits. Ours is zero point times scale, which
  needs up to 16.
- K-quants have 256 inputs to a block, which widths of 384 or 1152 are not made of, and one float16 scale for them.

Its attention is square: heads that left would be zeros, of the same size. A stack has one number of FFN channels, in
whole blocks: the last block is filled with channels of zeros, which add nothing. Vectors and positions are float32.

The loader takes any window, but has one for all audio: what is longer is cut into several, in the middle of words. A
recipe's window is the shortest, and grows with the audio; so shorter ones than Whisper's 30 s are refused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from torch import Tensor

from compression.export.ggml import BLOCK, blocks
from compression.export.vocabulary import KeptTokens
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.techniques.grids import QuantisedMatrix
from compression.whisper.load import LoadedModel
from compression.whisper.tokenizer import all_tokens, tokenizer_json
from runtime.audio import SAMPLE_RATE
from runtime.mel import FFT_SAMPLES, HOP_SAMPLES, WINDOW_FRAMES, WINDOW_SAMPLES, mel_filters

FILE_NAME = "model.gguf"
TYPES = {
    32: GGMLQuantizationType.F32,
    16: GGMLQuantizationType.F16,
    8: GGMLQuantizationType.Q8_0,
    5: GGMLQuantizationType.Q5_0,
    4: GGMLQuantizationType.Q4_0,
}
"""By weight bits."""
_TEXT_IDS = 50257
"""transcribe.cpp shows every token below this id as text, but timestamps (src/arch/whisper/model.cpp)."""

_NAMES = {
    "encoder": "enc",
    "decoder": "dec",
    "conv1": "conv.0",
    "conv2": "conv.1",
    "ln_post": "final_norm",
    "ln": "final_norm",
    "token_embedding": "token_embd",
    "positional_embedding": "pos_emb.weight",
    "query": "q",
    "key": "k",
    "value": "v",
    "mlp_ln": "norm_ffn",
    "mlp": "ffn",
    "0": "fc1",
    "2": "fc2",
}
_ATTENTION = {
    "encoder": {"attn": "attn", "attn_ln": "norm_attn"},
    "decoder": {"attn": "self_attn", "attn_ln": "norm_self", "cross_attn_ln": "norm_cross"},
}
"""openai-whisper's parts of a name, and transcribe.cpp's."""

Stored = tuple[npt.NDArray[Any], GGMLQuantizationType]
"""Values of a type, or rows of the bytes of its blocks."""


def export(model: LoadedModel, recipe: Recipe, compressed: Compressed, out: Path) -> None:
    """Write `compress(model, recipe, ...)` as one file into the folder `out`; the recipe must not be refused."""
    write(out / FILE_NAME, model, recipe, compressed)


def write(file: Path, model: LoadedModel, recipe: Recipe, compressed: Compressed) -> None:
    """The file. Matrices without codes have the recipe's bits."""
    kept = KeptTokens.of(compressed)
    writer = GGUFWriter(file, "whisper")
    keys = _general(model, kept) | _shapes(compressed) | _decoding(kept) | _frontend(compressed)
    for name, value in keys.items():
        _add(writer, name, value)
    _add_vocabulary(writer, kept)
    for name, (values, kind) in _tensors(recipe, compressed):
        writer.add_tensor(name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def their_name(name: str) -> str:
    """transcribe.cpp's name of a tensor of openai-whisper's network, such as `enc.blocks.0.ffn.fc1.weight`."""
    stack, *parts = name.split(".")
    names = _NAMES | _ATTENTION[stack]
    layer = parts[1:2] if parts[0] == "blocks" else []
    rest = parts[2:] if layer else parts
    return ".".join([names[stack], *(["blocks", *layer] if layer else []), *(names.get(part, part) for part in rest)])


def _add(writer: GGUFWriter, name: str, value: object) -> None:
    """Whole numbers are unsigned, as the loader wants them; those in lists are signed."""
    match value:
        case bool():
            writer.add_bool(name, value)
        case int():
            writer.add_uint32(name, value)
        case list() if value:
            writer.add_array(name, value)
        case str():
            writer.add_string(name, value)


def _general(model: LoadedModel, kept: KeptTokens) -> dict[str, object]:
    multilingual = model.dimensions.is_multilingual
    return {
        "general.name": f"whisper-{model.name}",
        "general.languages": list(kept.tokenizer.all_language_codes) if multilingual else ["en"],
        "stt.variant": f"whisper-{model.name}",
        "stt.capability.lang_detect": multilingual,
        "stt.capability.translate": multilingual,
        "stt.capability.timestamps": True,
    }


def _shapes(compressed: Compressed) -> dict[str, object]:
    network = compressed.network
    dims, encoder, decoder = network.dims, network.encoder.blocks, network.decoder.blocks
    of_encoder = {
        "n_layers": len(encoder),
        "d_model": dims.n_audio_state,
        "n_heads": dims.n_audio_head,
        "ffn_dim": _whole_blocks(encoder[0].mlp[0].out_features),
        "num_mel_bins": dims.n_mels,
        "max_source_positions": dims.n_audio_ctx,
        "activation": "gelu",
    }
    of_decoder = {
        "n_layers": len(decoder),
        "d_model": dims.n_text_state,
        "n_heads": dims.n_text_head,
        "ffn_dim": _whole_blocks(decoder[0].mlp[0].out_features),
        "max_target_positions": dims.n_text_ctx,
        "vocab_size": network.decoder.token_embedding.num_embeddings,
        "activation": "gelu",
        "tie_word_embeddings": True,
        "scale_embedding": False,
    }
    return {f"stt.whisper.encoder.{name}": value for name, value in of_encoder.items()} | {
        f"stt.whisper.decoder.{name}": value for name, value in of_decoder.items()
    }


def _decoding(kept: KeptTokens) -> dict[str, object]:
    """Special tokens and the tokens that are never said, by their rows."""
    tokenizer = kept.tokenizer
    ids = {
        "decoder_start_token_id": tokenizer.sot,
        "sot_token_id": tokenizer.sot,
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "transcribe_token_id": tokenizer.transcribe,
        "translate_token_id": tokenizer.translate,
        "prev_sot_token_id": tokenizer.sot_prev,
    }
    shown = {row for row in kept.kept(range(tokenizer.sot, tokenizer.timestamp_begin)) if row < _TEXT_IDS}
    return {f"stt.whisper.{name}": kept.row(token) for name, token in ids.items()} | {
        "stt.whisper.suppress_tokens": sorted({*kept.suppressed, *shown}),
        "stt.whisper.begin_suppress_tokens": kept.begin_suppressed,
    }


def _frontend(compressed: Compressed) -> dict[str, object]:
    """Whisper's log-mel spectrogram, padded to 30 s."""
    values = {
        "type": "mel",
        "num_mels": compressed.network.dims.n_mels,
        "sample_rate": SAMPLE_RATE,
        "n_fft": FFT_SAMPLES,
        "win_length": FFT_SAMPLES,
        "hop_length": HOP_SAMPLES,
        "window": "hann_periodic",
        "normalize": "whisper_logmel",
        "chunk_length": WINDOW_SAMPLES // SAMPLE_RATE,
        "n_samples": WINDOW_SAMPLES,
        "nb_max_frames": WINDOW_FRAMES,
    }
    return {f"stt.frontend.{name}": value for name, value in values.items()}


def _add_vocabulary(writer: GGUFWriter, kept: KeptTokens) -> None:
    """The spelling of each row, and the merges that make kept tokens of kept ones, for texts of prompts."""
    spellings, end = all_tokens(kept.tokenizer), kept.tokenizer.eot
    ids = (kept.rows >= 0).nonzero().flatten().tolist()
    tokens = [spellings[token] if token < len(spellings) else f"<|unused_{token}|>" for token in ids]
    known = {spelling for spelling, token in zip(tokens, ids, strict=True) if token < end}
    merges: list[str] = tokenizer_json(kept.tokenizer)["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL if token < end else TokenType.CONTROL for token in ids])
    writer.add_token_merges([merge for merge in merges if {*merge.split(" "), merge.replace(" ", "")} <= known])
    writer.add_bos_token_id(kept.row(end))
    writer.add_eos_token_id(kept.row(end))
    writer.add_pad_token_id(kept.row(end))
    writer.add_add_bos_token(False)


def _tensors(recipe: Recipe, compressed: Compressed) -> Iterator[tuple[str, Stored]]:
    network = compressed.network
    yield "frontend.mel_filterbank", _floats(torch.from_numpy(mel_filters(network.dims.n_mels)))
    yield "frontend.window", _floats(torch.hann_window(FFT_SAMPLES))
    for name, value in network.state_dict().items():
        module, _, parameter = name.rpartition(".")
        if module in compressed.matrices and parameter == "weight":
            stored = _integers(compressed.matrices[module])
        elif parameter == "weight" and value.dim() > 1:
            stored = _floats(value, _bits(module, recipe))
        else:
            stored = _floats(value)
        yield their_name(name), _in_whole_blocks(module, stored)


def _bits(module: str, recipe: Recipe) -> int:
    """What the recipe says of a matrix or convolution."""
    stack, *parts = module.split(".")
    if parts[0] != "blocks":
        return recipe.embedding_bits if parts == ["token_embedding"] else recipe.convolution_bits
    layer = [layer for layer in getattr(recipe, stack) if layer][int(parts[1])]
    bits: int = layer.ffn_bits if parts[2] == "mlp" else layer.attention_bits
    return bits


def _floats(value: Tensor, bits: int = 32) -> Stored:
    return value.numpy().astype(np.float32 if bits == 32 else np.float16), TYPES[bits]


def _integers(matrix: QuantisedMatrix) -> Stored:
    """Rows of blocks, the last of which a matrix fills with zeros."""
    return blocks(matrix).reshape(len(matrix.codes), -1), TYPES[matrix.bits]


def _in_whole_blocks(module: str, stored: Stored) -> Stored:
    """The hidden channels of an FFN filled up with zeros; blocks of no bits are zeros too."""
    values, kind = stored
    if module.endswith("mlp.0"):
        rows = _whole_blocks(len(values)) - len(values)
        values = np.pad(values, [(0, rows), *[(0, 0)] * (values.ndim - 1)])
    if module.endswith("mlp.2") and values.ndim > 1 and values.dtype != np.uint8:
        values = np.pad(values, [(0, 0), (0, _whole_blocks(values.shape[1]) - values.shape[1])])
    return values, kind


def _whole_blocks(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK
