"""Encoding text, against the original's tokenizer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.tokenizer import get_tokenizer

from runtime.byte_pairs import encoded

TOKENIZER = get_tokenizer(multilingual=False)
RANKS = {TOKENIZER.encoding.decode_single_token_bytes(token): token for token in range(TOKENIZER.eot)}


@pytest.mark.parametrize(
    "text",
    [" Kletke, D'Artagnan and 3 pirates", " Grüße  aus   Köln!", " 我们", " don't we'll", " a\n\nb ", " snake_case __"],
)
def test_tokens_are_those_of_the_original(text: str) -> None:
    assert encoded(text, RANKS) == TOKENIZER.encoding.encode(text)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_the_tokens_spell_the_text(text: str) -> None:
    spelled = b"".join(TOKENIZER.encoding.decode_single_token_bytes(token) for token in encoded(text, RANKS))
    assert spelled.decode() == text


def test_tokens_that_are_missing_are_never_made() -> None:
    letters = {spelling: rank for spelling, rank in RANKS.items() if len(spelling) == 1}
    assert encoded(" cab", letters) == [letters[letter.encode()] for letter in " cab"]
