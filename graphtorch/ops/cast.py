"""Conversions of dtype, device and layout, copies, and filling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from graphtorch.autograd.graph import record_call, renamed
from graphtorch.autograd.state import state
from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.dispatch import call, call_inplace, on_device, transfer
from graphtorch.ops.pointwise import broadcast_shapes
from graphtorch.ops.record import POINTWISE, VIEW, Sample, sample
from graphtorch.ops.strides import copied_by_rows, laid_out, layout_of, strides_in, suggested_format, under
from graphtorch.tensor import dtypes
from graphtorch.tensor.devices import CPU, META, canonical
from graphtorch.tensor.devices import device as device_class
from graphtorch.tensor.dtypes import dtype as dtype_class
from graphtorch.tensor.formats import ORDERS, contiguous_format, format_name, lies_in
from graphtorch.tensor.tensor import Tensor, meta_array
from graphtorch.tensor.type import TensorType

# -- dtype ------------------------------------------------------------------------------------------------------------


def convert(array: Any, d: dtype_class) -> Any:
    """A NumPy array in another dtype: a complex one gives its real part, and bool is `!= 0`."""
    if d.category < dtypes.COMPLEX and np.iscomplexobj(array) and d is not dtypes.bool_:
        array = np.real(array)
    return np.asarray(array).astype(d.numpy)


def _cast_samples(make: Any) -> Iterable[Sample]:
    for target in dtypes.ALL_DTYPES:
        if target.is_complex or not make.dtype.is_complex:
            yield sample(make(3, 4), target)


cast = operator(
    "cast(Tensor input, dtype dtype)",
    type=lambda input, dtype: TensorType(dtype, tuple(input.shape), input.device),
    numpy=lambda input, dtype: convert(input, dtype),
    kind=POINTWISE,
    derivative={"input": lambda g: g},  # the tape casts every cotangent to its operand's dtype
    scalar="cast",
    compute=lambda input, dtype: (input.dtype,),
    samples=_cast_samples,
    categories="bifc",
    grad_name="ToCopyBackward0",
    public=False,
    method=False,
)


to_device = operator(
    "to_device(Tensor input, device device)",
    type=lambda input, device: TensorType(input.dtype, tuple(input.shape), device),
    numpy=lambda input, device: np.array(input, order="K", copy=True),
    kind=POINTWISE,
    derivative={"input": lambda g, input_type: FUNCTIONS["to"](g, input_type.device)},
    decompose=lambda input, device: FUNCTIONS["clone"](input),
    compute=lambda input, device: input.dtype,
    samples=lambda make: [sample(make(3, 4), CPU)],
    categories="bifc",
    grad_name="ToCopyBackward0",
    public=False,
    method=False,
)


def _move(input: Tensor, target: device_class, non_blocking: bool) -> Tensor:
    """A copy on another device, with the same strides where they are dense.

    Raises NotImplementedError for a tensor without data, AssertionError where there is no such device.
    """
    op = to_device.operator  # type: ignore[attr-defined]
    if state.recorder is not None:
        moved: Tensor = call(op, (input, target))
        return moved
    if target is META:
        result = Tensor._wrap(meta_array(tuple(input.shape), input.dtype), input.dtype)
        result._device = META
    elif input._device is META:
        raise NotImplementedError("Cannot copy out of meta tensor; no data!")
    elif target is CPU:
        result = Tensor._wrap(input._data.host(), input._dtype)
    else:
        data = input._data
        result = on_device(
            transfer(target).to_device(data, target, non_blocking)
            if input._device is CPU
            else transfer(target).to_other(data, target)
        )
    if state.inference:
        result._inference = True
    if state.grad_enabled and input.requires_grad:
        record_call(op, (input, target), result)
    return result


@function(method=True)
def to(input: Any, *args: Any, **kwargs: Any) -> Any:
    """Another dtype, device or both; `input` itself where nothing changes and `copy` is false. See torch.Tensor.to.

    Takes `(dtype, non_blocking, copy)`, `(device, dtype, non_blocking, copy)` or `(other, non_blocking, copy)`.
    """
    d: Any = kwargs.pop("dtype", None)
    target: Any = kwargs.pop("device", None)
    copy = kwargs.pop("copy", False)
    non_blocking = bool(kwargs.pop("non_blocking", False))
    layout = kwargs.pop("memory_format", None)
    rest = list(args)
    if "other" in kwargs:
        rest.insert(0, kwargs.pop("other"))
    if kwargs:
        raise TypeError(f"to() got an unexpected keyword argument '{next(iter(kwargs))}'")
    if rest:
        first = rest.pop(0)
        if isinstance(first, Tensor):
            d, target = first.dtype, first.device
        elif isinstance(first, dtype_class) or first in (float, int, bool):
            d = first
        elif isinstance(first, str | device_class | int):
            target = first
            if rest and (isinstance(rest[0], dtype_class) or rest[0] in (float, int, bool)) and rest[0] is not True:
                d = rest.pop(0)
        elif first is not None:
            raise TypeError(
                f"to() received an invalid combination of arguments - got ({type(first).__name__}), but expected a "
                "dtype, a device or a Tensor"
            )
        elif rest and isinstance(rest[0], dtype_class):
            d = rest.pop(0)
        if rest:
            non_blocking = bool(rest[0])
        if len(rest) > 1:
            copy = rest[1]
    if d is float:
        d = dtypes.get_default_dtype()
    elif d is int or d is bool:
        d = dtypes.int64 if d is int else dtypes.bool_
    result = input
    if target is not None:
        wanted = canonical(target)
        if wanted != input.device:
            if d is not None and d is not input.dtype and wanted.type == "cpu":
                input, d = call(cast.operator, (input, d)), None  # type: ignore[attr-defined]
            result = _move(input, wanted, non_blocking)
    if d is not None and (d is not result.dtype or result.is_number):
        result = call(cast.operator, (result, d))  # type: ignore[attr-defined]
    elif copy and result is input:
        return clone(input, memory_format=layout)
    order = format_name(layout)
    if order is None:
        return result
    found = result._layout()
    if suggested_format(*layout_of(found)) == order if result is input else lies_in(found, order):
        return result
    return call(_clone.operator, (result, order))  # type: ignore[attr-defined]


def _conversion(name: str, d: dtype_class) -> None:
    def convert_to(input: Any, memory_format: Any = None) -> Any:
        return to(input, d, memory_format=memory_format)

    convert_to.__name__ = convert_to.__qualname__ = name
    convert_to.__doc__ = f"`to(torch.{d.name})`."
    setattr(Tensor, name, convert_to)


for _name, _target in (
    ("double", dtypes.float64),
    ("half", dtypes.float16),
    ("bfloat16", dtypes.bfloat16),
    ("int", dtypes.int32),
    ("long", dtypes.int64),
    ("short", dtypes.int16),
    ("char", dtypes.int8),
    ("byte", dtypes.uint8),
    ("bool", dtypes.bool_),
    ("cfloat", dtypes.complex64),
    ("cdouble", dtypes.complex128),
    ("float", dtypes.float32),
):
    _conversion(_name, _target)


def _type_as(input: Any, other: Any) -> Any:
    """`to(other.dtype)`. See torch.Tensor.type_as."""
    if not isinstance(other, Tensor):
        raise TypeError(f"type_as(): argument 'other' (position 1) must be Tensor, not {type(other).__name__}")
    return input.to(other.dtype)


LEGACY_TYPES = {
    "torch.FloatTensor": dtypes.float32,
    "torch.DoubleTensor": dtypes.float64,
    "torch.HalfTensor": dtypes.float16,
    "torch.BFloat16Tensor": dtypes.bfloat16,
    "torch.ByteTensor": dtypes.uint8,
    "torch.CharTensor": dtypes.int8,
    "torch.ShortTensor": dtypes.int16,
    "torch.IntTensor": dtypes.int32,
    "torch.LongTensor": dtypes.int64,
    "torch.BoolTensor": dtypes.bool_,
    "torch.ComplexFloatTensor": dtypes.complex64,
    "torch.ComplexDoubleTensor": dtypes.complex128,
}


def _type(input: Any, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The legacy name of the tensor's type, or a conversion to a dtype given as such or by that name. See
    torch.Tensor.type.
    """
    if dtype is None:
        name = next(name for name, d in LEGACY_TYPES.items() if d is input.dtype)
        return name.replace("torch.", "torch.cuda.") if input.is_cuda else name
    if isinstance(dtype, str):
        name = dtype.replace("torch.cuda.", "torch.")
        if name not in LEGACY_TYPES:
            raise ValueError(f"invalid type: '{dtype}'")
        place = "cuda" if name != dtype else "cpu"
        dtype = LEGACY_TYPES[name]
    elif hasattr(dtype, "is_cuda"):  # one of the legacy types, which say where tensors lie
        place, dtype = "cuda" if dtype.is_cuda else "cpu", dtype.dtype
    else:
        return input.to(dtype)
    kept = input.device if input.device.type in (place, "meta") else place
    return input.to(device=kept, dtype=dtype, non_blocking=non_blocking)


