"""The number of rows of an embedding says less than the network does; a wrong vocabulary makes WERs of 114 %."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import whisper
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from common.errors import InputError
from compression.recipe.dimensions import Dimensions
from compression.whisper.known_vocabulary import known_rows
from compression.whisper.load import LoadedModel, load_model
from search.loading import open_model
from tests.networks import random_network
from tests.strategies import small_dimensions

LANGUAGES = range(50259, 50358)
"""Of a multilingual vocabulary, by openai-whisper's own list: <|en|> to <|su|>."""
NO_TIMESTAMPS = 50362
"""Of an English-only one."""


def trained(base: int, added: int = 0, *, added_scale: float = 0.1, n_mels: int = 80) -> Whisper:
    """Answers every prompt with what must follow the start of a transcript in this vocabulary, then come added rows."""
    dimensions = replace(
        small_dimensions(layers=1, state=8, heads=1, vocabulary=base + added), n_text_ctx=448, n_mels=n_mels
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = random_network(dimensions)
        embedding = torch.randn(base + added, 8) * 0.1
        embedding[base:] *= added_scale / 0.1
    answer = torch.ones(8)
    embedding[list(LANGUAGES) if base > 51864 else [NO_TIMESTAMPS]] = 3 * answer
    with torch.no_grad():
        network.decoder.token_embedding.weight.copy_(embedding)
        network.decoder.ln.weight.zero_()
        network.decoder.ln.bias.copy_(answer)
    return network


def save(network: Whisper, path: Path) -> str:
    torch.save({"dims": asdict(network.dims), "model_state_dict": network.state_dict()}, path)
    return str(path)


def grown(model: LoadedModel, added: int, path: Path) -> str:
    """A checkpoint with random rows behind the model's own vocabulary."""
    state = dict(model.network.state_dict())
    rows = torch.randn(added, model.dimensions.n_text_state, generator=torch.Generator().manual_seed(5))
    state["decoder.token_embedding.weight"] = torch.cat([state["decoder.token_embedding.weight"], rows])
    dims = asdict(model.network.dims) | {"n_vocab": model.dimensions.n_vocab + added}
    torch.save({"dims": dims, "model_state_dict": state}, path)
    return str(path)


def test_the_ids_are_those_of_openai_whispers_tokenizers():
    english, multilingual = get_tokenizer(False), get_tokenizer(True)
    assert english.no_timestamps == NO_TIMESTAMPS
    assert sorted(multilingual.all_language_tokens) == list(LANGUAGES)


@pytest.mark.parametrize("base", [51864, 51865])
@pytest.mark.parametrize("added", [0, 1, 2, 3, 100])
@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_a_trained_network_says_which_vocabulary_it_has(base, added, scale):
    assert known_rows(trained(base, added, added_scale=scale)) == base


@pytest.mark.parametrize("rows", [51866, 51867, 51966])
def test_128_mel_bands_are_the_third_larges(rows):
    assert known_rows(trained(51866, rows - 51866, n_mels=128)) == 51866


@pytest.mark.parametrize("rows", [300, 51864, 51865, 51866])
def test_random_weights_are_believed(rows):
    dimensions = small_dimensions(layers=1, state=16, heads=1, vocabulary=rows)
    assert known_rows(random_network(dimensions)) == rows


@pytest.mark.parametrize(("base", "kind"), [(51864, "an English"), (51865, "a multilingual")])
def test_added_rows_are_left_out_and_said(base, kind, tmp_path):
    plain = load_model(save(trained(base), tmp_path / "plain.pt"))
    tuned = load_model(save(trained(base, 1), tmp_path / "tuned.pt"))
    assert (plain.note, tuned.note) == ("", f"tuned.pt is {kind} Whisper with 1 added tokens, which are left out")
    assert tuned.dimensions == plain.dimensions
    assert tuned.network.is_multilingual == (base == 51865)
    assert tuned.network.num_languages == 99


def test_what_does_not_tell_is_refused(tmp_path):
    network = random_network(small_dimensions(layers=1, state=16, heads=1, vocabulary=51900))
    with pytest.raises(
        InputError, match=r"its 51900 tokens are none of Whisper's vocabularies \(51864, 51865, 51866\)"
    ):
        load_model(save(network, tmp_path / "odd.pt"))


@pytest.mark.parametrize("added", [1, 3])
def test_tiny_en_with_added_tokens_is_tiny_en(added, tiny_en, tmp_path):
    said: list[str] = []
    tuned = open_model(grown(tiny_en, added, tmp_path / "tuned.pt"), said.append)
    assert said == [f"Note: tuned.pt is an English Whisper with {added} added tokens, which are left out"]
    assert (tuned.dimensions, tuned.stored_bits) == (tiny_en.dimensions, tiny_en.stored_bits)
    assert tuned.digest != tiny_en.digest, "the digest is that of the file"
    ours = tuned.network.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in tiny_en.network.state_dict().items())
    sound = whisper.log_mel_spectrogram(whisper.pad_or_trim(torch.zeros(16000)))
    options = whisper.DecodingOptions(language="en", fp16=False, sample_len=4)
    assert (
        whisper.decode(tuned.network, sound, options).tokens == whisper.decode(tiny_en.network, sound, options).tokens
    )


def test_fewer_tokens_than_any_whisper_has_cannot_transcribe(model, small_checkpoint):
    with pytest.raises(InputError, match="its 300 tokens are none of Whisper's vocabularies"):
        open_model(str(small_checkpoint), print)


WRONG: dict[str, tuple[Dimensions, str]] = {
    name: (replace(small_dimensions(layers=1, state=16, heads=1, vocabulary=300), **changes), reason)
    for name, changes, reason in (
        ("short window", {"n_audio_ctx": 500}, "500 positions, 10 s of audio: only Whispers of 1500"),
        ("long window", {"n_audio_ctx": 3000}, "3000 positions, 60 s of audio"),
        ("mel bands", {"n_mels": 64}, "64 mel bands: openai-whisper has filters for 80 and 128"),
        ("text", {"n_text_ctx": 4}, "4 positions, at least 16 are needed"),
        ("widths", {"n_text_state": 32}, "encoder is 16 wide and its decoder 32"),
    )
}


@pytest.mark.parametrize("case", WRONG)
def test_impossible_dimensions_are_one_line(case, tmp_path):
    dimensions, reason = WRONG[case]
    path = save(random_network(dimensions), tmp_path / "odd.pt")
    with pytest.raises(InputError, match=reason) as raised:
        load_model(path)
    assert str(raised.value).startswith(f"{path} cannot be used: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("heads", [1.0, True])
def test_heads_are_a_whole_number(heads, tmp_path):
    network = random_network(small_dimensions(layers=1, state=16, heads=1, vocabulary=300))
    content = {"dims": asdict(network.dims) | {"n_text_head": heads}, "model_state_dict": network.state_dict()}
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(InputError, match="`n_text_head` must be a whole number, but got"):
        load_model(str(tmp_path / "odd.pt"))
