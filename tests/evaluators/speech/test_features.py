"""Features are openai-whisper's, and a cached entry is as good as a new one."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from whisper.audio import log_mel_spectrogram, pad_or_trim

from evaluators.speech import speech_set
from evaluators.speech.audio import read_audio
from evaluators.speech.features import CachedFeatures
from evaluators.speech.speech_set import SpeechSet, Utterance


@pytest.fixture
def utterance(sample: SpeechSet, tmp_path: Path) -> Utterance:
    original = sample.utterances[0]
    return replace(original, audio=Path(shutil.copy(original.audio, tmp_path / "clip.flac")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mel").mkdir()
    return tmp_path / "mel"


def refuse(path: Path) -> None:
    raise RuntimeError(f"{path} was read again")


@pytest.mark.parametrize("n_mels", [80, 128])
def test_features_are_whispers(utterance: Utterance, folder: Path, n_mels: int) -> None:
    expected = log_mel_spectrogram(pad_or_trim(torch.from_numpy(read_audio(utterance.audio))), n_mels)
    for _ in range(2):
        assert torch.equal(CachedFeatures(n_mels=n_mels, folder=folder).mel(utterance), expected)


def test_audio_is_read_once(utterance: Utterance, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = CachedFeatures(n_mels=80, folder=folder).mel(utterance)
    monkeypatch.setattr(speech_set, "read_audio", refuse)
    assert torch.equal(CachedFeatures(n_mels=80, folder=folder).mel(utterance), first)
    with pytest.raises(RuntimeError, match="read again"):
        CachedFeatures(n_mels=128, folder=folder).mel(utterance)


def test_other_audio_under_the_same_name_is_another_entry(
    utterance: Utterance, sample: SpeechSet, folder: Path
) -> None:
    first = CachedFeatures(n_mels=80, folder=folder).mel(utterance)
    shutil.copy(sample.utterances[1].audio, utterance.audio)
    assert not torch.equal(CachedFeatures(n_mels=80, folder=folder).mel(utterance), first)


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "shape", "header", "archive"])
def test_a_damaged_entry_is_computed_again(utterance: Utterance, folder: Path, damage: str) -> None:
    expected = CachedFeatures(n_mels=80, folder=folder).mel(utterance)
    (entry,) = folder.iterdir()
    if damage == "shape":
        np.save(entry, np.zeros((80, 2999), dtype=np.float32))
    elif damage == "archive":
        entry.write_bytes(b"PK\x03\x04")
    else:
        content = entry.read_bytes()
        entry.write_bytes(
            {
                "empty": b"",
                "truncated": content[:-1],
                "text": b"no array",
                "header": content.replace(b"(80,", b"(80((", 1),
            }[damage]
        )
    assert torch.equal(CachedFeatures(n_mels=80, folder=folder).mel(utterance), expected)
    assert torch.equal(torch.from_numpy(np.load(entry)), expected)
    assert list(folder.iterdir()) == [entry]