def _cpu(input: Any, memory_format: Any = None) -> Any:
    """`to("cpu")`."""
    return input.to("cpu", memory_format=memory_format)


def _cuda(input: Any, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Any:
    """`to("cuda")`."""
    where = "cuda" if device is None else device
    return input.to(where, non_blocking=non_blocking, memory_format=memory_format)


Tensor.type = _type  # type: ignore[attr-defined]
Tensor.type_as = _type_as  # type: ignore[attr-defined]
Tensor.cpu = _cpu  # type: ignore[attr-defined]
Tensor.cuda = _cuda  # type: ignore[attr-defined]

# -- copies -----------------------------------------------------------------------------------------------------------


def _clone_type(input: Any, memory_format: str | None) -> TensorType:
    order = ORDERS.get(memory_format or "")
    if order is not None and len(input.shape) != len(order):
        raise RuntimeError(f"required rank {len(order)} tensor to use {memory_format} format")
    return TensorType(input.dtype, tuple(input.shape), input.device)


def _numpy_clone(input: Any, memory_format: str | None) -> Any:
    order, input = ORDERS.get(memory_format or ""), np.asarray(input)  # it may be a number
    if memory_format == "contiguous_format":
        return copied_by_rows(input)
    if order is None:
        made = np.array(input, copy=True)
        if made.strides == input.strides or not (1 in made.shape or 0 in input.strides):
            return made
        # NumPy's strides are other ones than PyTorch's where there is one element, or one for many.
        strides = strides_in(None, made.shape, layout_of(input))
        if all(n == 1 or s == w * made.itemsize for n, s, w in zip(made.shape, made.strides, strides, strict=True)):
            return under(made, strides)
        return laid_out(made, strides)
    copied = copied_by_rows(np.transpose(input, order))
    return np.transpose(copied, np.argsort(order))


def _clone_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4))
    yield sample(make(), memory_format="contiguous_format")
    yield sample(make(2, 3, 2, 2), memory_format="channels_last")


