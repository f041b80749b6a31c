"""The log-mel spectrogram against openai-whisper's."""

import numpy as np
import pytest
import whisper

from runtime.audio import Floats
from runtime.mel import WINDOW_SAMPLES, log_mel, mel_filters
from tests.runtime.conftest import tensor


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_are_those_that_whisper_ships(n_mels: int) -> None:
    np.testing.assert_allclose(mel_filters(n_mels), whisper.audio.mel_filters("cpu", n_mels).numpy(), atol=1e-8)


def signals(clips: list[Floats]) -> list[Floats]:
    rng = np.random.default_rng(0)
    lengths = (1, 150, 200, 201, 16_000, 479_799, 479_900, WINDOW_SAMPLES)
    noises = [rng.normal(0, 0.1, length).astype(np.float32) for length in lengths]
    return [*clips, np.concatenate(clips * 2)[:WINDOW_SAMPLES], np.zeros(1000, np.float32), *noises]


@pytest.mark.parametrize("n_mels", [80, 128])
def test_spectrogram_is_that_of_whisper(clips: list[Floats], n_mels: int) -> None:
    for samples in signals(clips):
        expected = whisper.log_mel_spectrogram(whisper.pad_or_trim(tensor(samples)), n_mels).numpy()
        mel = log_mel(samples, n_mels)
        assert (mel.shape, mel.dtype) == ((n_mels, 3000), np.float32)
        np.testing.assert_allclose(mel, expected, atol=1e-4, rtol=0)
        assert np.abs(mel - expected).mean() < 1e-6


def test_more_than_30_s_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 480000 samples"):
        log_mel(np.zeros(WINDOW_SAMPLES + 1, np.float32), 80)
