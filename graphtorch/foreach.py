"""`torch._foreach_add` and its kin: one operator on each tensor of a list, as custom optimizers and averages call them.

Eagerly they are loops; under `@compile` the loop is recorded, and its kernels merge as any others do. Names, overloads
and errors are PyTorch's: in-place forms return the list that they were given, the others a tuple."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import graphtorch as torch
from graphtorch import Tensor

Tensors = Sequence[Tensor]

_UNARY = (
    *("abs", "acos", "asin", "atan", "ceil", "cos", "cosh", "erf", "erfc", "exp", "expm1", "floor", "frac", "lgamma"),
    *("log", "log10", "log1p", "log2", "neg", "reciprocal", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh"),
    *("sqrt", "tan", "tanh", "trunc"),
)
# Name -> the operator, the overloads that there are, and what the second parameter of a list is called.
_BINARY = {
    "add": ("add", True, True),
    "sub": ("sub", True, False),
    "mul": ("mul", False, True),
    "div": ("div", False, True),
    "clamp_min": ("clamp_min", False, False),
    "clamp_max": ("clamp_max", False, False),
    "maximum": ("clamp_min", False, False),
    "minimum": ("clamp_max", False, False),
}


def _check(self: Any, *others: Any) -> None:
    if not len(self):
        raise RuntimeError("Tensor list must have at least one tensor.")
    for other in others:
        if len(other) != len(self):
            raise RuntimeError(f"Tensor lists must have the same number of tensors, got {len(self)} and {len(other)}")


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _spread(name: str, self: Tensors, value: Any) -> Sequence[Any]:
    """The second operand of each tensor: of a list, its items; a number or a 0-dimensional tensor, each time."""
    if _is_list(value):
        if value and isinstance(value[0], Tensor):
            _check(self, value)
        elif len(value) != len(self):
            raise RuntimeError("Tensor list must have same number of elements as scalar list.")
        return value  # type: ignore[no-any-return]
    if not isinstance(value, Tensor | bool | int | float | complex) and not hasattr(value, "is_symbolic_int"):
        raise TypeError(
            f"{name}() received an invalid combination of arguments - got (list, {type(value).__name__}), but expected "
            "a list of tensors and a number, a list of numbers or a list of tensors"
        )
    return [value] * len(self)


def _unary(name: str, inplace: bool) -> Callable[..., Any]:
    method = name + "_" * inplace

    def each(self: Tensors) -> Any:
        _check(self)
        made = [getattr(tensor, method)() for tensor in self]
        return self if inplace else tuple(made)

    return each


def _binary(name: str, inplace: bool) -> Callable[..., Any]:
    operator, scaled, takes_tensor = _BINARY[name]
    method, called = operator + "_" * inplace, f"_foreach_{name}" + "_" * inplace

    def each(self: Tensors, other: Any = None, *, alpha: Any = 1, scalar: Any = None, scalars: Any = None) -> Any:
        given = other if other is not None else scalar if scalar is not None else scalars
        _check(self)
        if isinstance(given, Tensor):
            if not takes_tensor:
                raise TypeError(f"{called}() received an invalid combination of arguments - got (list, Tensor)")
            if given.dim() or given.numel() != 1:
                raise RuntimeError(
                    f"scalar tensor expected to be 0 dim but it has {given.dim()} dimensions and {given.numel()} "
                    "elements."
                )
        values = _spread(called, self, given)
        if alpha != 1 and not scaled:
            raise TypeError(f"{called}() got an unexpected keyword argument 'alpha'")
        options = {"alpha": alpha} if alpha != 1 else {}
        made = [getattr(tensor, method)(value, **options) for tensor, value in zip(self, values, strict=True)]
        return self if inplace else tuple(made)

    return each


def _ternary(name: str, inplace: bool) -> Callable[..., Any]:
    method, called = name + "_" * inplace, f"_foreach_{name}" + "_" * inplace

    def each(self: Tensors, tensor1: Tensors, tensor2: Tensors, value: Any = 1, *, scalars: Any = None) -> Any:
        _check(self, tensor1, tensor2)
        given = value if scalars is None else scalars
        if isinstance(given, Tensor):
            if given.dim() != 1 or len(given) != len(self):
                raise RuntimeError(
                    f"Expected packed scalar Tensor to be of dimension 1. Got {given.dim()} instead."
                    if given.dim() != 1
                    else f"Expected length of scalars to match input of length {len(self)} but got {len(given)} "
                    "instead."
                )
            given = given.tolist()
        values = _spread(called, self, given)
        operands = zip(self, tensor1, tensor2, values, strict=True)
        made = [getattr(t, method)(first, second, value=factor) for t, first, second, factor in operands]
        return self if inplace else tuple(made)

    return each


def _lerp(inplace: bool) -> Callable[..., Any]:
    called, method = "_foreach_lerp" + "_" * inplace, "lerp" + "_" * inplace

    def each(self: Tensors, tensors1: Tensors, weight: Any = None, *, weights: Any = None) -> Any:
        _check(self, tensors1)
        values = _spread(called, self, weight if weights is None else weights)
        made = [getattr(t, method)(end, w) for t, end, w in zip(self, tensors1, values, strict=True)]
        return self if inplace else tuple(made)

    return each


def _pow(self: Any, exponent: Any) -> tuple[Tensor, ...]:
    if not _is_list(self):
        _check(exponent)
        return tuple([torch.pow(self, e) for e in exponent])
    _check(self)
    return tuple([t.pow(e) for t, e in zip(self, _spread("_foreach_pow", self, exponent), strict=True)])


def _pow_(self: Tensors, exponent: Any) -> Tensors:
    _check(self)
    for tensor, each in zip(self, _spread("_foreach_pow_", self, exponent), strict=True):
        tensor.pow_(each)
    return self


def _norm(self: Tensors, ord: Any = 2, dtype: Any = None) -> tuple[Tensor, ...]:
    _check(self)
    return tuple([torch.linalg.vector_norm(t, ord, dtype=dtype) for t in self])


def _powsum(self: Tensors, ord: Any = 2, dtype: Any = None) -> tuple[Tensor, ...]:
    _check(self)
    return tuple([t.abs().pow(ord).sum(dtype=dtype) for t in self])


def _max(self: Tensors) -> tuple[Tensor, ...]:
    _check(self)
    return tuple([t.max() for t in self])


def _mm(self: Tensors, mat2: Tensors) -> tuple[Tensor, ...]:
    _check(self, mat2)
    return tuple([a.mm(b) for a, b in zip(self, mat2, strict=True)])


def _clone(self: Tensors, *, memory_format: Any = None) -> tuple[Tensor, ...]:
    _check(self)
    options = {} if memory_format is None else {"memory_format": memory_format}
    return tuple([t.clone(**options) for t in self])


def _copy_(self: Tensors, src: Tensors, non_blocking: bool = False) -> Tensors:
    _check(self, src)
    for tensor, source in zip(self, src, strict=True):
        tensor.copy_(source, non_blocking)
    return self


def _zero_(self: Tensors) -> Tensors:
    _check(self)
    for tensor in self:
        tensor.zero_()
    return self


def _made() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {
        **{"pow": _pow, "pow_": _pow_, "norm": _norm, "powsum": _powsum, "max": _max, "mm": _mm},
        **{"clone": _clone, "copy_": _copy_, "zero_": _zero_, "lerp": _lerp(False), "lerp_": _lerp(True)},
    }
    for inplace in (False, True):
        end = "_" * inplace
        found.update({name + end: _unary(name, inplace) for name in _UNARY})
        found.update({name + end: _binary(name, inplace) for name in _BINARY})
        found.update({name + end: _ternary(name, inplace) for name in ("addcdiv", "addcmul")})
    named = {}
    for name, function in found.items():
        function.__name__ = function.__qualname__ = f"_foreach_{name}"
        function.__doc__ = f"`Tensor.{name}` of each tensor of a list."
        named[function.__name__] = function
    return named


FUNCTIONS = _made()


def __getattr__(name: str) -> Any:
    try:
        return FUNCTIONS[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
