"""sherpa-onnx and transcribe.cpp, by their own packages: one call for the whole, greedily, by their own rules.

`compute`: the target, such as `sherpa-onnx`. They do not tell the times of encoder and decoder.
"""

from importlib import import_module
from pathlib import Path

from recognisers.timed import Clip, Floats, Job, Recognise, Said, measure


def load(job: Job) -> Recognise:
    """The encoder's window is the runtime's: 30 s, or what our artifact makes of sherpa-onnx's padding."""
    module = import_module(f"evaluators.runtimes.{job.compute.replace('-', '_')}")
    transcribe = module.load(Path(job.files), job.threads)

    def recognise(samples: Floats, clip: Clip) -> Said:
        return Said(text=transcribe(samples, clip.language), steps=None, encoder_s=None, decoder_s=None)

    return recognise


if __name__ == "__main__":
    measure(load)
