"""A speech set as batches."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from common.errors import InputError
from compression.training.batches import Batch
from compression.training.settings import TrainingSettings
from compression.whisper.load import LoadedModel
from evaluators.learning import training_speech
from evaluators.learning.training_speech import TrainingSpeech, training_window_s
from evaluators.speech.features import CachedFeatures
from evaluators.speech.noisy_speech import Mixing, with_noise
from evaluators.speech.speech_set import SpeechSet, load_speech_set
from runtime.window import encoder_window_s
from tests.evaluators.conftest import talkative
from tests.networks import random_network
from tests.strategies import small_dimensions

SETTINGS = TrainingSettings(labels="reference", batch_size=3, held_out=0.2, copies=2)
DIMENSIONS = small_dimensions(layers=1, state=64, heads=1, vocabulary=51864)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    network = talkative(random_network(DIMENSIONS), seed=0)
    return LoadedModel(name="small", digest="0", dimensions=DIMENSIONS, stored_bits=32, network=network)


@pytest.fixture(scope="module")
def speech() -> SpeechSet:
    whole = load_speech_set(Path("sample-search"))
    return replace(whole, utterances=whole.utterances[:12])


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> CachedFeatures:
    return CachedFeatures(n_mels=80, folder=tmp_path_factory.mktemp("mel"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, of a test's own."""
    monkeypatch.setenv("WHISPERFIT_CACHE", str(tmp_path))
    return tmp_path


def keys(batches: Sequence[Batch]) -> list[str]:
    return [clip.key for batch in batches for clip in batch.clips]


def epoch(training: TrainingSpeech, number: int) -> list[Batch]:
    return [training.load(number, indices) for indices in training.plan(number)]


def test_an_epoch_has_every_clip_once_and_no_held_out_one(model, speech, features):
    training = TrainingSpeech(model, speech, SETTINGS, features)
    held_out = keys(training.held_out())
    trained = keys(epoch(training, 0))
    assert len(held_out) == 2
    assert sorted(held_out + trained) == sorted(f"{u.id}/0" for u in speech.utterances)
    assert keys(epoch(training, 1)) != trained
    assert sorted(keys(epoch(training, 2))) == sorted(trained)
    assert all(key.endswith("/1") for key in keys(epoch(training, 1)))
    assert all(len(batch) <= 3 for batch in epoch(training, 0))


def test_the_same_seed_gives_the_same_data_and_another_one_other_data(model, speech, features):
    batches = [
        epoch(TrainingSpeech(model, speech, SETTINGS.model_copy(update={"seed": seed}), features), 1)
        for seed in (0, 0, 1)
    ]
    for first, second in zip(batches[0], batches[1], strict=True):
        assert torch.equal(first.mel, second.mel)
        assert torch.equal(first.tokens, second.tokens)
    assert keys(batches[0]) != keys(batches[2])


def test_copies_are_other_recordings_of_the_same_words(model, speech, features):
    training = TrainingSpeech(model, speech, SETTINGS, features)
    clean, noisy = (
        {clip.key.partition("/")[0]: clip for batch in epoch(training, number) for clip in batch.clips}
        for number in (0, 1)
    )
    for name, clip in clean.items():
        assert torch.equal(clip.tokens, noisy[name].tokens)
        assert not torch.equal(clip.mel, noisy[name].mel)
    by_id = {utterance.id: utterance for utterance in speech.utterances}
    for name, clip in clean.items():
        window = training_window_s(15.0, by_id[name].duration_s)
        assert torch.equal(clip.mel, features.mel(by_id[name])[:, : round(100 * window)])


def test_the_words_are_those_that_are_written(model, speech, features):
    from whisper.tokenizer import get_tokenizer  # noqa: PLC0415 - only here

    tokenizer = get_tokenizer(False)
    training = TrainingSpeech(model, speech, SETTINGS, features)
    texts = {u.id: u.text for u in speech.utterances}
    for batch in epoch(training, 0):
        for clip in batch.clips:
            assert tuple(clip.tokens[: clip.prompt_length]) == tokenizer.sot_sequence_including_notimestamps
            assert int(clip.tokens[-1]) == tokenizer.eot
            words = tokenizer.decode(clip.tokens[clip.prompt_length : -1].tolist()).strip()
            assert words == texts[clip.key.partition("/")[0]]


