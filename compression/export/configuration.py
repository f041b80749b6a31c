"""config.json and tokens.txt.gz: what `runtime` needs of a model besides its graphs; see docs/artifacts.md."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

from compression.export.alignment import alignment_heads
from compression.export.vocabulary import KeptTokens
from compression.recipe.recipe import Recipe
from compression.techniques.compressed import Compressed
from compression.whisper.load import LoadedModel

CONFIG_VERSION = 1


def write_configuration(model: LoadedModel, recipe: Recipe, compressed: Compressed, out: Path) -> None:
    """Write both files of `compress(model, recipe, ...)` into the folder `out`."""
    dimensions, kept = model.dimensions, KeptTokens.of(compressed)
    (out / "tokens.txt.gz").write_bytes(_lines(kept))
    config = {
        "format_version": CONFIG_VERSION,
        "model": model.name,
        "recipe_id": recipe.id,
        "n_mels": dimensions.n_mels,
        "n_text_ctx": dimensions.n_text_ctx,
        "window_s": recipe.window_s,
        "language": model.language,
        "alignment_heads": _last_alignment_heads(recipe, compressed),
        "tokens": _special_tokens(kept, multilingual=dimensions.is_multilingual),
    }
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _last_alignment_heads(recipe: Recipe, compressed: Compressed) -> list[int]:
    """Heads of the last layer that follow the timing of words; none where none is known."""
    network = compressed.network
    last = len(network.decoder.blocks) - 1
    return [head for layer, head in alignment_heads(recipe, network) if layer == last]


def _lines(kept: KeptTokens) -> bytes:
    """One line per row of the embedding: its bytes in base64, nothing for special tokens; compressed."""
    lines = [base64.b64encode(text).decode() for text in kept.texts()]
    return gzip.compress("\n".join(lines).encode() + b"\n", mtime=0)


def _special_tokens(kept: KeptTokens, *, multilingual: bool) -> dict[str, Any]:
    """Rows that mean something to the decoder, and those that `whisper.decode` never chooses."""
    tokenizer = kept.tokenizer
    languages = zip(tokenizer.all_language_codes, kept.kept(tokenizer.all_language_tokens), strict=True)
    return {
        "start": kept.row(tokenizer.sot),
        "end": kept.row(tokenizer.eot),
        "start_of_previous": kept.row(tokenizer.sot_prev),
        "no_speech": kept.row(tokenizer.no_speech),
        "no_timestamps": kept.row(tokenizer.no_timestamps),
        "transcribe": kept.row(tokenizer.transcribe),
        "translate": kept.row(tokenizer.translate),
        "begin_suppressed": kept.begin_suppressed,
        "suppressed": kept.suppressed,
        "languages": dict(languages) if multilingual else None,
    }
