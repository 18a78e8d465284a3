"""Tensors from Python data and NumPy arrays: `tensor`, `as_tensor`, `from_numpy` and the legacy constructor.

While a graph is being captured, these make concrete tensors all the same: the recorder takes them as constants when an
operator first uses them.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from graphtorch.autograd.state import recorder_paused, state
from graphtorch.tensor import dtypes
from graphtorch.tensor.devices import META, canonical
from graphtorch.tensor.dtypes import dtype as dtype_class
from graphtorch.tensor.tensor import Tensor, meta_array

# -- dtype and shape of Python data -----------------------------------------------------------------------------------


def _first_leaf(data: Any) -> Any:
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return data


def _check_shape(data: Any) -> None:
    """Raise ValueError where nested sequences of one level differ in length."""
    expected: list[int] = []
    level = data
    while isinstance(level, list | tuple):
        expected.append(len(level))
        if not level:
            break
        level = level[0]

    def visit(part: Any, depth: int) -> None:
        if not isinstance(part, list | tuple):
            if depth < len(expected) and not isinstance(part, Tensor | np.ndarray):
                if isinstance(part, str | bytes):
                    raise TypeError(f"new(): invalid data type '{type(part).__name__}'")
                raise TypeError(f"not a sequence: {type(part).__name__}")
            return
        if depth >= len(expected) or len(part) != expected[depth]:
            wanted = expected[depth] if depth < len(expected) else 0
            raise ValueError(f"expected sequence of length {wanted} at dim {depth} (got {len(part)})")
        for item in part:
            visit(item, depth + 1)

    visit(data, 0)


def _holds_tensors(data: Any) -> bool:
    if isinstance(data, Tensor):
        return True
    return isinstance(data, list | tuple) and any(map(_holds_tensors, data))


def _without_tensors(data: Any) -> Any:
    """Nested sequences with tensors replaced by their values."""
    if isinstance(data, Tensor):
        return data._host("tensor()") if data.ndim else data.item()
    return [_without_tensors(item) for item in data] if isinstance(data, list | tuple) else data


def _bad_data(data: Any) -> Exception:
    """The error for data that is no number, sequence or array."""
    leaf = data
    while isinstance(leaf, list | tuple) and leaf:
        leaf = next((x for x in leaf if not isinstance(x, bool | int | float | complex | np.generic)), leaf[0])
    if leaf is None or not isinstance(leaf, str | bytes):
        return RuntimeError(f"Could not infer dtype of {type(leaf).__name__}")
    return TypeError(f"new(): invalid data type '{type(leaf).__name__}'")


def _infer(array: Any, data: Any) -> dtype_class:
    """The dtype of Python data that NumPy has read: Python floats take the default dtype, NumPy values keep theirs."""
    leaf = _first_leaf(data)
    if isinstance(leaf, np.ndarray) or (isinstance(leaf, np.generic) and (leaf is data or not isinstance(leaf, float))):
        return dtypes.from_numpy_dtype(array.dtype)
    if array.size == 0 and not isinstance(leaf, np.ndarray):
        return dtypes.get_default_dtype()
    kind = array.dtype.kind
    if kind == "f":
        return dtypes.get_default_dtype()
    if kind == "c":
        return dtypes.get_default_dtype().to_complex()
    return dtypes.bool_ if kind == "b" else dtypes.int64


def _read(data: Any, d: dtype_class | None) -> Any:
    """A fresh array of Python data, in dtype `d` or the inferred one."""
    if isinstance(data, list | tuple) and _holds_tensors(data):
        first = _first_leaf(data)
        if d is None and isinstance(first, Tensor):
            d = first.dtype
        data = _without_tensors(data)
    try:
        array = np.array(data)
    except (ValueError, TypeError):
        _check_shape(data)
        raise
    except OverflowError:
        raise ValueError("Overflow when unpacking long long") from None
    if array.dtype.kind not in "biufc" and array.dtype != dtypes.bfloat16.numpy:
        if array.dtype.kind == "O" and isinstance(_first_leaf(data), int):
            raise ValueError("Overflow when unpacking long long")
        raise _bad_data(data)
    chosen = _infer(array, data) if d is None else d
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and isinstance(_first_leaf(data), int):
        raise ValueError("Overflow when unpacking long long")
    if array.dtype.kind == "c" and not chosen.is_complex:
        raise RuntimeError(f"value cannot be converted to type {chosen.name} without overflow")
    if array.dtype != chosen.numpy:
        with np.errstate(all="ignore"):
            array = array.astype(chosen.numpy)
    return array


# -- public -----------------------------------------------------------------------------------------------------------


def tensor(
    data: Any,
    *,
    dtype: dtype_class | None = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A new leaf tensor that copies `data`. See torch.tensor.

    Raises ValueError for ragged sequences, TypeError and RuntimeError for what is no number.
    """
    dtype = _named(dtype)
    if isinstance(data, Tensor):
        warnings.warn(
            "To copy construct from a tensor, it is recommended to use sourceTensor.detach().clone() or "
            "sourceTensor.detach().clone().requires_grad_(True), rather than torch.tensor(sourceTensor).",
            UserWarning,
            stacklevel=2,
        )
        made: Tensor = data.detach().clone()
        made = made if dtype is None else made.to(dtype)
        return made.requires_grad_(True) if requires_grad else made
    if isinstance(data, np.ndarray):
        d = dtypes.from_numpy_dtype(data.dtype) if dtype is None else dtype
        array = np.array(data, dtype=d.numpy, order="C")
    else:
        array = _read(data, dtype)
    return _leaf(array, device, requires_grad)


