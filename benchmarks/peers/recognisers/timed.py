"""What all recognisers share: read the job, load the model, time every clip, write what came out.

Only numpy and the standard library are imported here, so that the peak memory is the recogniser's own.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.memory import peak_rss_bytes

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """`samples`: a .npy file of at most 30 s of 16 kHz mono float32. `window_s`: what the system's encoder should see.

    `max_tokens`: where a transcript ends at the latest, the same for every system.
    """

    id: str
    samples: str
    language: str
    max_tokens: int
    window_s: float


@dataclass(frozen=True, kw_only=True)
class Job:
    """`files`: the folder of the model. `compute`: how to compute, where the recogniser has a choice."""

    files: str
    compute: str
    threads: int
    clips: tuple[Clip, ...]


@dataclass(frozen=True, kw_only=True)
class Said:
    """A transcript. `steps`: tokens chosen, the end included.

    `encoder_s`: without the spectrogram. `decoder_s`: all that comes after the encoder, prompt and choices included.
    None: what the runtime does not tell.
    """

    text: str
    steps: int | None
    encoder_s: float | None
    decoder_s: float | None


@dataclass(frozen=True, kw_only=True)
class TimedClip:
    """`utterance_s`: from samples in memory to text, spectrogram included; the rest as in `Said`."""

    id: str
    text: str
    steps: int | None
    utterance_s: float
    encoder_s: float | None
    decoder_s: float | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """`load_s`: from files to a model that can transcribe, after all imports. `peak_rss_bytes`: of the process."""

    load_s: float
    peak_rss_bytes: int
    clips: tuple[TimedClip, ...]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Result":
        """What `asdict` made of a result."""
        return cls(**{**values, "clips": tuple(TimedClip(**clip) for clip in values["clips"])})


Recognise = Callable[[Floats, Clip], Said]


def measure(load: Callable[[Job], Recognise]) -> None:
    """Do the job that the command line names: one warm-up with the first clip, then every clip once."""
    job_file, result_file = map(Path, sys.argv[1:])
    values = json.loads(job_file.read_text(encoding="utf-8"))
    job = Job(**{**values, "clips": tuple(Clip(**clip) for clip in values["clips"])})
    started = perf_counter()
    recognise = load(job)
    load_s = perf_counter() - started
    _timed(recognise, job.clips[0])
    clips = tuple(_timed(recognise, clip) for clip in job.clips)
    result = Result(load_s=load_s, peak_rss_bytes=peak_rss_bytes(), clips=clips)
    result_file.write_text(json.dumps(asdict(result)), encoding="utf-8")


def _timed(recognise: Recognise, clip: Clip) -> TimedClip:
    samples = np.load(clip.samples)
    started = perf_counter()
    said = recognise(samples, clip)
    return TimedClip(id=clip.id, utterance_s=perf_counter() - started, **asdict(said))
