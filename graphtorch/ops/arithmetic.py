"""Arithmetic on two operands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from graphtorch.ops.build import method, operator
from graphtorch.ops.pointwise import binary, common, common_float, numpy_binary, pointwise_type
from graphtorch.ops.record import POINTWISE, Sample, sample
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType


def _refuse_bool(name: str) -> Any:
    def check(input: Any, other: Any, alpha: Any = 1) -> None:
        if getattr(input, "dtype", None) is dtypes.bool_ and (
            isinstance(other, bool) or getattr(other, "dtype", None) is dtypes.bool_
        ):
            raise RuntimeError(
                "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` operator "
                "instead."
            )

    return check


def _check_alpha(d: dtypes.dtype, alpha: Any) -> None:
    if isinstance(alpha, float) and d.category < dtypes.FLOATING:
        raise RuntimeError("For integral input tensors, argument alpha must not be a floating point number.")
    if isinstance(alpha, bool) and d is not dtypes.bool_:
        raise RuntimeError("Boolean alpha only supported for Boolean results.")


def _sum_type(input: Any, other: Any, alpha: Any) -> TensorType:
    d = common(input, other)
    _check_alpha(d, alpha)
    return pointwise_type((input, other), d)


def _difference_type(input: Any, other: Any, alpha: Any) -> TensorType:
    _refuse_bool("sub")(input, other)
    return _sum_type(input, other, alpha)


_add = numpy_binary(np.add, common)
_subtract = numpy_binary(np.subtract, common)
_multiply = numpy_binary(np.multiply, common)


def _numpy_add(input: Any, other: Any, alpha: Any) -> Any:
    if alpha is not True and (type(alpha) is not int or alpha != 1):
        other = _multiply(other, alpha)
    return _add(input, other)


def _numpy_sub(input: Any, other: Any, alpha: Any) -> Any:
    if type(alpha) is not int or alpha != 1:
        other = _multiply(other, alpha)
    return _subtract(input, other)


def _alpha_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), make(3, 4))
    yield sample(make(3, 1), make(4), alpha=2)
    yield sample(make(2, 3), make())
    yield sample(make(2, 3), 3)


def _is_one(alpha: Any) -> bool:
    return isinstance(alpha, int) and alpha == 1


# Law: x + alpha y. The scalar instruction has alpha = 1; any other is a product first.
add = operator(
    "add(Tensor input, Tensor|Number other, *, Number alpha=1)",
    type=_sum_type,
    numpy=_numpy_add,
    kind=POINTWISE,
    derivative={
        "input": lambda g: g,
        "other": lambda g, alpha: g if _is_one(alpha) else g * alpha,
    },
    scalar="add",
    compute=lambda input, other, alpha: common(input, other),
    decompose=lambda input, other, alpha: None if _is_one(alpha) else input + other * alpha,
    samples=_alpha_samples,
    categories="bifc",
    lazy_check=True,
    inplace=True,
    out=True,
)

sub = operator(
    "sub(Tensor input, Tensor|Number other, *, Number alpha=1)",
    type=_difference_type,
    numpy=_numpy_sub,
    kind=POINTWISE,
    derivative={
        "input": lambda g: g,
        "other": lambda g, alpha: -g if _is_one(alpha) else -(g * alpha),
    },
    scalar="sub",
    compute=lambda input, other, alpha: common(input, other),
    decompose=lambda input, other, alpha: None if _is_one(alpha) else input - other * alpha,
    samples=_alpha_samples,
    categories="ifc",
    inplace=True,
    out=True,
)

mul = binary(
    "mul",
    np.multiply,
    {"input": lambda g, other: g * _conj(other), "other": lambda g, input: g * _conj(input)},
)


def _conj(value: Any) -> Any:
    """The conjugate, for the derivatives of holomorphic functions; a real value is its own."""
    if isinstance(value, complex):
        return value.conjugate()
    d = getattr(value, "dtype", None)
    return value.conj() if d is not None and d.is_complex else value


def _is_number(value: Any) -> bool:
    return not hasattr(value, "shape")


@method("__add__")
def _dunder_add(self: Any, other: Any) -> Any:
    return add(self, other)
