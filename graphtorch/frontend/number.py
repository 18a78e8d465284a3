"""The `number` operator: a one-element tensor as a run-time Python number (what `.item()` is while recording)."""

from __future__ import annotations

from typing import Any

from graphtorch.ops.build import operator
from graphtorch.ops.record import POINTWISE
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.type import TensorType


def _number_dtype(input: Any) -> dtype:
    """Python's number type for a tensor's category."""
    own: dtype = input.dtype
    if own is dtypes.bool_:
        return own
    floating = own.is_floating_point
    return dtypes.float64 if floating else dtypes.int64


def _number_type(input: Any) -> TensorType:
    return TensorType(_number_dtype(input), (), input.device, is_number=True)


def _numpy_number(input: Any) -> Any:
    value = input.item() if hasattr(input, "item") else input
    return float(value) if hasattr(input, "dtype") and input.dtype.kind == "V" else value


def _to_cast(input: Any) -> Any:
    return None if len(input.shape) == 0 else number(input.reshape(()))


number = operator(
    "number(Tensor input)",
    type=_number_type,
    numpy=_numpy_number,
    kind=POINTWISE,
    scalar="cast",
    compute=_number_dtype,
    decompose=_to_cast,
    public=False,
    method=False,
    doc="The value of a one-element tensor as a run-time number, which promotes as a Python number does.",
)
