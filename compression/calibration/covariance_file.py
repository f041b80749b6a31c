"""Covariances on disk, mapped into memory: of a large model they take 8 GB, and a recipe needs them one by one."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.files import whole_file
from compression.calibration.inputs import Array

SUFFIX = ".covariances.npy"


class Flat:
    """The values (values,) of matrices, taken one after the other."""

    def __init__(self, values: Array) -> None:
        self._values = values
        self._taken = 0

    def square(self, width: int) -> Array:
        """The next matrix (width, width). Raises ValueError when there are too few values left."""
        start, self._taken = self._taken, self._taken + width * width
        return self._values[start : self._taken].reshape(width, width)


def save_flat(path: Path, matrices: Sequence[Array]) -> int:
    """Write the file beside `path`, in one step; its checksum. Raises OSError."""
    checksum = 0
    header = {"descr": "<f4", "fortran_order": False, "shape": (sum(matrix.size for matrix in matrices),)}
    with whole_file(path.with_suffix(SUFFIX)) as handle:
        np.lib.format.write_array_header_1_0(handle, header)
        for matrix in matrices:
            values = np.ascontiguousarray(matrix, dtype="<f4")
            checksum = zlib.crc32(values.data, checksum)
            handle.write(values.data)
    return checksum


def load_flat(path: Path, checksum: int) -> Flat:
    """What lies beside `path`. Raises OSError or ValueError when that is not what was saved."""
    values = np.asarray(np.load(path.with_suffix(SUFFIX), mmap_mode="c"))
    if zlib.crc32(values.data) != checksum:
        raise ValueError(f"{path.with_suffix(SUFFIX)} is damaged")
    return Flat(values)
