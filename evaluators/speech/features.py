"""Log-mel features of speech, computed once per clip and kept on disk."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from whisper.audio import N_FRAMES, log_mel_spectrogram, pad_or_trim
from whisper.version import __version__ as whisper_version

from common.files import cache_folder, sha256_of_file, sha256_of_text, whole_file
from evaluators.speech.audio import READING_VERSION
from evaluators.speech.cached_files import read_cached
from evaluators.speech.noise import AddedNoise
from evaluators.speech.speech_set import Utterance


class CachedFeatures:
    """Whisper's log-mel spectrograms, kept in `folder` (default: the project's cache) by the digest of what is heard.

    The digest of a file is taken once per instance: audio must not change while one is in use.
    """

    def __init__(self, *, n_mels: int, folder: Path | None = None) -> None:
        self.n_mels = n_mels
        self._folder = cache_folder("mel") if folder is None else folder
        self._entries: dict[tuple[Path, AddedNoise | None], Path] = {}

    def mel(self, utterance: Utterance, *, start: int = 0) -> Tensor:
        """The clip padded with silence to 30 s: float32 (n_mels, 3000), exactly as openai-whisper computes it.

        `start`: the sample that it begins with. Only whole clips are kept on disk.
        """
        if start:
            return self._computed(utterance, start)
        entry = self._entry(utterance)
        stored = read_cached(entry, self._load)
        if stored is None:
            stored = self._computed(utterance, 0).numpy()
            with whole_file(entry) as handle:
                np.save(handle, stored)
        return torch.from_numpy(stored)

    def _computed(self, utterance: Utterance, start: int) -> Tensor:
        audio = torch.from_numpy(utterance.samples()[start:])
        return log_mel_spectrogram(pad_or_trim(audio), self.n_mels)

    def _load(self, entry: Path) -> npt.NDArray[np.float32]:
        with entry.open("rb") as handle:
            values: npt.NDArray[np.float32] = np.lib.format.read_array(handle)
        if values.shape != (self.n_mels, N_FRAMES) or values.dtype != np.float32:
            raise ValueError(f"{entry} holds no spectrogram")
        return values

    def _entry(self, utterance: Utterance) -> Path:
        heard = (utterance.audio, utterance.noise)
        if heard not in self._entries:
            digest = sha256_of_file(utterance.audio)
            if utterance.noise:
                digest = sha256_of_text(f"{digest}/{utterance.noise.identity}")
            made_by = f"read{READING_VERSION}-whisper{whisper_version}"
            self._entries[heard] = self._folder / f"{digest}-{self.n_mels}-{made_by}.npy"
        return self._entries[heard]
