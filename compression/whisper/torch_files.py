"""torch.save and torch.load, and all that they fail with."""

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO
from warnings import catch_warnings

import torch

from common.errors import InputError

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


def load_tensors(path: Path) -> Any:
    """What a file holds, without running any code of its; InputError when it cannot be read."""
    try:
        with catch_warnings(action="ignore"):  # torch warns about pickles that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path} is no Whisper checkpoint: cannot read it ({error.strerror or error})") from error
    except TORCH_LOAD_ERRORS as error:
        raise InputError(f"{path} is no Whisper checkpoint: it is broken or no file of tensors") from error


def save_tensors(values: Mapping[str, Any], handle: BinaryIO) -> None:
    """torch.save, whose failure to write (full disk) is the OSError that it was."""
    try:
        torch.save(values, handle)
    except RuntimeError as error:  # torch's writer misses what could not be written
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
