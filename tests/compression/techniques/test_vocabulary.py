"""Which tokens stay: against the words one by one, against bytes, and on the network."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import wordfreq
from whisper.tokenizer import get_tokenizer

from common.errors import CompressionError, InputError
from compression.calibration.calibration import Calibration
from compression.compress import compress
from compression.recipe.recipe import Recipe
from compression.techniques import vocabulary
from compression.techniques.compressed import Compressed
from compression.techniques.vocabulary import CAPITALISED, check_words, has_words, kept_tokens
from compression.whisper.load import LoadedModel
from compression.whisper.tokenizer import text_tokens
from tests.networks import random_network
from tests.strategies import small_dimensions

ENGLISH, MULTILINGUAL, LARGE = (small_dimensions(layers=1, state=64, vocabulary=size) for size in (51864, 51865, 51866))


def model_of(dimensions) -> LoadedModel:
    torch.manual_seed(0)
    network = random_network(dimensions)
    return LoadedModel(name="random", digest="0", dimensions=dimensions, stored_bits=32, network=network)


MODELS = {dimensions.n_vocab: model_of(dimensions) for dimensions in (ENGLISH, MULTILINGUAL, LARGE)}


def calibration(*said: int) -> Calibration:
    return Calibration(
        inputs={},
        importances={},
        gradient_squares={},
        layer_importance={},
        token_counts=np.bincount(said, minlength=51866),
    )


def shorter(model: LoadedModel, tokens: int, language: str) -> Recipe:
    original = Recipe.original(model.dimensions, stored_bits=32)
    return replace(original, vocabulary=tokens, vocabulary_language=language)


def kept(size: int, tokens: int, language: str, *said: int) -> list[int]:
    model = MODELS[size]
    return kept_tokens(model.network, shorter(model, tokens, language), calibration(*said)).tolist()


@pytest.mark.parametrize("size", MODELS)
@pytest.mark.parametrize("language", ["en", "de+en", "ja", "zh"])
def test_as_many_stay_as_the_recipe_says_and_every_byte_and_special_token(size, language):
    found = kept(size, 1024, language)
    dimensions, tokenizer = MODELS[size].dimensions, get_tokenizer(size > 51864, num_languages=99 + (size == 51866))
    assert found == sorted(set(found))
    assert len(found) == dimensions.embedding_rows(1024)
    assert sum(token < tokenizer.eot for token in found) == 1024
    texts = text_tokens(tokenizer)
    assert {bytes([byte]) for byte in range(256)} <= {texts[token] for token in found if token < tokenizer.eot}
    special = set(tokenizer.special_tokens.values())
    later = set(range(tokenizer.timestamp_begin + 1, dimensions.n_vocab))
    assert special - later <= set(found)
    assert not later & set(found)
    assert set(tokenizer.encode(" 7 42 . , ? 1999")) - set(found) <= set(tokenizer.encode(" 1999"))


def test_any_text_can_be_said():
    tokenizer = get_tokenizer(True)
    texts = text_tokens(tokenizer)
    byte_tokens = {texts[token]: token for token in kept(51865, 1024, "de") if token < tokenizer.eot}
    for text in ("plain", " Grüße, 東京!", "🎵\u200b\0"):
        spelled = [byte_tokens[bytes([byte])] for byte in text.encode()]
        assert tokenizer.decode(spelled) == text


@pytest.mark.parametrize("language", ["en", "de"])
def test_tokens_stay_in_the_order_of_their_words_one_by_one(language, monkeypatch):
    """A second implementation, word by word, with its own idea of a name; for frequent words only."""
    monkeypatch.setattr(vocabulary, "RAREST", 1e-5)
    monkeypatch.setattr(vocabulary, "_needs", vocabulary._needs.__wrapped__)
    size = 51864 if language == "en" else 51865
    tokenizer = get_tokenizer(size > 51864)
    needs: dict[int, float] = {}
    for word, frequency in wordfreq.get_frequency_dict(language).items():
        if frequency < 1e-5:
            continue
        small, capital = tokenizer.encode(f" {word}"), tokenizer.encode(f" {word.capitalize()}")
        is_name = len(capital) == 1 and len(small) > 1
        for tokens, weight in ((small, 0.0 if is_name else 1.0), (capital, 1.0 if is_name else CAPITALISED)):
            for token in tokens:
                needs[token] = needs.get(token, 0.0) + weight * frequency
    found = kept(size, 3000, language)
    long = (token for token in found if token < tokenizer.eot and len(tokenizer.decode([token]).strip()) > 2)
    least = min(needs.get(token, 0.0) for token in long)
    missing = [token for token, need in needs.items() if need > least * (1 + 1e-9) and token not in set(found)]
    assert least > 0
    assert missing == []


def test_shorter_vocabularies_are_parts_of_longer_ones():
    sizes = [set(kept(51865, tokens, "de", 40000, 40000, 40001)) for tokens in (1024, 5000, 20000)]
    assert sizes[0] < sizes[1] < sizes[2]


def test_what_calibration_speech_says_stays():
    rare = get_tokenizer(True).encode(" Пожалуйста")
    assert not set(rare) <= set(kept(51865, 4096, "de"))
    assert set(rare) <= set(kept(51865, 4096, "de", *rare))


def test_several_languages_are_all_served():
    both, tokenizer = set(kept(51865, 8192, "de+en")), get_tokenizer(True)
    for text in (" the weather", " und nicht"):
        assert set(tokenizer.encode(text)) <= both
    assert not set(tokenizer.encode(" und nicht")) <= set(kept(51865, 1024, "en"))


def test_languages_without_spaces_need_no_spaces():
    tokenizer = get_tokenizer(True)
    assert set(tokenizer.encode("日本")) <= set(kept(51865, 4096, "ja"))


def test_languages_of_which_no_words_are_known():
    assert has_words("en")
    assert has_words("de+no")  # whose list wordfreq calls nb
    assert not has_words("yo")
    assert not has_words("de+yo")
    assert has_words("zh")
    for unknown in ("yo", "nb", "xx", "de+", "EN"):
        with pytest.raises(
            InputError, match=f"vocabulary_language '{re.escape(unknown)}': there is no list of its words"
        ):
            check_words(unknown)
    with pytest.raises(InputError, match="vocabulary_language 'yo': there is no list of its words, only for ar, "):
        kept(51865, 4096, "yo")


def test_without_the_extra_no_words_are_known(monkeypatch):
    monkeypatch.setattr("compression.techniques.vocabulary.find_spec", lambda package: None)
    assert not has_words("en")
    with pytest.raises(
        InputError, match=r"'en': lists of words are not installed: pip install 'whisperfit\[voc"
    ) as told:
        check_words("en")
    assert "\n" not in str(told.value)


def test_the_lists_are_imported_when_they_are_needed():
    code = "import sys, compression.compress, compression.techniques.vocabulary; print('wordfreq' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_the_network_has_the_rows_that_stay():
    model = MODELS[51864]
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    recipe = shorter(model, 2048, "en")
    compressed = compress(model, recipe, calibration())
    network, ids, rows = compressed.network, compressed.vocabulary.ids, compressed.vocabulary.rows
    assert ids.tolist() == kept(51864, 2048, "en")
    assert torch.equal(network.decoder.token_embedding.weight, model.network.decoder.token_embedding.weight[ids])
    assert torch.equal(rows[ids], torch.arange(len(ids)))
    assert (rows >= 0).sum() == len(ids)
    assert network.state_dict().keys() == before.keys()
    assert network.dims == model.network.dims
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    vocabulary = Compressed.original(model.network).vocabulary
    assert torch.equal(vocabulary.ids, torch.arange(51864))
    assert torch.equal(vocabulary.rows, torch.arange(51864))


def test_logits_are_the_originals_of_the_tokens_that_stay():
    model = MODELS[51864]
    compressed = compress(model, shorter(model, 2048, "en"), calibration())
    network, vocabulary = compressed.network, compressed.vocabulary
    features = torch.randn(1, 50, 64, generator=torch.Generator().manual_seed(1))
    prompt = torch.tensor([[50257, 50362, 262]])
    with torch.inference_mode():
        expected = model.network.decoder(prompt, features)[..., vocabulary.ids]
        found = network.decoder(vocabulary.rows[prompt], features)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_without_calibration_speech_nothing_is_chosen():
    model = MODELS[51864]
    with pytest.raises(CompressionError, match="shorter vocabulary needs calibration speech"):
        compress(model, shorter(model, 2048, "en"))
