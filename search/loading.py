"""Models, speech and threads as commands and runs want them, checked before anything long begins."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch

from common.errors import InputError
from compression.recipe.dimensions import VOCABULARIES
from compression.whisper.compute import CPU, compute_device, name_of
from compression.whisper.load import LoadedModel, load_model
from evaluators.speech.language import known_languages
from evaluators.speech.noisy_speech import Mixing, with_noise
from evaluators.speech.speech_set import SpeechSet, load_speech_set
from runtime.cores import usable_cores

Say = Callable[[str], None]
"""Tells the user what is going on."""


def open_model(name_or_path: str, say: Say, compute: str = "cpu") -> LoadedModel:
    """`load_model` of what can also transcribe, which says what it left out; it computes where `--compute` says.

    Raises InputError as that does, and `compute_device`.
    """
    device = compute_device(compute)
    model = load_model(name_or_path)
    if model.dimensions.n_vocab not in VOCABULARIES:
        raise InputError(
            f"{name_or_path} cannot transcribe: its {model.dimensions.n_vocab} tokens are none of Whisper's "
            f"vocabularies {VOCABULARIES}"
        )
    if model.note:
        say(f"Note: {model.note}")
    if device == CPU:
        return model
    say(f"Computing on {name_of(device)}")
    return model.on(device)


def load_speech(  # noqa: PLR0913 - what speech sets can be told
    path: Path,
    model: LoadedModel,
    *,
    language: str | None,
    skip_broken: bool,
    mixing: Mixing | None = None,
    is_transcribed: bool = True,
) -> SpeechSet:
    """A speech set in languages that a model knows, with noise if asked."""
    speech = load_speech_set(
        path,
        language=language,
        known_languages=known_languages(model.dimensions),
        default_language=model.language,
        skip_broken=skip_broken,
        is_transcribed=is_transcribed,
    )
    for note in speech.notes:
        print(f"note: {note}", file=sys.stderr)
    return with_noise(speech, mixing)


def use_threads(threads: int | None) -> None:
    """Let torch use so many threads; by default one per core that this process may use."""
    torch.set_num_threads(threads or usable_cores())
