"""The legacy tensor types `FloatTensor`, `LongTensor` and so on: constructors, and classes for `isinstance`.

See https://docs.pytorch.org/docs/stable/tensors.html."""

from __future__ import annotations

from typing import Any

from graphtorch.tensor import dtypes
from graphtorch.tensor.creation import legacy_constructor
from graphtorch.tensor.devices import CPU, set_default_device
from graphtorch.tensor.tensor import Tensor


class TensorType(type):
    """The class of the legacy types: calling one makes an ordinary tensor of its dtype."""

    dtype: dtypes.dtype
    is_cuda: bool

    def __new__(mcls, name: str, dtype: dtypes.dtype, is_cuda: bool = False) -> TensorType:
        space = {"__module__": "torch.cuda" if is_cuda else "torch", "dtype": dtype, "is_cuda": is_cuda}
        return super().__new__(mcls, name, (), space)

    def __init__(cls, name: str, dtype: dtypes.dtype, is_cuda: bool = False) -> None:
        super().__init__(name, (), {})

    def check(cls) -> None:
        """Raise TypeError if there is no device for tensors of this type."""
        if cls.is_cuda:
            from graphtorch.cuda import is_available

            if not is_available():
                raise TypeError(f"type torch.cuda.{cls.__name__} not available. Torch not compiled with CUDA enabled.")

    def __call__(cls, *args: Any) -> Tensor:
        cls.check()
        return legacy_constructor(*args, dtype=cls.dtype, device="cuda" if cls.is_cuda else None)

    def __instancecheck__(cls, instance: Any) -> bool:
        if not isinstance(instance, Tensor) or instance._dtype is not cls.dtype:
            return False
        return instance._device.type == "cuda" if cls.is_cuda else instance._device is CPU

    def __repr__(cls) -> str:
        return f"<class '{cls.__module__}.{cls.__name__}'>"


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

# The same on CUDA devices, `torch.cuda.FloatTensor` and so on.
CUDA = {
    each.__name__: TensorType(each.__name__, each.dtype, True)
    for each in (
        *(BoolTensor, ByteTensor, CharTensor, ShortTensor, IntTensor, LongTensor),
        *(HalfTensor, BFloat16Tensor, FloatTensor, DoubleTensor),
    )
}


def set_default_tensor_type(t: str | TensorType) -> None:
    """Set the floating type of new tensors by a legacy type or its name. See torch.set_default_tensor_type.

    Types of CUDA devices also make new tensors lie there.

    Raises TypeError for a type that is not of floating point or has no device, ValueError for an unknown name.
    """
    if isinstance(t, str):
        name = t.removeprefix("torch.")
        found = CUDA.get(name.removeprefix("cuda.")) if name.startswith("cuda.") else globals().get(name)
        if not isinstance(found, TensorType):
            raise ValueError(f"invalid type: '{t}'")
        t = found
    t.check()
    dtypes.set_default_dtype(t.dtype)
    if t.is_cuda:
        set_default_device("cuda")
