"""`python -m evaluators.runtimes.transcribe TARGET FOLDER THREADS`: transcribe what comes in on stdin.

Each request is a line of JSON, `{"language": "en", "samples": N}`, and N float32 samples of 16 kHz. The answer is a
line of JSON, `{"text": ..., "seconds": ..., "peak_rss_bytes": ...}`; the first, once the model is loaded, has only the
time that took and the memory. Only numpy, the runtime's own package and the standard library are imported, so the
memory is the runtime's.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.memory import peak_rss_bytes

Floats = npt.NDArray[np.float32]
Transcribe = Callable[[Floats, str], str]
"""The text of 16 kHz samples in a language."""

RUNTIMES = {"sherpa-onnx": "sherpa_onnx", "transcribe-cpp": "transcribe_cpp", "litert": "ai_edge_litert"}
"""By target: the runtime's Python package. The module of this folder with the target's name (`-` is `_`) calls it by
`load(folder, threads)`."""


def main(target: str, folder: Path, threads: int) -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the runtime's own code prints is no answer
    started = perf_counter()
    module = target.replace("-", "_")
    transcribe: Transcribe = import_module(f"evaluators.runtimes.{module}").load(folder, threads)
    _answer(answers, {"seconds": perf_counter() - started})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        samples = np.frombuffer(sys.stdin.buffer.read(4 * request["samples"]), np.float32)
        started = perf_counter()
        text = transcribe(samples, request["language"])
        _answer(answers, {"text": text, "seconds": perf_counter() - started})


def _answer(answers: Any, values: dict[str, Any]) -> None:
    print(json.dumps(values | {"peak_rss_bytes": peak_rss_bytes()}), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
