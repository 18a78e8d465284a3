"""Pointwise operators of three operands: sums with a product or quotient, and linear interpolation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from graphtorch.ops.arithmetic import conjugate, is_one
from graphtorch.ops.build import FUNCTIONS, operator
from graphtorch.ops.pointwise import (
    common,
    cpp_name,
    in_float32,
    is_16_bit_float,
    not_implemented,
    pointwise_type,
    promoted,
    refuse,
)
from graphtorch.ops.record import POINTWISE, Sample, sample
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

# -- three operands ---------------------------------------------------------------------------------------------------


def _addcmul_type(input: Any, tensor1: Any, tensor2: Any, value: Any) -> TensorType:
    refuse("addcmul_cpu_out", "b")(input, tensor1, tensor2)
    return pointwise_type((input, tensor1, tensor2), common(input, tensor1, tensor2))


def _scale(value: Any, d: np.dtype[Any]) -> Any:
    """A number in the dtype that the operands compute in, which for 16-bit floats is float32; integers truncate it."""
    if (d.char == "f" or d.char == "d") and (type(value) is float or type(value) is int):
        return d.type(value)
    scale = np.asarray(value)
    return scale.astype(np.float32 if is_16_bit_float(d) and type(value) is not np.ndarray else d)


@in_float32
def _sum_of_product(x: Any, a: Any, b: Any, value: Any) -> Any:
    return x + value * a * b


@in_float32
def _sum_of_quotient(x: Any, a: Any, b: Any, value: Any) -> Any:
    return x + value * a / b


def _numpy_addcmul(input: Any, tensor1: Any, tensor2: Any, value: Any) -> Any:
    x, a, b = promoted(common, (input, tensor1, tensor2))
    return _sum_of_product(x, a, b, _scale(value, x.dtype))


def _scaled(value: Any, factor: Any, like: Any) -> Any:
    """`value * factor`, in the dtype `like` that the whole computes in, without the product by a constant 1. Integers
    truncate the number as PyTorch does."""
    if is_one(value):
        return factor
    if factor.dtype.category < like.category:
        factor = factor.to(like)
    if like.category < dtypes.FLOATING:
        value = value.to(like) if hasattr(value, "dtype") else int(value) if isinstance(value, float) else value
    return factor * value


def _three_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), make(3, 4), make(3, 4, low=0.5))
    yield sample(make(3, 4), make(4), make(3, 1, low=0.5), value=2)


addcmul = operator(
    "addcmul(Tensor input, Tensor tensor1, Tensor tensor2, *, Number value=1)",
    type=_addcmul_type,
    numpy=_numpy_addcmul,
    kind=POINTWISE,
    derivative={
        "input": lambda g: g,
        "tensor1": lambda g, tensor2, value: g * conjugate(_scaled(value, tensor2, g.dtype)),
        "tensor2": lambda g, tensor1, value: g * conjugate(_scaled(value, tensor1, g.dtype)),
    },
    decompose=lambda input, tensor1, tensor2, value: (
        input + _scaled(value, tensor1, common(input, tensor1, tensor2)) * tensor2
    ),
    compute=lambda input, tensor1, tensor2, value: common(input, tensor1, tensor2),
    samples=_three_samples,
    categories="ifc",
    inplace=True,
    out=True,
)


def _addcdiv_type(input: Any, tensor1: Any, tensor2: Any, value: Any) -> TensorType:
    if common(tensor1, tensor2).category < dtypes.FLOATING:
        raise RuntimeError(
            "Integer division with addcdiv is no longer supported, and in a future  release addcdiv will perform a "
            "true division of tensor1 and tensor2. The historic addcdiv behavior can be implemented as (input + value "
            "* torch.trunc(tensor1 / tensor2)).to(input.dtype) for integer inputs and as (input + value * tensor1 / "
            "tensor2) for float inputs. The future addcdiv behavior is just the latter implementation: (input + value "
            "* tensor1 / tensor2), for all dtypes."
        )
    return pointwise_type((input, tensor1, tensor2), common(input, tensor1, tensor2))


def _numpy_addcdiv(input: Any, tensor1: Any, tensor2: Any, value: Any) -> Any:
    x, a, b = promoted(common, (input, tensor1, tensor2))
    return _sum_of_quotient(x, a, b, _scale(value, x.dtype))


addcdiv = operator(
    "addcdiv(Tensor input, Tensor tensor1, Tensor tensor2, *, Number value=1)",
    type=_addcdiv_type,
    numpy=_numpy_addcdiv,
    kind=POINTWISE,
    derivative={
        "input": lambda g: g,
        "tensor1": lambda g, tensor2, value: _scaled(value, g, g.dtype) / conjugate(tensor2),
        "tensor2": lambda g, tensor1, tensor2, value: (
            -_scaled(value, g, g.dtype) * conjugate(tensor1 / (tensor2 * tensor2))
        ),
    },
    decompose=lambda input, tensor1, tensor2, value: (
        input + _scaled(value, tensor1, common(input, tensor1, tensor2)) / tensor2
    ),
    compute=lambda input, tensor1, tensor2, value: common(input, tensor1, tensor2),
    samples=_three_samples,
    categories="fc",
    inplace=True,
    out=True,
)


def _lerp_type(input: Any, end: Any, weight: Any) -> TensorType:
    operands = [("end", end)] + ([("weight", weight)] if hasattr(weight, "shape") and not _is_number(weight) else [])
    for name, value in operands:
        if value.dtype is not input.dtype:
            raise RuntimeError(
                f"expected dtype {cpp_name(input.dtype)} for `{name}` but got dtype {cpp_name(value.dtype)}"
            )
    if input.dtype.category < dtypes.FLOATING:
        raise not_implemented("lerp_kernel_" + ("scalar" if len(operands) == 1 else "tensor"), input.dtype)
    return pointwise_type((input, *(v for _, v in operands)), input.dtype)


def _is_number(value: Any) -> bool:
    """Whether an operand is a Python number, also one that became a run-time value."""
    return not hasattr(value, "shape") or getattr(value, "is_number", False)


def _numpy_lerp(input: Any, end: Any, weight: Any) -> Any:
    return _interpolate(input, end, _scale(weight, input.dtype))


@in_float32
def _interpolate(start: Any, end: Any, weight: Any) -> Any:
    # From the nearer end, as in PyTorch, so that both ends are reached exactly.
    gap = end - start
    if not np.ndim(weight):
        return start + weight * gap if np.abs(weight) < 0.5 else end - gap * (1 - weight)
    return np.where(np.abs(weight) < 0.5, start + weight * gap, end - gap * (1 - weight))


def _decompose_lerp(input: Any, end: Any, weight: Any) -> Any:
    gap = end - input
    from_start = input + weight * gap
    from_end = end - gap * (1 - weight)
    if not hasattr(weight, "shape"):
        return from_start if abs(weight) < 0.5 else from_end
    return FUNCTIONS["where"](weight.abs() < 0.5, from_start, from_end)


def _lerp_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), make(3, 4), 0.3)
    yield sample(make(3, 4), make(4), 0.75)
    yield sample(make(3, 4), make(3, 4), make(3, 4, low=0.0, high=1.0))


lerp = operator(
    "lerp(Tensor input, Tensor end, Tensor|Number weight)",
    type=_lerp_type,
    numpy=_numpy_lerp,
    kind=POINTWISE,
    derivative={
        "input": lambda g, weight: g * conjugate(1 - weight),
        "end": lambda g, weight: g * conjugate(weight),
        "weight": lambda g, input, end: g * conjugate(end - input),
    },
    decompose=_decompose_lerp,
    overload=lambda input, end, weight: 1 if hasattr(weight, "shape") else 0,
    compute=lambda input, end, weight: input.dtype,
    samples=_lerp_samples,
    categories="fc",
    inplace=True,
    out=True,
)
