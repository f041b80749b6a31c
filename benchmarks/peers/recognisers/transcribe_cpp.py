"""transcribe.cpp, by its own package: one call for the whole, greedily; its rule for silence stays on."""

from pathlib import Path

from evaluators.runtimes import transcribe_cpp
from recognisers.timed import Clip, Floats, Job, Recognise, Said, measure


def load(job: Job) -> Recognise:
    """The encoder's window is 30 s."""
    transcribe = transcribe_cpp.load(Path(job.files), job.threads)

    def recognise(samples: Floats, clip: Clip) -> Said:
        return Said(text=transcribe(samples, clip.language), steps=None, encoder_s=None, decoder_s=None)

    return recognise


if __name__ == "__main__":
    measure(load)
