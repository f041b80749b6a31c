"""Where torch computes (`--compute`); "device" is the word for what a model is compressed for.

Values lie where the model is; what counts or chooses (token ids, the units that stay) lies on the CPU, and so does
what goes into files.
"""

import torch
from torch import Tensor

from common.errors import InputError

CPU = torch.device("cpu")


def compute_device(choice: str) -> torch.device:
    """What cpu, cuda, cuda:N or mps names; `auto` is the first CUDA device, else the CPU.

    On CUDA, float32 is float32: TF32 is off. Raises InputError for what this machine lacks.
    """
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(choice)
    if device.type == "cuda":
        _check_cuda(device)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("--compute mps: torch finds no Metal device on this machine")
    return device


def _check_cuda(device: torch.device) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise InputError(
            f"--compute {device}: torch finds no CUDA device; is its CPU build installed, or a driver missing?"
        )
    if (device.index or 0) >= count:
        raise InputError(f"--compute {device}: torch finds {count} CUDA devices, numbered from 0")


def name_of(device: torch.device) -> str:
    """For people: such as `cuda:1 (NVIDIA H200)`."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def compute_of_worker(choice: str, index: int) -> str:
    """The choice of the process with this number where several compute: CUDA devices are shared out among them."""
    if choice not in {"auto", "cuda"} or not torch.cuda.is_available():
        return choice
    return f"cuda:{index % torch.cuda.device_count()}"


def exact_device(device: torch.device) -> torch.device:
    """Where float64 is computed for what lies on a device: MPS has no such numbers."""
    return CPU if device.type == "mps" else device


def exact(values: Tensor) -> Tensor:
    """In float64, on `exact_device`."""
    return values.to(exact_device(values.device)).double()