_clone = operator(
    "clone(Tensor input, *, str? memory_format=None)",
    type=_clone_type,
    numpy=_numpy_clone,
    kind=POINTWISE,
    derivative={"input": lambda g: g},
    scalar="copy",
    compute=lambda input, memory_format: input.dtype,
    samples=_clone_samples,
    categories="bifc",
    public=False,
    method=False,
)


@function(method=True)
def clone(input: Any, *, memory_format: Any = None) -> Any:
    """A copy with the same strides where they are dense. See torch.clone."""
    return call(_clone.operator, (input, format_name(memory_format)))  # type: ignore[attr-defined]


def contiguous(input: Any, memory_format: Any = None) -> Any:
    """The tensor itself if its memory is in the given order (row-major by default), a copy otherwise.

    See torch.Tensor.contiguous.
    """
    name = format_name(contiguous_format if memory_format is None else memory_format)
    if name is None:
        raise RuntimeError("preserve memory format is unsupported by the contiguous operator")
    if lies_in(input._layout(), name):
        return input
    return call(_clone.operator, (input, name))  # type: ignore[attr-defined]


Tensor.contiguous = contiguous  # type: ignore[attr-defined]

_detach = operator(
    "detach(Tensor input)",
    type=lambda input: TensorType(input.dtype, tuple(input.shape), input.device, input.is_number),
    numpy=lambda input: np.asarray(input).view(),
    kind=VIEW,
    scatter=lambda base, new: new,
    samples=lambda make: [sample(make(3, 4))],
    categories="bifc",
    public=False,
    method=False,
)


@function(method=True)
def detach(input: Any) -> Any:
    """The same memory outside the autograd graph. See torch.Tensor.detach."""
    if state.recorder is not None:
        return call(_detach.operator, (input,))  # type: ignore[attr-defined]
    return input._alias()


