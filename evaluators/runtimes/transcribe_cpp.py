"""An artifact of `--target transcribe-cpp`, run by the package `transcribe-cpp`: its features, decoding and kernels.

Greedy, without fallback to higher temperatures and without timestamps. transcribe.cpp hears all of what it gets, in
windows of the artifact's length, says at most 256 tokens in each, and nothing in a window that is likely to hold no
speech (over 0.6, where the text's mean log-probability is under -1).
"""

from pathlib import Path

import transcribe_cpp

from evaluators.runtimes.transcribe import Floats, Transcribe

GREEDY = transcribe_cpp.WhisperRunOptions(temperature_inc=0.0)


def load(folder: Path, threads: int) -> Transcribe:
    """On the CPU, as boards and phones have it."""
    (file,) = folder.glob("*.gguf")
    session = transcribe_cpp.Model(file, backend="cpu").session(n_threads=threads)

    def transcribe(samples: Floats, language: str) -> str:
        if not len(samples):
            return ""
        try:
            result = session.run(samples.data, language=language, timestamps="none", family=GREEDY)
        except transcribe_cpp.OutputTruncated as error:
            if error.partial_result is None:
                raise
            result = error.partial_result
        return str(result.text).strip()

    return transcribe
