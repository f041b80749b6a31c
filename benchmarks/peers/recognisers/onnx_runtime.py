"""An ONNX artifact by the package `runtime`, as `evaluators.runtimes.verification.ArtifactRecogniser` runs it:
greedily, without fallback. Imports numpy and onnxruntime.
"""

from pathlib import Path
from time import perf_counter

from recognisers.timed import Clip, Floats, Job, Recognise, Said, measure
from runtime.audio import SAMPLE_RATE
from runtime.decoding import DecodingOptions, decode, open_window
from runtime.mel import log_mel
from runtime.transcribe import Transcriber
from runtime.window import encoder_frames


def load(job: Job) -> Recognise:
    """The window is the artifact's."""
    transcriber = Transcriber.open(Path(job.files), threads=job.threads)
    artifact = transcriber.artifact

    def recognise(samples: Floats, clip: Clip) -> Said:
        frames = encoder_frames(artifact.window_s, len(samples) / SAMPLE_RATE)
        mel = log_mel(samples, artifact.n_mels)[:, :frames]
        started = perf_counter()
        window = transcriber.model.encode(mel)
        encoded = perf_counter()
        opening = open_window(window, artifact.vocabulary, language=clip.language, task="transcribe")
        said = decode(opening, artifact.vocabulary, DecodingOptions(max_tokens=clip.max_tokens))
        finished = perf_counter()
        return Said(
            text=said.text,
            steps=len(said.tokens) + 1,
            encoder_s=encoded - started,
            decoder_s=finished - encoded,
        )

    return recognise


if __name__ == "__main__":
    measure(load)
