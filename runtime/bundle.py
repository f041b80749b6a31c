"""Several artifacts in one folder, files that are equal stored once; and the one that is fast enough here."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.audio import SAMPLE_RATE
from runtime.decoding import open_window
from runtime.errors import ArtifactError, OptionError
from runtime.transcribe import Transcriber

BUNDLE = "bundle.json"
BUNDLE_VERSION = 1
REFERENCE_S, REFERENCE_TOKENS = 10.0, 30
"""What a point is timed on: the project's reference utterance, here of noise; what is said does not matter."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A model of a bundle that was timed here.

    `real_time_factor`: time, and `occupancy`: CPU time of all threads, by second of the reference utterance.
    """

    name: str
    transcriber: Transcriber
    real_time_factor: float
    occupancy: float


def point_folders(folder: Path) -> list[Path]:
    """The artifacts of a bundle, the most accurate first; an artifact itself where it is no bundle.

    Raises ArtifactError when the bundle is damaged or of another version.
    """
    file = folder / BUNDLE
    if not file.is_file():
        return [folder]
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
        version, names = stated["format_version"], [str(name) for name in stated["points"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file} is damaged: {type(error).__name__} {error}") from error
    if version != BUNDLE_VERSION:
        raise ArtifactError(f"{file} has version {version}, but this runtime reads version {BUNDLE_VERSION}")
    if not names or any(Path(name).name != name for name in names):
        raise ArtifactError(f"{file} is damaged: it must name folders beside it")
    return [folder / name for name in names]


def timed_points(folder: Path, *, threads: int | None) -> list[Point]:
    """All points of a bundle, loaded and timed, the most accurate first. Raises ArtifactError."""
    return [_timed(Transcriber.open(point, threads=threads)) for point in point_folders(folder)]


def open_within(folder: Path, limits: "Limits", *, threads: int | None) -> Transcriber:
    """The most accurate model of a bundle that keeps the limits here; an artifact that is no bundle without timing it.

    Raises OptionError when there are limits but no choice, ArtifactError when a model cannot be used.
    """
    limits.check()
    if (folder / BUNDLE).is_file():
        points = timed_points(folder, threads=threads)
        return points[chosen(points, limits)].transcriber
    if limits != Limits():
        raise OptionError(f"--max-rtf and --max-occupancy choose from a bundle, but {folder} is one artifact")
    return Transcriber.open(folder, threads=threads)


def _timed(transcriber: Transcriber) -> Point:
    """The second of two runs: the first also fills caches."""
    noise = np.random.default_rng(0).normal(0, 0.1, round(REFERENCE_S * SAMPLE_RATE)).astype(np.float32)
    vocabulary = transcriber.artifact.vocabulary
    token = np.array([[vocabulary.special.no_timestamps]])
    for _ in range(2):
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        window = transcriber.encode(noise)
        text = open_window(window, vocabulary, language=None, task="transcribe").text
        for _ in range(REFERENCE_TOKENS):
            _, text = text.step(token)
        seconds, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    return Point(
        name=transcriber.artifact.recipe_id,
        transcriber=transcriber,
        real_time_factor=seconds / REFERENCE_S,
        occupancy=cpu_s / REFERENCE_S,
    )


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a model may take on this device, by second of audio; None: no limit."""

    real_time_factor: float | None = None
    occupancy: float | None = None

    def check(self) -> None:
        """Raise OptionError unless they are positive."""
        for name, limit in (("--max-rtf", self.real_time_factor), ("--max-occupancy", self.occupancy)):
            if limit is not None and not limit > 0:
                raise OptionError(f"{name} must be above 0, but got {limit:g}")

    def hold(self, point: Point) -> bool:
        """Whether the point keeps them."""
        pairs = ((self.real_time_factor, point.real_time_factor), (self.occupancy, point.occupancy))
        return all(limit is None or taken <= limit for limit, taken in pairs)


def chosen(points: Sequence[Point], limits: Limits) -> int:
    """The first, most accurate point that keeps the limits; the fastest where none does."""
    holding = (index for index, point in enumerate(points) if limits.hold(point))
    fastest = min(range(len(points)), key=lambda index: points[index].real_time_factor)
    return next(holding, fastest)
