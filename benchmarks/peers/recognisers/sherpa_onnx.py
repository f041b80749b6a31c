"""sherpa-onnx, by its own package: one call for the whole, greedily; it tells nothing of encoder and decoder."""

from pathlib import Path

from evaluators.runtimes import sherpa_onnx
from recognisers.timed import Clip, Floats, Job, Recognise, Said, measure


def load(job: Job) -> Recognise:
    """The encoder's window is what the model makes of sherpa-onnx's padding of 10 s."""
    transcribe = sherpa_onnx.load(Path(job.files), job.threads)

    def recognise(samples: Floats, clip: Clip) -> Said:
        return Said(text=transcribe(samples, clip.language), steps=None, encoder_s=None, decoder_s=None)

    return recognise


if __name__ == "__main__":
    measure(load)
