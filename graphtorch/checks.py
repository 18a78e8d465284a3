"""`torch._assert`, `torch._check` and arithmetic on sizes (`torch.sym_max`, ...), as libraries written for PyTorch call
them.

Under `@compile`, a condition on tensor data is a decision like any other."""

from __future__ import annotations

import builtins
import math
import warnings
from collections.abc import Callable
from typing import Any

from graphtorch.tensor.tensor import Tensor

Message = Callable[[], Any] | None

_UNNAMED = (
    "Expected cond to be True, but got False. (Could this error message be improved? If so, please report an "
    "enhancement request to PyTorch.)"
)


def _assert(condition: Any, message: str) -> None:
    """Raise AssertionError unless the condition holds; it may be a tensor."""
    assert condition, message


def _check_with(error_type: type[Exception], cond: Any, message: Message) -> None:
    """Raise an exception of a class, with the text that `message()` gives, unless the condition holds.

    Raises TypeError for a condition that is no bool."""
    if not isinstance(cond, bool):
        raise TypeError(f"cond must be a bool, but got {type(cond)}")
    if cond:
        return
    if message is None:
        raise error_type(_UNNAMED)
    if not callable(message):
        raise TypeError("message must be a callable")
    raise error_type(str(message()))


def _check(cond: Any, message: Message = None) -> None:
    """Raise RuntimeError unless the condition holds."""
    _check_with(RuntimeError, cond, message)


def _check_index(cond: Any, message: Message = None) -> None:
    """Raise IndexError unless the condition holds."""
    _check_with(IndexError, cond, message)


def _check_value(cond: Any, message: Message = None) -> None:
    """Raise ValueError unless the condition holds."""
    _check_with(ValueError, cond, message)


def _check_type(cond: Any, message: Message = None) -> None:
    """Raise TypeError unless the condition holds."""
    _check_with(TypeError, cond, message)


def _check_not_implemented(cond: Any, message: Message = None) -> None:
    """Raise NotImplementedError unless the condition holds."""
    _check_with(NotImplementedError, cond, message)


def _check_is_size(i: Any, message: Message = None, *, max: int | None = None) -> None:
    """Raise RuntimeError for a number that is no size."""
    warnings.warn(
        "_check_is_size will be removed in a future PyTorch release along with guard_size_oblivious. "
        "    Use _check(i >= 0) instead.",
        FutureWarning,
        stacklevel=2,
    )
    _check(bool(i >= 0), message)
    if max is not None:
        _check(bool(i <= max), message)


def _check_tensor_all_with(error_type: type[Exception], cond: Any, message: Message = None) -> None:
    """Raise an exception of a class unless every element of a bool tensor is true. Raises TypeError for another
    tensor."""
    if not isinstance(cond, Tensor):
        raise TypeError(f"cond must be a tensor, but got {type(cond)}")
    if str(cond.dtype) != "torch.bool":
        raise TypeError(f"cond tensor must have dtype torch.bool, but got {cond.dtype}")
    _check_with(error_type, bool(cond.all()), message)


def _check_tensor_all(cond: Any, message: Message = None) -> None:
    """Raise RuntimeError unless every element of a bool tensor is true."""
    _check_tensor_all_with(RuntimeError, cond, message)


def sym_float(a: Any) -> Any:
    """The number as a float."""
    return float(a)


def sym_int(a: Any) -> Any:
    """The number as an integer, rounded towards zero."""
    if getattr(a, "is_symbolic_int", False):
        return a
    return math.floor(a) if a >= 0 else math.ceil(a)


def _common(a: Any, b: Any) -> builtins.bool:
    return isinstance(a, float) or isinstance(b, float)


def sym_max(a: Any, b: Any) -> Any:
    """The larger number; a float if one of them is."""
    found = a if a >= b else b
    return float(found) if _common(a, b) else found


def sym_min(a: Any, b: Any) -> Any:
    """The smaller number; a float if one of them is."""
    found = a if a <= b else b
    return float(found) if _common(a, b) else found


def sym_not(a: Any) -> builtins.bool:
    """Whether the value is false."""
    return not a


def sym_ite(b: Any, t: Any, f: Any) -> Any:
    """`t` if `b`, else `f`. Raises AssertionError for a condition that is no bool."""
    if not isinstance(b, bool):
        raise AssertionError(f"expected SymBool or bool, got {type(b)}")
    return t if b else f


def sym_sum(args: Any) -> Any:
    """The sum of some sizes."""
    total: Any = 0
    for each in args:
        total = total + each
    return total


def sym_sqrt(a: Any) -> float:
    """The square root of a size, as a float."""
    return math.sqrt(a)


def get_device_module(device: Any = None) -> Any:
    """The module of a kind of device: `torch.cuda`, `torch.cpu`; without one, of the accelerator or the CPU. See
    torch.get_device_module.

    Raises RuntimeError for a kind that has no module."""
    import graphtorch

    if device is None:
        return graphtorch.cuda if graphtorch.cuda.is_available() else graphtorch.cpu
    kind = graphtorch.device(device).type
    if kind not in ("cpu", "cuda", "mps", "xpu"):
        raise RuntimeError(f"Device '{kind}' does not have a corresponding module registered as 'torch.{kind}'.")
    return getattr(graphtorch, kind)


class SymFloat:
    """A float that is not known while a function is captured: such numbers are tensors here, so nothing is an instance.
    For programs that ask."""


class SymBool:
    """A truth value that is not known while a function is captured: questions about sizes are answered, so nothing is
    an instance. For programs that ask."""