# -- writing ----------------------------------------------------------------------------------------------------------


def _copy_type(input: Any, src: Any, non_blocking: bool) -> TensorType:
    shape = broadcast_shapes(input.shape, src.shape)
    if tuple(shape) != tuple(input.shape):
        raise RuntimeError(f"output with shape {list(input.shape)} doesn't match the broadcast shape {list(shape)}")
    return TensorType(input.dtype, tuple(input.shape), input.device)


def _copy_into(input: Any, src: Any, non_blocking: bool) -> bool:
    """Copy an array of the same dtype, whatever it has in common with the target."""
    if type(src) is not np.ndarray or src.dtype != input.dtype:
        return False
    np.copyto(input, src)
    return True


def _fill_into(input: Any, value: Any) -> bool:
    """Fill with a number, or with an array's one element."""
    if type(value) is int and value == 0 and input.ndim and input.flags.c_contiguous:
        input.view(np.uint8).fill(0)  # several times as fast
        return True
    if type(value) is np.ndarray:
        if value.dtype != input.dtype:
            return False
        value = value[()]
    elif type(value) not in (int, float) or input.dtype.kind != "f" or input.itemsize < 4:
        return False
    input.fill(value)
    return True


_copy = operator(
    "copy(Tensor input, Tensor src, bool non_blocking=False)",
    type=_copy_type,
    numpy=lambda input, src, non_blocking: np.broadcast_to(
        convert(src, dtypes.from_numpy_dtype(input.dtype)), input.shape
    ).copy(),
    kind=POINTWISE,
    derivative={"input": lambda g: FUNCTIONS["zeros_like"](g), "src": lambda g: g},
    decompose=lambda input, src, non_blocking: src.to(input.dtype).expand(tuple(input.shape)).clone(),
    compute=lambda input, src, non_blocking: input.dtype,
    samples=lambda make: [sample(make(3, 4), make(3, 4)), sample(make(3, 4), make(4))],
    categories="bifc",
    grad_name="torch::autograd::CopyBackwards",
    update=_copy_into,
)


def _copy_(input: Any, src: Any, non_blocking: bool = False) -> Any:
    """Copy the elements of `src`, broadcast and cast, into this tensor. See torch.Tensor.copy_."""
    if not isinstance(src, Tensor):
        raise TypeError(f"copy_(): argument 'other' (position 1) must be Tensor, not {type(src).__name__}")
    if src._device is not input._device and input._device is not META:
        src = to(src, input._device, src._dtype, non_blocking)
    return call_inplace(_copy.operator, (input, src, non_blocking))  # type: ignore[attr-defined]


Tensor.copy_ = _copy_  # type: ignore[attr-defined]


def _fill_type(input: Any, value: Any) -> TensorType:
    if hasattr(value, "shape") and len(value.shape) != 0:
        raise RuntimeError(
            f"fill_ only supports 0-dimension value tensor but got tensor with {len(value.shape)} dimensions."
        )
    dtypes.check_fits(value, input.dtype, fill=True)
    return TensorType(input.dtype, tuple(input.shape), input.device)


def _decompose_fill(input: Any, value: Any) -> Any:
    if hasattr(value, "shape"):
        return value.to(input.dtype).expand(tuple(input.shape)).clone()
    return FUNCTIONS["full"](tuple(input.shape), value, dtype=input.dtype, device=input.device)


fill = operator(
    "fill(Tensor input, Tensor|Number value)",
    overload=lambda input, value: 3 if hasattr(value, "shape") else 2,
    type=_fill_type,
    numpy=lambda input, value: np.full_like(input, convert(value, dtypes.from_numpy_dtype(input.dtype))),
    kind=POINTWISE,
    derivative={"input": lambda g: FUNCTIONS["zeros_like"](g), "value": lambda g: g.sum()},
    decompose=_decompose_fill,
    compute=lambda input, value: input.dtype,
    samples=lambda make: [sample(make(3, 4), 1), sample(make(3, 4), make())],
    categories="bifc",
    inplace=True,
    update=_fill_into,
)

_fill_ = FUNCTIONS["fill_"]


@function(method=True)
def zero_(input: Any) -> Any:
    """Set every element to zero. See torch.Tensor.zero_."""
    return renamed(_fill_(input, 0), "ZeroBackward0")
