"""Tensors from Python data and NumPy arrays: `tensor`, `as_tensor`, `from_numpy` and the legacy constructor.

While a graph is being captured, these make concrete tensors all the same: the recorder takes them as constants when an
operator first uses them.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from graphtorch.autograd.state import recorder_paused, state
from graphtorch.tensor import dtypes
from graphtorch.tensor.devices import CPU, META, canonical
from graphtorch.tensor.dtypes import dtype as dtype_class
from graphtorch.tensor.symint import UndecidedError
from graphtorch.tensor.tensor import Tensor, meta_array
from graphtorch.tensor.tracked import TrackedNumber, operand_of, pinned

# -- dtype and shape of Python data -----------------------------------------------------------------------------------


def _first_leaf(data: Any) -> Any:
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return data


def _check_shape(data: Any, d: dtype_class | None) -> None:
    """Raise ValueError where nested sequences of one level differ in length, TypeError where they differ in depth."""
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
                raise TypeError("not a sequence")
            return
        if depth >= len(expected):
            raise _no_number(part, dtypes.int64 if d is None else d)
        if len(part) != expected[depth]:
            raise ValueError(f"expected sequence of length {expected[depth]} at dim {depth} (got {len(part)})")
        for item in part:
            visit(item, depth + 1)

    visit(data, 0)


_NUMERIC = (bool, int, float, complex, np.generic, np.ndarray, Tensor)


def _leaf_types(data: Any) -> set[type]:
    """The classes of what nested lists and tuples hold."""
    if not isinstance(data, list | tuple):
        return {type(data)}
    found = set(map(type, data))
    if any(issubclass(kind, list | tuple) for kind in found):
        found = {kind for kind in found if not issubclass(kind, list | tuple)}
        for item in data:
            if isinstance(item, list | tuple):
                found |= _leaf_types(item)
    return found


def _is_sequence(kind: type) -> bool:
    """Whether a class that is no list or tuple has Python's sequence protocol: a range, a pandas Series."""
    return (
        hasattr(kind, "__getitem__")
        and hasattr(kind, "__len__")
        and not issubclass(kind, (*_NUMERIC, str, bytes, dict, set))
    )


def _lists(data: Any) -> Any:
    """Nested sequences of any class as lists. Raises ValueError for one that can't be read from 0 to its length."""
    if isinstance(data, list | tuple):
        return [_lists(item) for item in data]
    if not _is_sequence(type(data)):
        return data
    try:
        items = [data[i] for i in range(len(data))]
    except Exception:
        raise ValueError(f"could not determine the shape of object type '{_c_name(type(data))}'") from None
    return [_lists(item) for item in items]


def _c_name(kind: type) -> str:
    """The name of a class as C code sees it: with its module for those of extension modules."""
    is_python_class = bool(kind.__flags__ & 1 << 9)  # Py_TPFLAGS_HEAPTYPE
    return kind.__name__ if is_python_class or kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _without_tensors(data: Any) -> Any:
    """Nested sequences with tensors replaced by their values."""
    if isinstance(data, Tensor):
        if data.numel() != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return data.item()
    return [_without_tensors(item) for item in data] if isinstance(data, list | tuple) else data


def _bad_data(data: Any, d: dtype_class | None) -> Exception:
    """The error for data, to be of dtype `d`, that is no number, sequence or array."""
    leaf, first = data, True
    while isinstance(leaf, list | tuple) and leaf:
        found = next((x for x in leaf if not isinstance(x, bool | int | float | complex | np.generic)), leaf[0])
        leaf, first = found, first and found is leaf[0]
    if getattr(leaf, "is_symbolic_int", False):
        return UndecidedError("a tensor of a size")
    if isinstance(leaf, str | bytes):
        if leaf is data or not first:
            return TypeError(f"new(): invalid data type '{type(leaf).__name__}'")
        return ValueError(f"too many dimensions '{type(leaf).__name__}'")
    return RuntimeError(f"Could not infer dtype of {_c_name(type(leaf))}") if d is None else _no_number(leaf, d)


def _no_number(value: Any, d: dtype_class) -> TypeError:
    """Python's own words for an object that is no number of the kind of `d`."""
    name = _c_name(type(value))
    if d.category <= dtypes.INTEGRAL:
        return TypeError(f"'{name}' object cannot be interpreted as an integer")
    return TypeError(f"must be real number, not {name}")


def _infer(array: Any, data: Any, types: set[type]) -> dtype_class:
    """The dtype of Python data that NumPy has read: Python floats take the default dtype, NumPy values keep theirs."""
    if any(issubclass(kind, np.ndarray) for kind in types):
        return dtypes.from_numpy_dtype(array.dtype)
    if array.size == 0:
        return dtypes.get_default_dtype()
    found: dtype_class | None = None
    for kind in types:
        own = dtypes.from_numpy_dtype(np.dtype(kind)) if issubclass(kind, np.generic) else _of_python(kind)
        found = own if found is None else dtypes.promote_types(found, own)
    assert found is not None
    return found


