"""Which tokens stay where a recipe shortens the vocabulary, and the shorter table of their embeddings.

See docs/decisions/0015-which-tokens-stay.md.
"""

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from whisper.model import Whisper
from whisper.tokenizer import LANGUAGES, get_tokenizer

from common.errors import CompressionError, InputError
from compression.calibration.calibration import Calibration
from compression.recipe.recipe import Recipe
from compression.recipe.spaceless import SPACELESS
from compression.techniques.compressed import Vocabulary
from compression.whisper.tokenizer import text_tokens, tokenizer_of

Needs = NDArray[np.float64]

RAREST = 1e-7
"""Words that are rarer than once in ten million words say nothing about which tokens are needed."""
CAPITALISED = 0.2
"""How often a word is capitalised, against once in small letters, unless it is a name."""
INSTALL = "pip install 'whisperfit[vocabulary]' (in a checkout: pip install -e '.[vocabulary]')"
_LISTS = {"no": "nb", "tl": "fil", "hr": "sh", "bs": "sh"}
"""wordfreq's names for lists of Whisper's languages, where they differ."""


def unknown_words(language: str) -> str | None:
    """Why it is not known which words a language has (`de+en` are two), or None where it is."""
    if find_spec("wordfreq") is None:
        return f"lists of words are not installed: {INSTALL}"
    known = _languages_with_words()
    if set(language.split("+")) <= known:
        return None
    return f"there is no list of its words, only for {', '.join(sorted(known))}"


def has_words(language: str) -> bool:
    """Whether it is known which words a language has."""
    return unknown_words(language) is None


def check_words(language: str) -> None:
    """Raise InputError unless `has_words`."""
    reason = unknown_words(language)
    if reason:
        raise InputError(f"vocabulary_language {language!r}: {reason}")


@lru_cache(maxsize=1)
def _languages_with_words() -> frozenset[str]:
    """Of those that Whisper knows."""
    listed = _word_lists().available_languages()
    return frozenset(code for code in LANGUAGES if _LISTS.get(code, code) in listed)


def _word_lists() -> ModuleType:
    """wordfreq: its lists take 57 MB, and only a shorter vocabulary needs them."""
    return import_module("wordfreq")


def shorten(network: Whisper, recipe: Recipe, calibration: Calibration | None) -> Vocabulary:
    """Leave in place only the rows of the token embedding that the recipe keeps; the tokens that they are.

    Raises InputError when nobody knows the words of its language, CompressionError without calibration speech.
    """
    if not recipe.vocabulary:
        return Vocabulary.whole(network.dims.n_vocab)
    if calibration is None:
        raise CompressionError("a shorter vocabulary needs calibration speech to choose tokens by")
    return keep_embedding_rows(network, kept_tokens(network, recipe, calibration))


def keep_embedding_rows(network: Whisper, kept: Tensor) -> Vocabulary:
    """Leave in place only the rows of these ids (kept,), ascending, of the token embedding."""
    whole = network.decoder.token_embedding.weight.detach()
    weight = whole.index_select(0, kept.to(whole.device))
    network.decoder.token_embedding = nn.Embedding.from_pretrained(weight, freeze=False)
    return Vocabulary.of(kept, size=network.dims.n_vocab)


def kept_tokens(network: Whisper, recipe: Recipe, calibration: Calibration) -> Tensor:
    """The ids that a recipe keeps, ascending: text tokens by need, every special token but the later timestamps."""
    tokenizer, multilingual = tokenizer_of(network), network.is_multilingual
    said = calibration.token_counts[: tokenizer.eot]
    needs = said / max(said.sum(), 1)
    for language in recipe.vocabulary_language.split("+"):
        needs += _needs(language, multilingual=multilingual)
    needs[list(_always(multilingual=multilingual))] = np.inf
    text = np.argsort(-needs, kind="stable")[: recipe.vocabulary]
    special = np.arange(tokenizer.eot, tokenizer.timestamp_begin + 1)
    return torch.from_numpy(np.sort(np.concatenate([text, special])))


@lru_cache(maxsize=8)
def _always(*, multilingual: bool) -> frozenset[int]:
    """Every byte, so that any text can be said, and every sign and short number that may be said."""
    tokenizer = get_tokenizer(multilingual)
    texts, unsaid = text_tokens(tokenizer), set(tokenizer.non_speech_tokens)
    return frozenset(
        token
        for token, text in enumerate(texts)
        if len(text) == 1 or (token not in unsaid and _is_sign_or_number(text.decode("utf-8", errors="replace")))
    )


def _is_sign_or_number(text: str) -> bool:
    """One character that is no letter, or two digits; perhaps behind a space."""
    text = text.removeprefix(" ")
    if len(text) == 2:
        return text.isdecimal()
    return len(text) == 1 and text != "\ufffd" and unicodedata.category(text)[0] not in "LM"


@lru_cache(maxsize=8)
def _needs(language: str, *, multilingual: bool) -> Needs:
    """(text tokens,): how often a word of the language contains each token, by wordfreq's lists of words."""
    check_words(language)
    tokenizer = get_tokenizer(multilingual)
    needs = np.zeros(tokenizer.eot)
    frequencies = _word_lists().get_frequency_dict(_LISTS.get(language, language))
    frequent = ((word, frequency) for word, frequency in frequencies.items() if frequency >= RAREST)
    single = frozenset(text_tokens(tokenizer))
    for frequency, group in groupby(frequent, key=lambda pair: pair[1]):
        words = [word for word, _ in group]
        for text, weight in _spelled(words, single, has_spaces=language not in SPACELESS):
            np.add.at(needs, tokenizer.encoding.encode_ordinary(text), weight * frequency)
    return needs


def _spelled(words: list[str], single: frozenset[bytes], *, has_spaces: bool) -> Iterator[tuple[str, float]]:
    """The words as Whisper writes them, in texts of equal weight.

    wordfreq knows no capitals. A word that is one token when capitalised, but not otherwise, is a name.
    """
    if not has_spaces:
        yield "\n".join(words), 1.0
        return
    names = {w for w in words if f" {w.capitalize()}".encode() in single and f" {w}".encode() not in single}
    common = [word for word in words if word not in names]
    yield _behind_spaces(common), 1.0
    yield _behind_spaces([word.capitalize() for word in common]), CAPITALISED
    yield _behind_spaces([word.capitalize() for word in words if word in names]), 1.0


def _behind_spaces(words: list[str]) -> str:
    return "".join(f" {word}" for word in words)
