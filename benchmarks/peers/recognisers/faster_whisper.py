"""faster-whisper on CTranslate2, greedily, without timestamps, thresholds, fallback and voice detection.

`compute`: CTranslate2's compute type. CTranslate2 imports torch, which it needs for converting only, wherever it is
installed; here it is hidden, so that the memory is that of a device without it.
"""

import sys
from time import perf_counter
from typing import Any

sys.modules["torch"] = None  # type: ignore[assignment] # makes `import torch` an ImportError

from faster_whisper import WhisperModel  # noqa: E402

from recognisers.timed import Clip, Floats, Job, Recognise, Said, measure  # noqa: E402


class _TimedModel(WhisperModel):
    """Times the two parts of a transcription where faster-whisper calls them."""

    steps: int
    encoder_s: float
    decoder_s: float

    def reset(self) -> None:
        self.steps, self.encoder_s, self.decoder_s = 0, 0.0, 0.0

    def encode(self, features: Any) -> Any:
        started = perf_counter()
        encoded = super().encode(features)
        self.encoder_s += perf_counter() - started
        return encoded

    def generate_with_fallback(self, *arguments: Any) -> Any:
        started = perf_counter()
        said = super().generate_with_fallback(*arguments)
        self.decoder_s += perf_counter() - started
        self.steps += len(said[0].sequences_ids[0]) + 1
        return said


def load(job: Job) -> Recognise:
    """The window is always 30 s."""
    model = _TimedModel(job.files, device="cpu", compute_type=job.compute, cpu_threads=job.threads)

    def recognise(samples: Floats, clip: Clip) -> Said:
        model.reset()
        segments, _ = model.transcribe(
            samples,
            language=clip.language,
            beam_size=1,
            temperature=0.0,
            max_new_tokens=clip.max_tokens,
            without_timestamps=True,
            condition_on_previous_text=False,
            vad_filter=False,
            no_speech_threshold=None,
            log_prob_threshold=None,
            compression_ratio_threshold=None,
        )
        text = " ".join(segment.text.strip() for segment in segments)
        return Said(text=text, steps=model.steps, encoder_s=model.encoder_s, decoder_s=model.decoder_s)

    return recognise


if __name__ == "__main__":
    measure(load)