def _of_python(kind: type) -> dtype_class:
    if issubclass(kind, bool):
        return dtypes.bool_
    if issubclass(kind, int):
        return dtypes.int64
    return dtypes.get_default_dtype() if issubclass(kind, float) else dtypes.get_default_dtype().to_complex()


def _check_range(array: Any, d: dtype_class) -> None:
    """Raise RuntimeError where an integer dtype can't hold all of an array's numbers."""
    lowest, highest = array.min().item(), array.max().item()  # NaN if there is one
    if not (dtypes.fits(lowest, d) and dtypes.fits(highest, d)):
        raise RuntimeError(f"value cannot be converted to type {d.name} without overflow")


def _read(data: Any, d: dtype_class | None) -> Any:
    """A fresh array of Python data, in dtype `d` or the inferred one."""
    types = _leaf_types(data)
    if any(map(_is_sequence, types)):
        data = _lists(data)
        types = _leaf_types(data)
    if isinstance(data, list | tuple) and any(issubclass(kind, Tensor) for kind in types):
        first = _first_leaf(data)
        if d is None and isinstance(first, Tensor):
            d = first.dtype
        data = _without_tensors(data)
        types = _leaf_types(data)
    try:
        array = np.array(data)
    except (ValueError, TypeError):
        _check_shape(data, d)
        raise
    except OverflowError:
        raise ValueError("Overflow when unpacking long long") from None
    if array.dtype.kind not in "biufc" and array.dtype != dtypes.bfloat16.numpy:
        is_real = d is not None and d.is_differentiable and all(hasattr(kind, "__float__") for kind in types)
        if array.dtype.kind == "O" and all(issubclass(kind, int) for kind in types) and not is_real:
            raise ValueError("Overflow when unpacking long long")
        if array.dtype.kind != "O" or not is_real:
            raise _bad_data(data, d)
    elif not all(issubclass(kind, _NUMERIC) for kind in types):
        raise _bad_data(data, d)
    chosen = _infer(array, data, types) if d is None else d
    if chosen.category == dtypes.INTEGRAL and int in types and float not in types and array.dtype.kind in "uf":
        raise ValueError("Overflow when unpacking long long")  # NumPy chose a type for numbers beyond int64
    if array.dtype.kind == "c" and not chosen.is_complex:
        raise _no_number(1j, chosen)
    if chosen.category == dtypes.INTEGRAL and array.dtype.kind in "iuf" and array.size:
        _check_range(array, chosen)
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
    if state.recorder is not None:
        if type(data) is TrackedNumber and isinstance(found := operand_of(data), Tensor):
            made: Tensor = importlib.import_module("graphtorch.ops").full((), found, dtype=dtype, device=device)
            return made.requires_grad_(True) if requires_grad else made
        data = pinned(data)
    if isinstance(data, Tensor):
        warnings.warn(
            "To copy construct from a tensor, it is recommended to use sourceTensor.detach().clone() or "
            "sourceTensor.detach().clone().requires_grad_(True), rather than torch.tensor(sourceTensor).",
            UserWarning,
            stacklevel=2,
        )
        made = data.detach().clone()
        made = made if dtype is None else made.to(dtype)
        made = made if device is None else made.to(device)
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
        from graphtorch.tensor.remote import runtime

        array = runtime().to_device(array, where)
    made = Tensor._wrap(meta_array(array.shape, d) if where is META else array, d)
    if where is not CPU:
        made._device = where
    if requires_grad:
        made._requires_grad = True
    if state.inference:
        made._inference = True
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
        raise TypeError(f"expected np.ndarray (got {_c_name(type(array))})")
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


def scalar_tensor(
    s: Any, *, dtype: dtype_class | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A zero-dimensional tensor, of the default dtype unless given. See torch.scalar_tensor."""
    if isinstance(s, Tensor):
        s = s.item()
    d = dtypes.get_default_dtype().to_complex() if isinstance(s, complex) else dtypes.get_default_dtype()
    dtypes.check_fits(s, d if dtype is None else dtype, fill=True)
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
    if isinstance(data, str | bytes):
        raise TypeError(f"new(): invalid data type '{type(data).__name__}'")
    if not isinstance(data, list | tuple | np.ndarray) and not _is_sequence(type(data)):
        raise TypeError(f"new(): data must be a sequence (got {_c_name(type(data))})")
    return tensor(data, dtype=d, device=device)