def test_without_references_the_teacher_says_what_is_learned(model, speech, features, cache):
    few = replace(speech, utterances=speech.utterances[:4], digest="of four")
    settings = SETTINGS.model_copy(update={"labels": "teacher"})
    spoken = epoch(TrainingSpeech(model, few, settings, features), 0)
    again = epoch(TrainingSpeech(model, few, settings, features), 0)
    assert torch.equal(spoken[0].tokens, again[0].tokens)
    assert len(list((cache / "transcripts").iterdir())) == 1
    written = epoch(TrainingSpeech(model, few, SETTINGS, features), 0)
    assert sorted(keys(spoken)) == sorted(keys(written))
    assert not torch.equal(spoken[0].tokens, written[0].tokens)


@pytest.mark.parametrize(("audio_s", "expected"), [(2.0, 15.0), (11.0, 15.0), (11.1, 20.0), (20.0, 25.0), (29.0, 30.0)])
def test_training_windows_are_those_of_evaluations_rounded_up(audio_s, expected):
    assert training_window_s(15.0, audio_s) == expected
    assert training_window_s(15.0, audio_s) >= encoder_window_s(15.0, audio_s)


def test_noise_comes_from_the_folder(model, speech, features, tmp_path):
    soundfile.write(tmp_path / "hum.wav", np.sin(np.arange(16_000) / 5), 16_000)
    hum = SETTINGS.model_copy(update={"noise": tmp_path})
    batches = [epoch(TrainingSpeech(model, speech, settings, features), 1) for settings in (SETTINGS, hum)]
    assert not torch.equal(batches[0][0].mel, batches[1][0].mel)
    (tmp_path / "hum.wav").unlink()
    with pytest.raises(InputError, match="training: noise .* has no audio"):
        TrainingSpeech(model, speech, hum, features)


@pytest.mark.parametrize("noise", ["missing", "empty", "broken"])
def test_noise_that_cannot_be_mixed_in_is_noticed_before_the_teacher_is_heard(model, speech, cache, monkeypatch, noise):
    def refuse(*_: object) -> None:
        raise AssertionError("the teacher was heard first")

    monkeypatch.setattr(training_speech, "pseudo_labelled", refuse)
    for name in ("empty", "broken"):
        (cache / name).mkdir()
    (cache / "broken" / "hum.wav").write_bytes(b"no audio")
    settings = SETTINGS.model_copy(update={"labels": "teacher", "noise": cache / noise})
    with pytest.raises(InputError, match=str(cache / noise)):
        TrainingSpeech(model, speech, settings, CachedFeatures(n_mels=80))


DAMAGES = ["", "{", "[[[1, 2], 1]", "null", "[]", "{}", "[1, 2, 3, 4]", '[["a", 1], [[], 0], [[], 0], [[], 0]]']


@pytest.mark.parametrize("content", [*map(str.encode, DAMAGES), b"\xff\xfe", "cut off"])
def test_damaged_transcripts_are_made_again(model, speech, features, cache, content):
    few = replace(speech, utterances=speech.utterances[:4], digest="of four")
    settings = SETTINGS.model_copy(update={"labels": "teacher"})
    whole = epoch(TrainingSpeech(model, few, settings, features), 0)
    (file,) = (cache / "transcripts").iterdir()
    saved = file.read_bytes()
    file.write_bytes(saved[: len(saved) // 2] if content == "cut off" else content)
    again = epoch(TrainingSpeech(model, few, settings, features), 0)
    assert torch.equal(again[0].tokens, whole[0].tokens)
    assert file.read_bytes() == saved


def test_copies_of_noisy_speech_have_its_noise(model, speech, features, tmp_path):
    """A copy at the same speed, with noise too faint to be heard, is the noisy recording itself."""
    soundfile.write(tmp_path / "hum.wav", np.sin(np.arange(16_000) / 5), 16_000)
    noisy = with_noise(speech, Mixing(noise=tmp_path / "hum.wav", levels_db=(0.0,)))
    settings = SETTINGS.model_copy(update={"speeds": (1.0, 1.0), "snr_db": (120.0, 120.0)})
    by_id = {utterance.id: utterance for utterance in noisy.utterances}
    for clip in (clip for batch in epoch(TrainingSpeech(model, noisy, settings, features), 1) for clip in batch.clips):
        heard = features.mel(by_id[clip.key.partition("/")[0]])[:, : clip.mel.shape[1]]
        torch.testing.assert_close(clip.mel, heard, rtol=0, atol=0.01)


def test_one_utterance_is_too_few(model, speech, features):
    with pytest.raises(InputError, match="1 utterances are too few to train on"):
        TrainingSpeech(model, replace(speech, utterances=speech.utterances[:1]), SETTINGS, features)