def _named(d: Any) -> Any:
    """Python's own types as dtypes."""
    if d is float:
        return dtypes.get_default_dtype()
    if d is int or d is bool:
        return dtypes.int64 if d is int else dtypes.bool_
    if d is not None and not isinstance(d, dtype_class):
        raise TypeError(f"tensor(): argument 'dtype' must be torch.dtype, not {type(d).__name__}")
    return d


def _leaf(array: Any, device: Any, requires_grad: bool) -> Tensor:
    where = canonical(device)
    d = dtypes.from_numpy_dtype(array.dtype)
    if requires_grad and not d.is_differentiable:
        raise RuntimeError("Only Tensors of floating point and complex dtype can require gradients")
    if where.type == "cuda":
        raise AssertionError("graphtorch has no eager CUDA device")
    made = Tensor._wrap(meta_array(array.shape, d) if where is META else array, d)
    if where is META:
        made._device = META
    if requires_grad:
        made._requires_grad = True
    register = getattr(state.recorder, "constant", None)
    return made if register is None else register(made)


def as_tensor(data: Any, dtype: dtype_class | None = None, device: Any = None) -> Tensor:
    """A tensor that shares the memory of a tensor or array where dtype and device allow, else a copy. See
    torch.as_tensor.
    """
    dtype = _named(dtype)
    if isinstance(data, Tensor):
        moved: Tensor = data if device is None else data.to(device)
        return moved if dtype is None else moved.to(dtype)
    if isinstance(data, np.ndarray):
        shared = from_numpy(data)
        with recorder_paused():
            made: Tensor = shared.to(canonical(device), dtypes.from_numpy_dtype(data.dtype) if dtype is None else dtype)
        return made
    return tensor(data, dtype=dtype, device=device)


def asarray(
    obj: Any,
    *,
    dtype: dtype_class | None = None,
    device: Any = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor from anything array-like. `copy` True always copies, False raises where a copy is needed. See
    torch.asarray.
    """
    dtype = _named(dtype)
    if not isinstance(obj, Tensor | np.ndarray | np.generic | list | tuple | bool | int | float | complex | str):
        obj = _of_memory(obj, dtype)
    made = as_tensor(obj, dtype, device)
    if isinstance(obj, Tensor | np.ndarray):
        source = obj._data if isinstance(obj, Tensor) else obj
        copied = made._data is not source and not np.shares_memory(made._data, source)
        if copy is False and copied:
            raise ValueError("can't alias tensor with the requested dtype or device")
        if copy and not copied:
            made = made.clone()
    elif copy is False:
        raise ValueError("can't alias arbitrary sequence into a tensor.")
    if requires_grad:
        made = made.detach().requires_grad_(True)
    return made


def _of_memory(obj: Any, d: dtype_class | None) -> Any:
    """A tensor over the memory of an object with DLPack or Python's buffer protocol; any other object itself."""
    from graphtorch.ops.interop import from_dlpack, frombuffer

    if hasattr(obj, "__dlpack__"):
        return from_dlpack(obj)
    try:
        memoryview(obj)
    except TypeError:
        return obj
    return frombuffer(obj, dtype=dtypes.get_default_dtype() if d is None else d)


def from_numpy(array: Any) -> Tensor:
    """A tensor over an ndarray's memory. See torch.from_numpy.

    Raises TypeError for another class or element type, ValueError for negative strides and foreign byte order.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {_type_name(array)})")
    if not array.dtype.isnative:
        raise ValueError(
            "given numpy array has byte order different from the native byte order. Conversion between byte orders is "
            "currently not supported."
        )
    d = dtypes.from_numpy_dtype(array.dtype)
    if any(s < 0 for s in array.strides):
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative strides are not "
            "currently supported. (You can probably work around this by making a copy of your array  with "
            "array.copy().) "
        )
    if not array.flags.writeable:
        warnings.warn(
            "The given NumPy array is not writable, and PyTorch does not support non-writable tensors. This means "
            "writing to this tensor will result in undefined behavior. You may want to copy the array to protect its "
            "data or make it writable before converting it to a tensor.",
            UserWarning,
            stacklevel=2,
        )
    return Tensor._wrap(array.view(np.ndarray) if type(array) is not np.ndarray else array, d)


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def scalar_tensor(
    s: Any, *, dtype: dtype_class | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A zero-dimensional tensor, of the default dtype unless given. See torch.scalar_tensor."""
    if isinstance(s, Tensor):
        s = s.item()
    d = dtypes.get_default_dtype().to_complex() if isinstance(s, complex) else dtypes.get_default_dtype()
    return tensor(s, dtype=d if dtype is None else dtype, device=device, requires_grad=requires_grad)


def legacy_constructor(data: Any = (), *rest: Any, dtype: dtype_class | None = None, device: Any = None) -> Tensor:
    """`torch.Tensor(2, 3)` (sizes: uninitialised memory) and `torch.Tensor([1, 2])` (data), in the default dtype."""
    d = dtypes.get_default_dtype() if dtype is None else dtype
    if isinstance(data, Tensor) and not rest:
        if data.dtype is not d:
            raise TypeError(f"expected {d!r} (got {data.dtype!r})")
        outside: Tensor = data.detach()
        return outside
    if isinstance(data, int) and not isinstance(data, bool):
        return _leaf(np.empty((data, *rest), d.numpy), device, False)
    if rest:
        raise TypeError(f"new() received an invalid combination of arguments - got ({type(data).__name__}, ...)")
    if type(data).__name__ == "Size":
        return _leaf(np.empty(tuple(data), d.numpy), device, False)
    if not isinstance(data, list | tuple | np.ndarray):
        raise TypeError(f"new(): data must be a sequence (got {type(data).__name__})")
    return tensor(data if isinstance(data, np.ndarray) or data else [], dtype=d, device=device)
