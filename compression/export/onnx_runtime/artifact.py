"""An artifact directory for ONNX Runtime: what `runtime` needs, without the original model; see docs/artifacts.md."""

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from whisper.tokenizer import Tokenizer

from compression.export.alignment import alignment_heads
from compression.export.onnx_runtime.decoder import decoder_graph
from compression.export.onnx_runtime.encoder import encoder_graph
from compression.recipe.dimensions import Dimensions
from compression.recipe.kernels import KERNEL_BITS, MAX_BLOCK, MIN_BLOCK, block_of
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.decoding_rules import DecodingRules, rules_of
from compression.whisper.load import LoadedModel
from compression.whisper.tokenizer import text_tokens, tokenizer_of

CONFIG_VERSION = 1


def unsupported_reason(recipe: Recipe, dimensions: Dimensions) -> str | None:
    """The gene that ONNX Runtime has no kernel for, and why; None when it runs the recipe.

    Heads, channels, layers, windows and vocabularies may be any.
    """
    if recipe.has_groups and block_of(recipe.group_size, dimensions.n_audio_state) is None:
        sizes = f"powers of two from {MIN_BLOCK} to {MAX_BLOCK}"
        return f"group_size = {recipe.group_size}: ONNX Runtime has groups of {sizes}"
    kernels = f"{', '.join(map(str, KERNEL_BITS))}, 16 and 32 bits"
    for name, bits in (*recipe.matrix_bits(), ("convolution_bits", recipe.convolution_bits)):
        if bits not in (*KERNEL_BITS, 16, 32):
            return f"{name} = {bits}: ONNX Runtime has kernels for {kernels}"
    return None


def export(model: LoadedModel, recipe: Recipe, compressed: Compressed, out: Path) -> None:
    """Write encoder, decoder, vocabulary and configuration of `compress(model, recipe, ...)` into the folder `out`."""
    encoder_graph(compressed, recipe).write(out / "encoder.onnx")
    decoder_graph(compressed, recipe).write(out / "decoder.onnx")
    dimensions = model.dimensions
    tokenizer = tokenizer_of(compressed.network)
    rules = rules_of(compressed.network, tokenizer)
    vocabulary = _TokenLines(tokenizer=tokenizer, rules=rules, rows=compressed.vocabulary.rows)
    (out / "tokens.txt.gz").write_bytes(vocabulary.lines())
    config = {
        "format_version": CONFIG_VERSION,
        "model": model.name,
        "recipe_id": recipe.id,
        "n_mels": dimensions.n_mels,
        "n_text_ctx": dimensions.n_text_ctx,
        "window_s": recipe.window_s,
        "language": model.language,
        "alignment_heads": _last_alignment_heads(recipe, compressed),
        "tokens": vocabulary.special_tokens(multilingual=dimensions.is_multilingual),
    }
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _last_alignment_heads(recipe: Recipe, compressed: Compressed) -> list[int]:
    """Heads of the last layer that follow the timing of words; none where none is known."""
    network = compressed.network
    last = len(network.decoder.blocks) - 1
    return [head for layer, head in alignment_heads(recipe, network) if layer == last]


@dataclass(frozen=True, kw_only=True)
class _TokenLines:
    """The artifact's own vocabulary. `rows`: (n_vocab,), the row of each of the tokenizer's ids, -1 for none."""

    tokenizer: Tokenizer
    rules: DecodingRules
    rows: Tensor

    def lines(self) -> bytes:
        """One line per row of the embedding: its bytes in base64, nothing for special tokens; compressed."""
        texts = text_tokens(self.tokenizer)
        kept = (self.rows >= 0).nonzero().flatten().tolist()
        lines = [base64.b64encode(texts[token]).decode() if token < len(texts) else "" for token in kept]
        return gzip.compress("\n".join(lines).encode() + b"\n", mtime=0)

    def special_tokens(self, *, multilingual: bool) -> dict[str, Any]:
        """Rows that mean something to the decoder, and those that `whisper.decode` never chooses."""
        tokenizer = self.tokenizer
        languages = zip(tokenizer.all_language_codes, self._kept(tokenizer.all_language_tokens), strict=True)
        return {
            "start": self._row(tokenizer.sot),
            "end": self._row(tokenizer.eot),
            "start_of_previous": self._row(tokenizer.sot_prev),
            "no_speech": self._row(tokenizer.no_speech),
            "no_timestamps": self._row(tokenizer.no_timestamps),
            "transcribe": self._row(tokenizer.transcribe),
            "translate": self._row(tokenizer.translate),
            "begin_suppressed": self._kept(self.rules.begin_suppressed),
            "suppressed": self._kept(self.rules.suppressed),
            "languages": dict(languages) if multilingual else None,
        }

    def _row(self, token: int) -> int:
        return int(self.rows[token])

    def _kept(self, tokens: Sequence[int]) -> list[int]:
        """The rows of those tokens that have one."""
        return [row for token in tokens if (row := self._row(token)) >= 0]
