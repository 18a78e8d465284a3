"""The legacy tensor types `FloatTensor`, `LongTensor` and so on: constructors, and classes for `isinstance`.

See https://docs.pytorch.org/docs/stable/tensors.html."""

from __future__ import annotations

from typing import Any

from graphtorch.tensor import dtypes
from graphtorch.tensor.creation import legacy_constructor
from graphtorch.tensor.devices import CPU
from graphtorch.tensor.tensor import Tensor


class TensorType(type):
    """The class of the legacy types: calling one makes an ordinary tensor of its dtype."""

    dtype: dtypes.dtype

    def __new__(mcls, name: str, dtype: dtypes.dtype) -> TensorType:
        return super().__new__(mcls, name, (), {"__module__": "torch", "dtype": dtype, "is_cuda": False})

    def __init__(cls, name: str, dtype: dtypes.dtype) -> None:
        super().__init__(name, (), {})

    def __call__(cls, *args: Any) -> Tensor:
        return legacy_constructor(*args, dtype=cls.dtype)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance._dtype is cls.dtype and instance._device is CPU

    def __repr__(cls) -> str:
        return f"<class 'torch.{cls.__name__}'>"


BoolTensor = TensorType("BoolTensor", dtypes.bool_)
ByteTensor = TensorType("ByteTensor", dtypes.uint8)
CharTensor = TensorType("CharTensor", dtypes.int8)
ShortTensor = TensorType("ShortTensor", dtypes.int16)
IntTensor = TensorType("IntTensor", dtypes.int32)
LongTensor = TensorType("LongTensor", dtypes.int64)
HalfTensor = TensorType("HalfTensor", dtypes.float16)
BFloat16Tensor = TensorType("BFloat16Tensor", dtypes.bfloat16)
FloatTensor = TensorType("FloatTensor", dtypes.float32)
DoubleTensor = TensorType("DoubleTensor", dtypes.float64)


def set_default_tensor_type(t: str | TensorType) -> None:
    """Set the floating type of new tensors by a legacy type or its name. See torch.set_default_tensor_type.

    Raises TypeError for a type that is not of floating point, ValueError for an unknown name.
    """
    if isinstance(t, str):
        found = globals().get(t.removeprefix("torch."))
        if not isinstance(found, TensorType):
            raise ValueError(f"invalid type: '{t}'")
        t = found
    dtypes.set_default_dtype(t.dtype)
