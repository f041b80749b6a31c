"""An artifact of `--target litert`, run by the package `ai-edge-litert`: its interpreter, with XNNPACK's kernels.

Features and decoding are those of the package `runtime`, greedy and without fallback to higher temperatures. A clip is
decoded once: the artifact does not say where a text listens (`runtime.unheard`).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from evaluators.runtimes.transcribe import Floats, Transcribe
from runtime.artifact import Artifact
from runtime.audio import SAMPLE_RATE
from runtime.decoding import DecodingOptions, decode, open_window
from runtime.mel import WINDOW_SAMPLES, log_mel
from runtime.transcribe import SILENCE_PEAK, is_invented
from runtime.window import encoder_frames

TARGET, FILES = "litert", ("config.json", "tokens.txt.gz", "encoder.tflite", "decoder.tflite")


def load(folder: Path, threads: int) -> Transcribe:
    """What transcribes at most 30 s. Raises runtime.errors.ArtifactError when the folder is no such artifact."""
    artifact = Artifact.open(folder, target=TARGET, required=FILES)
    encoder, decoder = (Interpreter(str(folder / name), num_threads=threads) for name in FILES[2:])
    windows = sorted(int(name.removeprefix("encode_")) for name in encoder.get_signature_list())

    def transcribe(samples: Floats, language: str) -> str:
        samples = samples[:WINDOW_SAMPLES]
        if not len(samples) or np.abs(samples).max() <= SILENCE_PEAK:
            return ""
        needed = encoder_frames(artifact.window_s, len(samples) / SAMPLE_RATE)
        frames = min(window for window in windows if window >= needed)
        mel = log_mel(samples, artifact.n_mels)[None, :, :frames]
        text = _Text(decoder, frames, audio=encoder.get_signature_runner(f"encode_{frames}")(mel=mel))
        opening = open_window(text, artifact.vocabulary, language=language, task="transcribe")
        said = decode(opening, artifact.vocabulary, DecodingOptions(max_tokens=artifact.n_text_ctx // 2))
        return "" if is_invented(opening, said) else said.text

    return transcribe


class _Text:
    """One window of audio and the text that the decoder has seen: a `runtime.decoding.Text` of one row."""

    def __init__(self, decoder: Interpreter, frames: int, *, audio: dict[str, Floats]) -> None:
        self._step = decoder.get_signature_runner(f"step_{frames}")
        self._audio = {f"audio_{name}": value for name, value in audio.items()}
        inputs = self._step.get_input_details()
        self._past = {name: np.zeros(inputs[name]["shape"], np.float32) for name in inputs if name.startswith("past_")}
        self._seen = 0

    def step(self, tokens: npt.NDArray[np.int64]) -> "tuple[Floats, _Text]":
        """Show it (1, new) tokens, one after the other; the text itself grows."""
        for token in tokens[0]:
            outputs = self._step(
                token=np.array([token], np.int32),
                position=np.array([self._seen], np.int32),
                **self._past,
                **self._audio,
            )
            for name, value in self._past.items():
                value[:, :, self._seen] = outputs[f"new_{name.removeprefix('past_')}"][:, :, 0]
            self._seen += 1
        return outputs["logits"], self

    def rows(self, rows: Sequence[int]) -> "_Text":
        """The only row there is."""
        if list(rows) != [0]:
            raise ValueError(f"one row must be asked for, but got {list(rows)}")
        return self

    def attention(self, tokens: Sequence[int]) -> None:
        """Not known."""

    def head_attention(self, tokens: Sequence[int]) -> None:
        """Not known."""
