"""Memory and disk that a search needs, by the model's dimensions alone. Checked by benchmarks/models/sizes.py."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from common.files import cache_folder
from compression.recipe.dimensions import Dimensions
from devices.profiler.board.inspect_machine import memory_mb
from evaluators.learning.calibration import WINDOW_S
from runtime.window import FRAMES_PER_S

PROCESS_MB = 450.0
"""Python, torch and the libraries."""
KEPT_VALUES = 50
"""Of each position and layer, in units of its width: what a pass forward keeps for the two backward."""
LOGITS = 6
"""Copies of a clip's logits while a loss runs backward."""
TOKENS = 48
"""Of a clip's transcript, prompt included."""
SAFETY = 0.85
"""Of an estimate: below that there is surely too little."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryNeeds:
    """In 10^6 bytes. `loading`, `calibration`, `search`: at most, while they run, without caches.

    `disk_calibration`: of one calibration; `disk_grid`: of the original's matrices on one grid, of which a search uses
    one for each width, group size and kind.
    """

    loading: float
    calibration: float
    search: float
    disk_calibration: float
    disk_grid: float

    @property
    def peak(self) -> float:
        """Of all stages."""
        return max(self.loading, self.calibration, self.search)


def memory_needs(dimensions: Dimensions) -> MemoryNeeds:
    """Of one process.

    The original and a recipe's network are float32, its codes a byte a weight; calibration keeps a covariance for each
    input of a linear layer and what one clip needs to run backward.
    """
    weights = 4 * dimensions.parameters / 1e6
    moments = 4 * _moment_values(dimensions) / 1e6
    return MemoryNeeds(
        loading=PROCESS_MB + 1.75 * weights,
        calibration=PROCESS_MB + weights + moments + _backward_mb(dimensions),
        search=PROCESS_MB + 2.25 * weights + 2 * _embedding_mb(dimensions),
        disk_calibration=moments,
        disk_grid=weights / 4 * 1.1,
    )


def _moment_values(dimensions: Dimensions) -> int:
    """Of the covariances of all inputs: see `compression.calibration.inputs.input_name`."""
    audio, text = dimensions.n_audio_state**2, dimensions.n_text_state**2
    encoder, decoder = (3 + 16) * audio, (5 + 16) * text
    return dimensions.n_audio_layer * encoder + dimensions.n_text_layer * decoder + audio + text


def _backward_mb(dimensions: Dimensions) -> float:
    positions = WINDOW_S * FRAMES_PER_S / 2
    encoder = positions * dimensions.n_audio_state * dimensions.n_audio_layer * KEPT_VALUES
    decoder = (2 * positions + TOKENS * KEPT_VALUES) * dimensions.n_text_state * dimensions.n_text_layer
    return 4 * (encoder + decoder + LOGITS * TOKENS * dimensions.n_vocab) / 1e6


def _embedding_mb(dimensions: Dimensions) -> float:
    return 4 * dimensions.n_vocab * dimensions.n_text_state / 1e6


def available_mb() -> float | None:
    """Memory that is free now; None where the system does not tell."""
    return memory_mb(Path("/"), "MemAvailable")


def free_disk_mb(folder: Path) -> float:
    """Where a folder is, or will be."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free / 1e6


def check_fits(name: str, dimensions: Dimensions) -> None:
    """Raise InputError where a search surely lacks memory, or disk for calibration and one grid."""
    needs = memory_needs(dimensions)
    size, free = f"{name} has {dimensions.parameters / 1e6:.0f} million parameters", available_mb()
    if free is not None and SAFETY * needs.peak > free:
        raise InputError(
            f"{size}: a search needs about {needs.peak / 1000:.1f} GB of memory, and {free / 1000:.1f} GB are free: "
            "free some, or take a smaller model"
        )
    folder = cache_folder("bank")
    disk, needed = free_disk_mb(folder), needs.disk_calibration + needs.disk_grid
    if needed > disk:
        raise InputError(
            f"{size}: a search keeps at least {needed / 1000:.1f} GB in {folder.parent}, where {disk / 1000:.1f} GB "
            "are free: free some, or set WHISPERFIT_CACHE"
        )
