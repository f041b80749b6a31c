"""Log-mel features of speech, computed once per clip and kept on disk."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from whisper.audio import N_FRAMES, log_mel_spectrogram, pad_or_trim
from whisper.version import __version__ as whisper_version

from common.files import cache_folder, sha256_of_file, whole_file
from evaluators.audio import read_audio
from evaluators.speech_set import Utterance


class CachedFeatures:
    """Whisper's log-mel spectrograms, kept in `folder` (default: the project's cache) under the audio's digest.

    The digest of a file is taken once per instance: audio must not change while one is in use.
    """

    def __init__(self, *, n_mels: int, folder: Path | None = None) -> None:
        self.n_mels = n_mels
        self._folder = cache_folder("mel") if folder is None else folder
        self._entries: dict[Path, Path] = {}

    def mel(self, utterance: Utterance) -> Tensor:
        """The clip padded with silence to 30 s: float32 (n_mels, 3000), exactly as openai-whisper computes it."""
        entry = self._entry(utterance.audio)
        stored = _load(entry, (self.n_mels, N_FRAMES))
        if stored is None:
            audio = torch.from_numpy(read_audio(utterance.audio))
            stored = log_mel_spectrogram(pad_or_trim(audio), self.n_mels).numpy()
            with whole_file(entry) as handle:
                np.save(handle, stored)
        return torch.from_numpy(stored)

    def _entry(self, audio: Path) -> Path:
        if audio not in self._entries:
            name = f"{sha256_of_file(audio)}-{self.n_mels}-whisper{whisper_version}.npy"
            self._entries[audio] = self._folder / name
        return self._entries[audio]


def _load(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.float32] | None:
    """The stored spectrogram; None when there is none or it is damaged."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = values.shape == shape and values.dtype == np.float32
    return values if whole else None
