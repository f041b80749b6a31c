"""Mixing against the definition of the ratio, and what an utterance gets against draws of its own."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from evaluators.speech.audio import SAMPLE_RATE, read_audio
from evaluators.speech.features import CachedFeatures
from evaluators.speech.noise import AddedNoise, Samples, mix
from evaluators.speech.noisy_speech import Mixing, noise_files, with_noise
from evaluators.speech.speech_set import SpeechSet, load_speech_set


def hum(seconds: float, *, seed: int, level: float = 0.05) -> Samples:
    return np.random.default_rng(seed).normal(0, level, round(seconds * SAMPLE_RATE)).astype(np.float32)


def decibels(speech: Samples, noise: Samples) -> float:
    return float(10 * np.log10(np.mean(speech.astype(np.float64) ** 2) / np.mean(noise.astype(np.float64) ** 2)))


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A folder with two noises of half a second and of a minute."""
    folder = tmp_path / "noise"
    folder.mkdir()
    soundfile.write(folder / "short.wav", hum(0.5, seed=1), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(folder / "long.flac", hum(60, seed=2), SAMPLE_RATE)
    return folder


@given(
    snr_db=st.floats(-20, 40),
    levels=st.tuples(st.floats(1e-3, 0.3), st.floats(1e-4, 0.3)),
    samples=st.integers(1600, 4000),
)
def test_the_ratio_is_the_one_asked_for(snr_db: float, levels: tuple[float, float], samples: int) -> None:
    speech, noise = (hum(1, seed=seed, level=level)[:samples] for seed, level in enumerate(levels))
    mixed = mix(speech, noise, snr_db=snr_db).astype(np.float64)
    # the parts again, by least squares: mixed = a speech + b noise
    (a, b), residual, *_ = np.linalg.lstsq(np.stack([speech, noise], axis=1).astype(np.float64), mixed, rcond=None)
    assert residual.sum() < 1e-9
    assert decibels(a * speech, b * noise) == pytest.approx(snr_db, abs=0.01)
    assert np.abs(mixed).max() <= 1
    loudest = np.abs(speech + b / a * noise).max()
    assert a == pytest.approx(1 / max(1.0, loudest), rel=1e-4), "as loud as before, or its peak is full scale"


def test_silence_has_no_ratio() -> None:
    silence, sound = np.zeros(100, np.float32), hum(1, seed=0)[:100]
    with pytest.raises(InputError, match="the noise is digital silence"):
        mix(sound, silence, snr_db=10)
    with pytest.raises(InputError, match="the speech is digital silence"):
        mix(silence, sound, snr_db=10)


def test_noise_begins_where_it_is_told_and_goes_on_from_its_beginning(noise: Path) -> None:
    added = AddedNoise(file=noise / "short.wav", sha256="", start=7000, snr_db=0.0)
    speech = hum(2, seed=3)
    repeated = np.tile(hum(0.5, seed=1), 6)[7000 : 7000 + len(speech)]
    np.testing.assert_allclose(added.added_to(speech), mix(speech, repeated, snr_db=0.0), atol=1e-7)


def test_every_utterance_has_a_level_and_the_set_another_digest(sample: SpeechSet, noise: Path) -> None:
    whole = load_speech_set(Path("sample-search"))
    noisy = with_noise(whole, Mixing(noise=noise, levels_db=(20.0, 5.0, None)))
    assert noisy.name == "sample-search with noise at 20 dB, 5 dB, clean"
    assert noisy.digest != whole.digest
    shares = Counter(utterance.noise.snr_db if utterance.noise else None for utterance in noisy.utterances)
    assert set(shares) == {20.0, 5.0, None}
    assert min(shares.values()) >= 4
    for before, after in zip(whole.utterances, noisy.utterances, strict=True):
        assert (after.id, after.text, after.audio) == (before.id, before.text, before.audio)
        if after.noise:
            added = after.samples() - before.samples()
            assert decibels(before.samples(), added) == pytest.approx(after.noise.snr_db, abs=0.01)
            assert after.noise_level == f"{after.noise.snr_db:g} dB"
        else:
            assert np.array_equal(after.samples(), before.samples())
            assert after.noise_level == before.noise_level


def test_an_utterance_is_mixed_the_same_in_every_set(sample: SpeechSet, noise: Path) -> None:
    mixing = Mixing(noise=noise, levels_db=(20.0, 5.0))
    alone = replace(sample, utterances=sample.utterances[2:3])
    assert with_noise(alone, mixing).utterances == with_noise(sample, mixing).utterances[2:3]
    other = with_noise(sample, Mixing(noise=noise, levels_db=(3.0,)))
    for one, two in zip(with_noise(sample, mixing).utterances, other.utterances, strict=True):
        assert one.noise
        assert two.noise
        assert (one.noise.file, one.noise.start) == (two.noise.file, two.noise.start), "only louder"


def test_the_digest_follows_what_is_heard(sample: SpeechSet, noise: Path, tmp_path: Path) -> None:
    def digest(folder: Path, *levels: float | None) -> str:
        return with_noise(sample, Mixing(noise=folder, levels_db=levels)).digest

    first = digest(noise, 10.0)
    elsewhere = noise.rename(tmp_path / "moved")
    assert digest(elsewhere, 10.0) == first
    assert digest(elsewhere, 9.0) != first
    other = tmp_path / "other"
    other.mkdir()
    for name, seed in (("short.wav", 8), ("long.flac", 9)):
        soundfile.write(other / name, hum(3, seed=seed), SAMPLE_RATE)
    assert digest(other, 10.0) != first
    assert with_noise(sample, None) is sample


def test_features_of_noisy_speech_are_entries_of_their_own(sample: SpeechSet, noise: Path, tmp_path: Path) -> None:
    utterances = [
        sample.utterances[0],
        *(with_noise(sample, Mixing(noise=noise, levels_db=(level,))).utterances[0] for level in (10.0, 0.0)),
    ]
    (tmp_path / "mel").mkdir()
    features = CachedFeatures(n_mels=80, folder=tmp_path / "mel")
    mels = [features.mel(utterance) for utterance in utterances]
    assert not torch.equal(mels[0], mels[1])
    assert not torch.equal(mels[1], mels[2])
    assert len(list((tmp_path / "mel").iterdir())) == 3
    again = CachedFeatures(n_mels=80, folder=tmp_path / "mel")
    assert all(torch.equal(again.mel(one), mel) for one, mel in zip(utterances, mels, strict=True))


def test_noise_is_a_folder_a_manifest_or_a_file(noise: Path) -> None:
    found = [noise / "long.flac", noise / "short.wav"]
    assert noise_files(noise, option="--noise") == found
    assert noise_files(found[0], option="--noise") == found[:1]
    manifest = noise / "manifest.jsonl"
    manifest.write_text(json.dumps({"audio": "short.wav", "text": None}) + "\n", encoding="utf-8")
    assert noise_files(manifest, option="--noise") == noise_files(noise, option="--noise") == found[1:]


def test_broken_noise_is_told(noise: Path, tmp_path: Path, sample: SpeechSet) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jsonl").write_text("{}\n", encoding="utf-8")
    soundfile.write(tmp_path / "silence.wav", np.zeros(1600), SAMPLE_RATE)
    (noise / "cut.wav").write_bytes((noise / "short.wav").read_bytes()[:-100])
    for path, complaint in (
        (tmp_path / "missing", "--noise .*missing does not exist"),
        (tmp_path / "empty", "has no audio"),
        (tmp_path / "broken.jsonl", "line 1: states no audio file"),
        (noise, "cut.wav is truncated"),
        (tmp_path / "silence.wav", f"utterance {sample.utterances[0].id} with silence.wav .*noise is digital silence"),
    ):
        with pytest.raises(InputError, match=complaint):
            with_noise(sample, Mixing(noise=path, levels_db=(10.0,)))


@pytest.mark.parametrize(
    ("text", "levels"), [("10", (10.0,)), ("20, 7.5,clean", (20.0, 7.5, None)), ("-5", (-5.0,)), ("Clean", (None,))]
)
def test_levels_are_decibels_or_clean(text: str, levels: tuple[float | None, ...]) -> None:
    assert Mixing.parse(Path("noise"), text) == Mixing(noise=Path("noise"), levels_db=levels)


@pytest.mark.parametrize("text", ["121", "20,-1000", "1e9"])
def test_levels_beyond_hearing_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="decibels lie between -120 and 120"):
        Mixing.parse(Path("noise"), text)


@pytest.mark.parametrize("text", ["", "loud", "10,,5", "inf", "nan", "10 dB"])
def test_other_levels_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="write decibels, or several"):
        Mixing.parse(Path("noise"), text)


def test_noise_needs_a_level_and_a_level_noise() -> None:
    assert Mixing.parse(None, None) is None
    with pytest.raises(InputError, match="give --snr-db, such as 10, too"):
        Mixing.parse(Path("noise"), None)
    with pytest.raises(InputError, match="give --noise .*, too"):
        Mixing.parse(None, "10")


@pytest.mark.shared
def test_real_noise(shared_speech: Path) -> None:
    speech = load_speech_set(shared_speech / "splits" / "commands_confirm.jsonl")
    noisy = with_noise(speech, Mixing(noise=shared_speech / "noise", levels_db=(10.0,)))
    assert len({utterance.noise.file for utterance in noisy.utterances if utterance.noise}) > 5
    for utterance in noisy.utterances:
        speech_in = read_audio(utterance.audio)
        if np.abs(utterance.samples()).max() < 1:
            assert decibels(speech_in, utterance.samples() - speech_in) == pytest.approx(10, abs=0.01)
