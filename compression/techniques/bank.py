"""Roundings that recur: the original's matrices are kept on disk, what recipes made of them lately in memory.

The rows of a matrix are rounded without regard to each other. So a recipe that removes rows (heads, FFN channels,
tokens) takes those that stay of the original's matrix on the same grid, which is rounded once. What is kept changes
nothing but the time.
"""

import hashlib
import zlib
from collections.abc import Hashable
from pathlib import Path
from threading import Lock

import torch
from cachetools import LRUCache, cached
from torch import Tensor

from common.errors import InputError
from common.files import cache_folder, sha256_of_text, whole_file
from compression.calibration.inputs import KeptInputs
from compression.techniques.grids import Grid, QuantisedMatrix, quantise
from compression.techniques.rounding import Feedback, padded_columns, round_columns
from compression.whisper.compute import CPU
from compression.whisper.load import LoadedModel
from compression.whisper.torch_files import TORCH_LOAD_ERRORS, save_tensors

BANK_VERSION = 1
"""To be raised whenever the same matrix would be rounded otherwise."""
REMEMBERED_BYTES = 2**28
"""Of each of the three kinds that are remembered in memory; those lately used stay."""


def _bytes(matrix: QuantisedMatrix) -> int:
    return sum(part.nbytes for part in matrix.parts.values())


def _name(model: LoadedModel, name: str, grid: Grid, inputs: KeptInputs, read: str | None) -> str:
    """What tells a rounded matrix from others."""
    moment = "nearest" if read is None else inputs.digest(read)
    return sha256_of_text(f"{BANK_VERSION}/{model.parameter_digests[name + '.weight']}/{grid}/{moment}")


def _original_key(model: LoadedModel, name: str, grid: Grid, inputs: KeptInputs, read: str | None) -> Hashable:
    return (model.compute, _name(model, name, grid, inputs, read))


@cached(LRUCache(maxsize=REMEMBERED_BYTES, getsizeof=_bytes), key=_original_key, lock=Lock())
def original_on(model: LoadedModel, name: str, grid: Grid, inputs: KeptInputs, read: str | None) -> QuantisedMatrix:
    """The whole matrix of a module of the original on an integer grid, from disk if it was rounded before.

    `read`: the name, for `inputs`, of what it multiplies, by which it is rounded; None: to the nearest points. A folder
    that cannot be written, or a damaged file, costs only time.
    """
    weight = model.network.get_submodule(name).get_parameter("weight").detach().flatten(1)
    file = _file(_name(model, name, grid, inputs, read))
    found = _read(file, weight, grid) if file else None
    if found:
        return found.to(weight.device)
    made = quantise(weight, grid) if read is None else calibrated(weight, grid, inputs, read)
    if file:
        _write(file, made.to(CPU))
    return made


def _file(key: str) -> Path | None:
    """Where a rounding is kept; None where there is no cache folder."""
    try:
        return cache_folder("bank") / f"{key}.pt"
    except InputError:
        return None


def _read(file: Path, weight: Tensor, grid: Grid) -> QuantisedMatrix | None:
    """None when there is no such file or it is damaged."""
    try:
        stored = torch.load(file, mmap=True, weights_only=True)
        checksum = stored.pop("checksum")
        matrix = QuantisedMatrix(**{"zero_points": None, **stored}, bits=grid.bits, columns=weight.shape[1])
        return matrix if checksum == _checksum(matrix) and len(matrix.codes) == len(weight) else None
    except (OSError, AttributeError, *TORCH_LOAD_ERRORS):
        return None


def _write(file: Path, matrix: QuantisedMatrix) -> None:
    try:
        with whole_file(file) as handle:
            save_tensors({**matrix.parts, "checksum": _checksum(matrix)}, handle)
    except OSError:
        return


def _checksum(matrix: QuantisedMatrix) -> int:
    checksum = 0
    for name, part in matrix.parts.items():
        checksum = zlib.crc32(f"{name} {list(part.shape)} {part.dtype}".encode(), checksum)
        checksum = zlib.crc32(part.contiguous().numpy().data, checksum)
    return checksum


def _contents_key(weight: Tensor, grid: Grid, inputs: KeptInputs, read: str) -> Hashable:
    digest = hashlib.sha256(weight.detach().cpu().contiguous().numpy().data).digest()
    return (weight.device, weight.shape, digest, grid, inputs.digest(read))


@cached(LRUCache(maxsize=REMEMBERED_BYTES, getsizeof=_bytes), key=_contents_key, lock=Lock())
def calibrated(weight: Tensor, grid: Grid, inputs: KeptInputs, read: str) -> QuantisedMatrix:
    """A matrix (N, K) rounded with regard to what it multiplies: `read`, its name for `inputs`."""
    return round_columns(weight, grid, _feedback(inputs, read, padded_columns(weight, grid), weight.device))


def _feedback_bytes(feedback: Feedback) -> int:
    return feedback.shares.nbytes


def _feedback_key(inputs: KeptInputs, read: str, width: int, compute: torch.device) -> Hashable:
    return (inputs.digest(read), width, compute)


@cached(LRUCache(maxsize=REMEMBERED_BYTES, getsizeof=_feedback_bytes), key=_feedback_key, lock=Lock())
def _feedback(inputs: KeptInputs, read: str, width: int, compute: torch.device) -> Feedback:
    """Of what every matrix wants that multiplies the same, on every grid."""
    return Feedback.of(inputs.of(read).moment, width, compute)
