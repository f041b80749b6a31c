"""torch.save and torch.load, and all that they fail with."""

import pickle
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch

TORCH_LOAD_ERRORS = (
    pickle.UnpicklingError,
    struct.error,
    AssertionError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What torch.load raises for files that it cannot read, found by feeding it thousands of broken ones."""


def save_tensors(values: Mapping[str, Any], handle: BinaryIO) -> None:
    """torch.save, whose failure to write (full disk) is the OSError that it was."""
    try:
        torch.save(values, handle)
    except RuntimeError as error:  # torch's writer misses what could not be written
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
