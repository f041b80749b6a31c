"""An artifact of `--target sherpa-onnx`, run by the package `sherpa-onnx`: its features, decoding and ONNX Runtime.

sherpa-onnx transcribes the first 29.5 s of what it gets, at most 6 tokens a second. Its frames lie half a frame (5 ms)
later than Whisper's.
"""

from functools import cache
from pathlib import Path

import sherpa_onnx

from evaluators.runtimes.transcribe import Floats, Transcribe
from runtime.audio import SAMPLE_RATE

SHORTEST = 80
"""With fewer samples sherpa-onnx 2.0.1 has no frame and its process dies."""


def load(folder: Path, threads: int) -> Transcribe:
    """One recogniser for each language, which it is given when it is made."""

    @cache
    def recogniser(language: str) -> sherpa_onnx.OfflineRecognizer:
        files = {name: str(folder / f"{name}.onnx") for name in ("encoder", "decoder")}
        return sherpa_onnx.OfflineRecognizer.from_whisper(
            **files, tokens=str(folder / "tokens.txt"), language=language, num_threads=threads
        )

    def transcribe(samples: Floats, language: str) -> str:
        if len(samples) < SHORTEST:
            return ""
        stream = recogniser(language).create_stream()
        stream.accept_waveform(SAMPLE_RATE, samples)
        recogniser(language).decode_stream(stream)
        return str(stream.result.text).strip()

    recogniser("en")
    return transcribe
