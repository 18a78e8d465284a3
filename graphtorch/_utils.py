"""Helpers that programs written for PyTorch import from `torch._utils`."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import graphtorch as torch
from graphtorch import Tensor

T = TypeVar("T")


def _flatten_dense_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """All elements of some tensors of one dtype as one vector."""
    flat: Tensor = torch.cat([t.contiguous().view(-1) for t in tensors])
    return flat


def _unflatten_dense_tensors(flat: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Views of a vector, in the shapes of some tensors: what `_flatten_dense_tensors` flattened."""
    found, at = [], 0
    for tensor in tensors:
        found.append(flat.narrow(0, at, tensor.numel()).view_as(tensor))
        at += tensor.numel()
    return tuple(found)


def _take_tensors(tensors: Iterable[Tensor], size_limit: int) -> Iterator[list[Tensor]]:
    """Lists of tensors of one type, each of up to `size_limit` bytes (or a single tensor)."""
    held: dict[str, tuple[list[Tensor], int]] = {}
    for tensor in tensors:
        kind = str(tensor.type())
        size = tensor.numel() * tensor.element_size()
        have, total = held.get(kind, ([], 0))
        if have and total + size > size_limit:
            yield have
            have, total = [], 0
        held[kind] = ([*have, tensor], total + size)
    for have, _ in held.values():
        if have:
            yield have


def _element_size(dtype: Any) -> int:
    """The bytes of an element. Raises RuntimeError for what is no dtype."""
    if not isinstance(dtype, torch.dtype):
        raise RuntimeError(f"expected torch.dtype, but got {type(dtype)}")
    return int(torch.empty((), dtype=dtype).element_size())


def _accumulate(iterable: Iterable[T], fn: Callable[[Any, T], Any] = lambda x, y: x + y) -> Iterator[Any]:
    """Running totals."""
    import itertools

    return itertools.accumulate(iterable, fn)


def _get_device_index(device: Any, optional: bool = False, allow_cpu: bool = False) -> int:
    """The number of a CUDA device. Raises ValueError for the CPU unless `allow_cpu`, and for None unless `optional`."""
    if isinstance(device, int) and not isinstance(device, bool):
        return device
    where = torch.device(device) if isinstance(device, str) else device
    if where is None:
        if not optional:
            raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")
        return torch.cuda.current_device() if torch.cuda.is_available() else -1
    if where.type == "cpu":
        if not allow_cpu:
            raise ValueError(f"Expected a non cpu device, but got: {device}")
        return -1
    if where.index is None and not optional:
        raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")
    return int(torch.cuda.current_device() if where.index is None else where.index)


def _get_available_device_type() -> str | None:
    """The kind of accelerator that there is."""
    return "cuda" if torch.cuda.is_available() else None


def _get_all_device_indices() -> list[int]:
    """The numbers of all CUDA devices."""
    return list(range(torch.cuda.device_count()))


def _import_dotted_name(name: str) -> Any:
    """The object of a dotted name."""
    import importlib

    parts = name.split(".")
    found: Any = importlib.import_module(parts[0])
    for part in parts[1:]:
        found = getattr(found, part)
    return found


def annotate(ret: Any, **kwargs: Any) -> Callable[[T], T]:
    """A decorator that sets a function's annotations."""

    def decorate(function: T) -> T:
        function.__annotations__ = {**kwargs, "return": ret}
        return function

    return decorate


class KeyErrorMessage(str):
    """A text that prints as it is inside a KeyError."""

    def __repr__(self) -> str:
        return str(self)


class ExceptionWrapper:
    """An exception, with its traceback as text, on its way from a worker. See torch._utils.ExceptionWrapper."""

    def __init__(self, exc_info: Any = None, where: str = "in background") -> None:
        found = sys.exc_info() if exc_info is None else exc_info
        self.exc_type = found[0]
        self.exc_msg = "".join(traceback.format_exception(*found))
        self.where = where

    def reraise(self) -> None:
        """Raise the exception again, with the text of the worker's traceback."""
        assert self.exc_type is not None
        message = f"Caught {self.exc_type.__name__} {self.where}.\nOriginal {self.exc_msg}"
        if self.exc_type is KeyError:
            message = KeyErrorMessage(message)
        elif getattr(self.exc_type, "message", None):
            raise self.exc_type(message=message)  # type: ignore[call-arg]
        try:
            error = self.exc_type(message)
        except Exception:
            raise RuntimeError(message) from None  # a class that takes other arguments
        raise error


class _ClassPropertyDescriptor(Generic[T]):
    def __init__(self, fget: Any) -> None:
        self.fget = fget

    def __get__(self, instance: Any, owner: Any = None) -> T:
        return self.fget.__get__(instance, type(instance) if owner is None else owner)()  # type: ignore[no-any-return]


def classproperty(func: Any) -> Any:
    """A property of a class."""
    return _ClassPropertyDescriptor(func if isinstance(func, classmethod | staticmethod) else classmethod(func))
