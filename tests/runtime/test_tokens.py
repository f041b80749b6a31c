"""Texts and prompts against openai-whisper's tokenizer."""

import random
from pathlib import Path

import pytest
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from runtime.artifact import Artifact
from runtime.errors import OptionError
from tests.runtime.miniature import tokenizer_of


@pytest.mark.parametrize("name", ["small", "multilingual"])
def test_texts_are_those_of_whisper(request: pytest.FixtureRequest, name: str) -> None:
    network: Whisper = request.getfixturevalue(name)
    vocabulary = Artifact.open(request.getfixturevalue(f"{name}_artifact")).vocabulary
    tokenizer, rng = tokenizer_of(network), random.Random(0)
    assert vocabulary.size == network.dims.n_vocab
    for _ in range(200):
        tokens = rng.sample(range(tokenizer.eot), 20)
        assert vocabulary.text(tokens) == tokenizer.decode(tokens)
    assert vocabulary.text([tokenizer.eot, tokenizer.sot, network.dims.n_vocab - 1]) == ""


@pytest.mark.parametrize("task", ["transcribe", "translate"])
@pytest.mark.parametrize("language", ["en", "de", "su"])
def test_prompts_are_those_of_whisper(multilingual_artifact: Path, language: str, task: str) -> None:
    vocabulary = Artifact.open(multilingual_artifact).vocabulary
    expected = get_tokenizer(True, language=language, task=task).sot_sequence_including_notimestamps
    assert (vocabulary.special.start, *vocabulary.prompt(language=language, task=task)) == expected


def test_the_prompt_of_an_english_model(small_artifact: Path) -> None:
    vocabulary = Artifact.open(small_artifact).vocabulary
    expected = get_tokenizer(False).sot_sequence_including_notimestamps
    assert (vocabulary.special.start, *vocabulary.prompt(language="en", task="transcribe")) == expected


@pytest.mark.parametrize(
    ("artifact", "language", "task", "message"),
    [
        ("small", "de", "transcribe", "English-only model does not know the language 'de'. Known: en$"),
        ("small", None, "translate", "cannot translate"),
        ("small", "en", "sing", "unknown task 'sing'. Known: transcribe, translate"),
        ("multilingual", "dee", "transcribe", "does not know the language 'dee'. Did you mean 'de'?"),
    ],
)
def test_what_the_model_cannot_do_is_said(
    request: pytest.FixtureRequest, artifact: str, language: str | None, task: str, message: str
) -> None:
    vocabulary = Artifact.open(request.getfixturevalue(f"{artifact}_artifact")).vocabulary
    with pytest.raises(OptionError, match=message):
        vocabulary.check(language=language, task=task)
