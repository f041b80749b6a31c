"""A device that computes on the CPU and is as strict as an accelerator about what lies where.

Its tensors say that they are on torch's `meta` device and hold their values in the CPU's memory. As on CUDA, an
operation wants all its tensors on one device, except single numbers and indices, and numpy sees none of them. So what
passes here makes its tensors where the model is; whether it is fast on an accelerator is another question.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
_ATEN = torch.ops.aten
_MOVES = {_ATEN._to_copy.default, _ATEN.copy_.default}
_INDEXED = {_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default, _ATEN._index_put_impl_.default}
"""Their indices may be on the CPU."""


class PretendedTensor(Tensor):
    """A tensor on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Self:
        made: Self = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.cpu().tolist()


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    is_here = any(isinstance(tensor, PretendedTensor) for tensor in tensors)
    if kwargs.get("device") is not None:
        is_here = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": "cpu"}
    elif is_here and func not in _MOVES:
        _check(func, args if func in _INDEXED else (), tensors)
    found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if func is _ATEN.copy_.default:
        is_here = isinstance(args[0], PretendedTensor)
    return tree_map(_wrapped, found) if is_here else found


def _check(func: Any, indexed: Any, tensors: list[Tensor]) -> None:
    indices = {id(index) for index in indexed[1]} if indexed else set()
    elsewhere = [t for t in tensors if not isinstance(t, PretendedTensor) and t.dim() > 0 and id(t) not in indices]
    if elsewhere:
        raise RuntimeError(f"{func}: tensors on the device and on the CPU, {[tuple(t.shape) for t in elsewhere]}")


def _held(value: Any) -> Any:
    return value.held if isinstance(value, PretendedTensor) else value


def _wrapped(value: Any) -> Any:
    return PretendedTensor(value) if isinstance(value, Tensor) else value


class _Everywhere(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _FromNumbers(TorchFunctionMode):
    """torch.tensor(numbers, device=...): on a real `meta` device it forgets the numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is Tensor.new_tensor:
            like, *rest = args
            return torch.tensor(*rest, dtype=like.dtype).to(like.device)
        return func(*args, **kwargs)


def _without_gradients(mode: bool) -> AbstractContextManager[None]:
    return torch.no_grad() if mode else nullcontext()


@contextmanager
def pretended_device() -> Iterator[torch.device]:
    """While it is there, tensors can be made on the device and moved to it.

    Inference mode is then as no_grad, since it knows no tensors of this kind.
    """
    with patch("torch._C._InferenceMode", _without_gradients), _Everywhere(), _FromNumbers():
        yield DEVICE
