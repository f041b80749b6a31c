"""Whisper's vocabulary in the forms that other runtimes want it; openai-whisper ships it, so no network is needed."""

from collections.abc import Mapping
from typing import Any

from whisper.model import Whisper
from whisper.tokenizer import Tokenizer, get_tokenizer

from runtime.byte_pairs import byte_pair_pieces

_VISIBLE = (*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1))
_HIDDEN = tuple(byte for byte in range(256) if byte not in _VISIBLE)
_SPELLING = {byte: chr(256 + index) for index, byte in enumerate(_HIDDEN)}
"""GPT-2's characters for bytes that are not visible in Latin-1 (openai/gpt-2, src/encoder.py)."""


def tokenizer_of(network: Whisper, language: str | None = None) -> Tokenizer:
    """openai-whisper's own tokenizer for the network's vocabulary; it caches them.

    `sot_sequence_including_notimestamps` is the prompt to transcribe the language, by default English. English-only
    networks ignore it.
    """
    return get_tokenizer(network.is_multilingual, num_languages=network.num_languages, language=language)


def text_tokens(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of every token that stands for text; its position is its id. The special tokens follow."""
    return [tokenizer.encoding.decode_single_token_bytes(token) for token in range(tokenizer.eot)]


def printable(token: bytes) -> str:
    """GPT-2's spelling of a byte string: one visible character for every byte."""
    return token.decode("latin-1").translate(_SPELLING)


def all_tokens(tokenizer: Tokenizer) -> list[str]:
    """Every token, special ones by their openai-whisper names, in the order of their ids."""
    specials = sorted(tokenizer.special_tokens, key=tokenizer.special_tokens.__getitem__)
    return [*map(printable, text_tokens(tokenizer)), *specials]


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The vocabulary in the format of Hugging Face's `tokenizers`: the same byte pair encoding."""
    tokens = text_tokens(tokenizer)
    ranks = {token: rank for rank, token in enumerate(tokens)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    specials = sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": token, "content": name, **flags} for name, token in specials],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": {printable(token): rank for token, rank in ranks.items()},
            "merges": [" ".join(map(printable, _halves(token, ranks))) for token in tokens if len(token) > 1],
        },
    }


def _halves(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """The two tokens that byte pair encoding merges last when it makes `token`.

    tiktoken stores only the ranks of the results; the merges follow by encoding each token with lower ranks.
    """
    return byte_pair_pieces(token, ranks, below=ranks[token])
