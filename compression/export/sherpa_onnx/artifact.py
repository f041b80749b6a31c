"""A folder for sherpa-onnx: encoder.onnx, decoder.onnx and tokens.txt; see docs/artifacts.md.

What its loader reads stands in its csrc/offline-whisper-model.cc: inputs and outputs by position, and the encoder's
metadata. Each graph is one file, since the assets of an Android application cannot hold a second file of weights.
"""

import base64
from collections.abc import Iterable
from pathlib import Path

from common.errors import InputError
from compression.export.onnx_runtime.graph import Graph
from compression.export.sherpa_onnx.decoder import decoder_graph
from compression.export.sherpa_onnx.encoder import encoder_graph
from compression.export.vocabulary import KeptTokens
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel
from compression.whisper.tokenizer import tokenizer_of

ENCODER, DECODER, TOKENS = "encoder.onnx", "decoder.onnx", "tokens.txt"
LARGEST_FILE = 2**31 - 1
"""Bytes of an ONNX model in one piece: protobuf's limit."""


def export(model: LoadedModel, recipe: Recipe, compressed: Compressed, out: Path) -> None:
    """Write `compress(model, recipe, ...)` into the folder `out`.

    Raises InputError for a graph of more than 2 GB.
    """
    kept = KeptTokens.of(compressed)
    encoder = encoder_graph(compressed, recipe)
    encoder.metadata.update(metadata(model, compressed, kept))
    decoder = decoder_graph(compressed, recipe, kept)
    _write(encoder, out / ENCODER)
    _write(decoder, out / DECODER)
    write_tokens(kept, out)


def write_tokens(kept: KeptTokens, out: Path) -> None:
    """A line for each row that stands for text: its bytes in base64, and its number."""
    lines = [f"{base64.b64encode(text).decode()} {row}\n" for row, text in enumerate(kept.texts()) if text]
    (out / TOKENS).write_text("".join(lines), encoding="ascii")


def _write(graph: Graph, path: Path) -> None:
    if graph.constant_bytes > LARGEST_FILE:
        raise InputError(f"{path.name} would have over 2 GB, more than an ONNX file in one piece can hold")
    path.write_bytes(graph.to_bytes())


def metadata(model: LoadedModel, compressed: Compressed, kept: KeptTokens) -> dict[str, str]:
    """What `InitEncoder` reads. `n_text_state`: the widest layer's keys, for the zeros of `decoder_graph`."""
    network, tokenizer = compressed.network, tokenizer_of(compressed.network, model.language)
    dimensions, blocks = model.dimensions, network.decoder.blocks
    values = {
        "model_type": f"whisper-{model.name}",
        "n_mels": dimensions.n_mels,
        "n_text_layer": len(blocks),
        "n_text_ctx": dimensions.n_text_ctx,
        "n_text_state": max(len(block.attn.key.weight) for block in blocks),
        "n_vocab": network.decoder.token_embedding.num_embeddings,
        "sot": kept.row(tokenizer.sot),
        "eot": kept.row(tokenizer.eot),
        "blank_id": kept.row(tokenizer.encode(" ")[0]),
        "translate": kept.row(tokenizer.translate),
        "transcribe": kept.row(tokenizer.transcribe),
        "is_multilingual": int(dimensions.is_multilingual),
        "no_timestamps": kept.row(tokenizer.no_timestamps),
        "no_speech": kept.row(tokenizer.no_speech),
        "sot_sequence": _listed(map(kept.row, tokenizer.sot_sequence)),
    }
    if dimensions.is_multilingual:
        values["all_language_tokens"] = _listed(map(kept.row, tokenizer.all_language_tokens))
        values["all_language_codes"] = _listed(tokenizer.all_language_codes)
    return {name: str(value) for name, value in values.items()}


def _listed(values: Iterable[object]) -> str:
    return ",".join(map(str, values))
