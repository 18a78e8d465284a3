"""Tensors from nothing: constants, ranges, identity matrices, and their `_like` and `new_` forms.

Two records, `full` and `arange`, are what a captured graph holds; eager calls write NumPy arrays directly.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphtorch.autograd.state import modes_entered, state
from graphtorch.ops.arguments import also_by_name
from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.dispatch import call, executor, on_device, quiet
from graphtorch.ops.record import SOURCE, Sample, sample
from graphtorch.ops.strides import contiguous_strides, laid_out, layout_of, strides_in
from graphtorch.tensor import dtypes
from graphtorch.tensor.creation import tensor
from graphtorch.tensor.devices import CPU, META, canonical
from graphtorch.tensor.dtypes import dtype as dtype_class
from graphtorch.tensor.formats import ORDERS, format_name
from graphtorch.tensor.tensor import Tensor, meta_array
from graphtorch.tensor.threads import get_num_threads
from graphtorch.tensor.tracked import operand_of
from graphtorch.tensor.type import TensorType

FRESH_BYTES = 1 << 16  # what is larger may come from the system anew
SHARED_BYTES = 1 << 21  # what threads fill together

# -- records ----------------------------------------------------------------------------------------------------------


def _source_samples(make: Any) -> Iterable[Sample]:
    yield sample((2, 3), 1, dtype=make.dtype)
    yield sample((), 0, dtype=make.dtype)


def _zeros(size: Any, numpy_dtype: Any) -> Any:
    """Zeros that are in memory. `np.zeros` takes fresh pages of the system, which read as zero before they are there:
    a kernel that reads and writes one, as an optimizer's first step does, would be interrupted twice for it."""
    if math.prod(size) * numpy_dtype.itemsize < FRESH_BYTES:
        return np.zeros(size, numpy_dtype)
    made = np.empty(size, numpy_dtype)
    _fill(made, 0)
    return made


def _fill(array: Any, value: Any) -> None:
    """Write a value everywhere. Threads share what is large: most of the time goes into providing the pages."""
    if array.nbytes < SHARED_BYTES or not array.flags.c_contiguous:
        array.fill(value)
        return
    parts = np.array_split(array.reshape(-1), min(get_num_threads(), 8))
    threads = [threading.Thread(target=part.fill, args=(value,)) for part in parts[1:]]
    for thread in threads:
        thread.start()
    parts[0].fill(value)
    for thread in threads:
        thread.join()


def _filled(size: Any, value: Any, numpy_dtype: Any) -> Any:
    """An array of one value, converted as a cast does: integers wrap around."""
    if type(value) is int and value == 0:
        return _zeros(size, numpy_dtype)
    return np.full(size, np.asarray(value).astype(numpy_dtype), numpy_dtype)


_full = operator(
    "full(int[] size, Number fill_value, *, dtype dtype, device? device=None)",
    type=lambda size, fill_value, dtype, device: TensorType(dtype, tuple(size), canonical(device)),
    numpy=lambda size, fill_value, dtype, device: _filled(size, fill_value, dtype.numpy),
    kind=SOURCE,
    scalar="full",
    samples=_source_samples,
    categories="bifc",
    public=False,
    method=False,
)


def _is_integer(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or getattr(value, "is_symbolic_int", False) is True


def _range_size(start: Any, end: Any, step: Any) -> Any:
    """How many steps a range takes, exactly for integers (symbolic ones too).

    Raises RuntimeError with PyTorch's messages for a zero step and one of the wrong sign.
    """
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if any(isinstance(v, float) and not math.isfinite(v) for v in (start, end)):
        raise RuntimeError(f"unsupported range: {start:g} -> {end:g}")
    if (end < start) if step > 0 else (end > start):
        raise RuntimeError("upper bound and lower bound inconsistent with step sign")
    if all(_is_integer(v) for v in (start, end, step)):
        return end - start if step == 1 else (end - start + step - (1 if step > 0 else -1)) // step
    return math.ceil((end - start) / step)


def _numpy_arange(start: Any, end: Any, step: Any, dtype: dtype_class, device: Any) -> Any:
    size = _range_size(start, end, step)
    if dtype.category <= dtypes.INTEGRAL:
        return (int(start) + int(step) * np.arange(size, dtype=np.int64)).astype(dtype.numpy)
    return (start + step * np.arange(size, dtype=np.float64)).astype(dtype.numpy)


def _decompose_arange(start: Any, end: Any, step: Any, dtype: dtype_class, device: Any) -> Any:
    """Integer ranges are primitive; a floating one is computed from the integer positions."""
    size = _range_size(start, end, step)
    if dtype.category <= dtypes.INTEGRAL:
        if all(_is_integer(v) for v in (start, step)):
            return None
        first, gap = int(start), int(step)
        return call(_arange.operator, (first, first + size * gap, gap, dtype, device))  # type: ignore[attr-defined]
    positions = call(_arange.operator, (0, size, 1, dtypes.int64, device))  # type: ignore[attr-defined]
    return (positions.to(dtypes.float64) * step + start).to(dtype)


_arange = operator(
    "arange(Number start, Number end, Number step, *, dtype dtype, device? device=None)",
    type=lambda start, end, step, dtype, device: TensorType(dtype, (_range_size(start, end, step),), canonical(device)),
    numpy=_numpy_arange,
    kind=SOURCE,
    scalar="arange",
    decompose=_decompose_arange,
    samples=lambda make: [sample(0, 5, 1, dtype=make.dtype), sample(7, 1, -2, dtype=make.dtype)],
    categories="if",
    public=False,
    method=False,
)

# -- arguments --------------------------------------------------------------------------------------------------------


def _size(name: str, size: Sequence[Any]) -> tuple[Any, ...]:
    """Sizes given one by one or as a sequence.

    Raises TypeError for what is no integer and RuntimeError for a negative one.
    """
    given: Sequence[Any] = size[0] if len(size) == 1 and isinstance(size[0], list | tuple) else size
    result: list[Any] = []
    for value in given:
        if not _is_integer(value):
            if isinstance(value, bool | float | str) or not hasattr(value, "__index__"):
                raise TypeError(
                    f"{name}(): argument 'size' (position 1) must be tuple of ints, not {type(value).__name__}"
                )
            value = value.__index__()
        if value < 0:
            raise RuntimeError(f"{name}: Dimension size must be non-negative.")
        result.append(value)
    return tuple(result)


def _resolve_dtype(given: Any) -> dtype_class:
    if given is None or given is float:
        return dtypes.get_default_dtype()
    if given is int:
        return dtypes.int64
    if given is bool:
        return dtypes.bool_
    if not isinstance(given, dtype_class):
        raise TypeError(f"argument 'dtype' must be torch.dtype, not {type(given).__name__}")
    return given


def _finish(result: Tensor, requires_grad: bool) -> Tensor:
    if requires_grad:
        result.requires_grad_(True)
    return result


def _constant(
    size: tuple[Any, ...],
    value: Any,
    d: dtype_class,
    device: Any,
    requires_grad: bool,
    fill: Callable[..., Any],
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """A tensor of one value. `fill(size, dtype)` makes the array when eager; on another device than the CPU it has the
    `strides`, in elements, or lies row by row."""
    dtypes.check_fits(value, d, fill=True)
    where = canonical(device)
    if state.recorder is not None:
        made: Tensor = call(_full.operator, (size, value, d, where))  # type: ignore[attr-defined]
        return _finish(made, requires_grad)
    if where is META:
        made = Tensor._wrap(meta_array(size, d), d)
        made._device = META
    elif where is CPU:
        made = Tensor._wrap(fill(size, d.numpy), d)
    else:
        made = on_device(executor(where).constant(size, None if fill is np.empty else value, d, where, strides))
    if state.inference:
        made._inference = True
    return _finish(made, requires_grad)


def _into(out: Any, result: Tensor) -> Any:
    """The `out=` form of a creation function."""
    if tuple(out.shape) != tuple(result.shape):
        out.data = result.to(out.dtype)
    else:
        out.copy_(result)
    return out


def _array_full(value: Any) -> Callable[..., Any]:
    def fill(size: Any, numpy_dtype: Any) -> Any:
        return _filled(size, value, numpy_dtype)

    return fill


# -- constants --------------------------------------------------------------------------------------------------------


@function()
def zeros(
    *size: Any, out: Any = None, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """All zeros. See torch.zeros."""
    shape = _size("zeros", size)
    result = _constant(shape, 0, _resolve_dtype(dtype), device, requires_grad, _zeros)
    return result if out is None else _into(out, result)


@function()
def ones(
    *size: Any, out: Any = None, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """All ones. See torch.ones."""
    shape = _size("ones", size)
    result = _constant(shape, 1, _resolve_dtype(dtype), device, requires_grad, np.ones)
    return result if out is None else _into(out, result)


@function()
def empty(
    *size: Any, out: Any = None, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
    requires_grad: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Uninitialised memory; zeros in a captured graph. See torch.empty."""
    shape = _size("empty", size)
    result = _constant(shape, 0, _resolve_dtype(dtype), device, requires_grad, np.empty)
    order = format_name(memory_format)
    if order in ORDERS:
        result = _like(result, None, None, None, requires_grad, memory_format)
    return result if out is None else _into(out, result)


@function()
def full(
    size: Any, fill_value: Any, *, out: Any = None, dtype: Any = None, layout: Any = None, device: Any = None,
    pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """One value everywhere; the dtype follows the value unless given. See torch.full."""
    shape = _size("full", (size,) if isinstance(size, list | tuple) else ((size,),))
    fill_value = operand_of(fill_value)
    value = fill_value.item() if isinstance(fill_value, Tensor | np.generic) else fill_value
    if dtype is None:
        d = value.dtype if isinstance(value, Tensor) else dtypes.dtype_of_number(value)
        d = dtypes.get_default_dtype() if isinstance(value, Tensor) and d is dtypes.float64 else d
    else:
        d = _resolve_dtype(dtype)
    result = _constant(shape, value, d, device, requires_grad, _array_full(value))
    return result if out is None else _into(out, result)


def _like_fill(input: Tensor, value: Any, memory_format: str | None = None) -> Callable[..., Any]:
    """An array of the operand's shape, in a memory format or in the order of the operand's dimensions in memory."""

    def fill(size: Any, numpy_dtype: Any) -> Any:
        strides = strides_in(memory_format, size, layout_of(input._layout()))
        array = laid_out(np.empty(size, numpy_dtype), strides)
        if value is not None:
            _fill(array, np.asarray(value).astype(numpy_dtype)[()])
        return array

    return fill


def _like(input: Any, value: Any, dtype: Any, device: Any, requires_grad: bool, memory_format: Any = None) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(f"argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
    d = input.dtype if dtype is None else _resolve_dtype(dtype)
    where = input.device if device is None else device
    shape = tuple(input.shape)
    order = format_name(memory_format)
    fill = _like_fill(input, value, order)
    strides = None
    if input._device.type == "cuda" and state.recorder is None:
        fill = np.empty if value is None else fill
        strides = strides_in(order, shape, layout_of(input._layout()))
    made = _constant(shape, 0 if value is None else value, d, where, requires_grad, fill, strides)
    keep_order = getattr(state.recorder, "keep_order", None)
    if keep_order is not None:
        keep_order(made, input, order)
    return made


@function()
def zeros_like(
    input: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
    requires_grad: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Zeros of the operand's shape, dtype and device. See torch.zeros_like."""
    return _like(input, 0, dtype, device, requires_grad, memory_format)


@function()
def ones_like(
    input: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
    requires_grad: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Ones of the operand's shape, dtype and device. See torch.ones_like."""
    return _like(input, 1, dtype, device, requires_grad, memory_format)


@function()
def empty_like(
    input: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
    requires_grad: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Uninitialised memory of the operand's shape, dtype and device. See torch.empty_like."""
    return _like(input, None, dtype, device, requires_grad, memory_format)


@function()
def full_like(
    input: Any, fill_value: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
    requires_grad: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """One value in the operand's shape, dtype and device. See torch.full_like."""
    fill_value = operand_of(fill_value)
    value = fill_value.item() if isinstance(fill_value, Tensor | np.generic) else fill_value
    return _like(input, value, dtype, device, requires_grad, memory_format)


@function()
def empty_strided(
    size: Any, stride: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Uninitialised memory under the given strides, in elements. See torch.empty_strided."""
    shape, d = _size("empty_strided", (tuple(size),)), _resolve_dtype(dtype)
    extent = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))

    def fill(size: Any, numpy_dtype: Any) -> Any:
        strides = tuple(s * d.itemsize for s in stride)
        memory = np.empty(max(extent, 1) * numpy_dtype.itemsize, np.uint8)  # bfloat16 has no buffers of its own
        return np.ndarray(size, numpy_dtype, memory.data, strides=strides)

    return _constant(shape, 0, d, device, requires_grad, fill, tuple(stride))


@function()
def empty_permuted(
    size: Any, physical_layout: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Uninitialised memory with its dimensions in the order `physical_layout`, the outermost first. See
    torch.empty_permuted.
    """
    shape = tuple(size)
    if sorted(physical_layout) != list(range(len(shape))):
        raise RuntimeError(f"empty_permuted: {list(physical_layout)} is no order of {len(shape)} dimensions")
    inner = contiguous_strides([shape[d] for d in physical_layout])
    strides = [inner[list(physical_layout).index(d)] for d in range(len(shape))]
    return empty_strided(shape, strides, dtype=dtype, device=device, requires_grad=requires_grad)


# -- new_ methods -----------------------------------------------------------------------------------------------------


def _new(input: Any, name: str, size: Sequence[Any], value: Any, dtype: Any, device: Any, grad: bool) -> Tensor:
    d = input.dtype if dtype is None else _resolve_dtype(dtype)
    where = input.device if device is None else device
    fill = np.empty if value is None else _array_full(value)
    return _constant(_size(name, size), 0 if value is None else value, d, where, grad, fill)


def _new_zeros(
    self: Any, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Zeros of this tensor's dtype and device. See torch.Tensor.new_zeros."""
    return _new(self, "new_zeros", size, 0, dtype, device, requires_grad)


def _new_ones(
    self: Any, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Ones of this tensor's dtype and device. See torch.Tensor.new_ones."""
    return _new(self, "new_ones", size, 1, dtype, device, requires_grad)


def _new_empty(
    self: Any, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Uninitialised memory of this tensor's dtype and device. See torch.Tensor.new_empty."""
    return _new(self, "new_empty", size, None, dtype, device, requires_grad)


def _new_full(
    self: Any, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    layout: Any = None, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """One value in this tensor's dtype and device. See torch.Tensor.new_full."""
    fill_value = operand_of(fill_value)
    value = fill_value.item() if isinstance(fill_value, Tensor | np.generic) else fill_value
    return _new(self, "new_full", (size,), value, dtype, device, requires_grad)


def _new_tensor(self: Any, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """`tensor(data)` of this tensor's dtype and device. See torch.Tensor.new_tensor."""
    d = self.dtype if dtype is None else dtype
    return tensor(data, dtype=d, device=self.device if device is None else device, requires_grad=requires_grad)


for _made in (_new_zeros, _new_ones, _new_empty):
    setattr(Tensor, _made.__name__[1:], also_by_name(_made, "size"))


def _new_empty_strided(
    self: Tensor, size: Any, stride: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Uninitialised memory under the given strides. See torch.Tensor.new_empty_strided."""
    where = self.device if device is None else device
    return empty_strided(size, stride, dtype=dtype or self.dtype, device=where, requires_grad=requires_grad)


Tensor.new_empty_strided = _new_empty_strided  # type: ignore[attr-defined]
Tensor.new_full = _new_full  # type: ignore[attr-defined]
Tensor.new_tensor = _new_tensor  # type: ignore[attr-defined]

# -- ranges -----------------------------------------------------------------------------------------------------------


@function()
def arange(
    start: Any, end: Any = None, step: Any = 1, *, out: Any = None, dtype: Any = None, layout: Any = None,
    device: Any = None, pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """start, start + step, ... below end; integers give int64. See torch.arange.

    Raises RuntimeError for a zero step or one of the wrong sign.
    """
    if end is None:
        start, end = 0, start
    start, end, step = (v.item() if isinstance(v, Tensor | np.generic) else v for v in (start, end, step))
    if dtype is None:
        dtype = dtypes.int64 if all(_is_integer(v) for v in (start, end, step)) else dtypes.get_default_dtype()
    d = _resolve_dtype(dtype)
    if d is dtypes.int64:
        start, end, step = (v if _is_integer(v) else int(v) for v in (start, end, step))
    args = (start, end, step, d, canonical(device))
    result = call(_arange.operator, args)  # type: ignore[attr-defined]
    return _finish(result, requires_grad) if out is None else _into(out, result)


@function(name="range")
def range_(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None) -> Tensor:
    """As arange with the end included, in the default floating type; deprecated by PyTorch. See torch.range."""
    if end is None:
        start, end = 0, start
    count = math.floor((end - start) / step) + 1
    made: Tensor = (arange(count, dtype=dtypes.float64, device=device) * step + start).to(_resolve_dtype(dtype))
    return made


def _spread(start: Any, end: Any, steps: int, d: dtype_class, device: Any) -> Tensor:
    """`steps` values from start to end, computed from the nearer end as PyTorch does."""
    inner = d if d.category >= dtypes.FLOATING else dtypes.float64
    if d in (dtypes.float16, dtypes.bfloat16):
        inner = dtypes.float32
    start, end = (v.item() if isinstance(v, Tensor) else v for v in (start, end))
    eager = state.recorder is None and not modes_entered and canonical(device) is CPU
    if eager and d is dtypes.float32 and steps > 1 and not isinstance(start, complex) and not isinstance(end, complex):
        return Tensor._wrap(quiet.run(_spread_float32, start, end, steps))
    index = arange(steps, device=device)
    position = index.to(inner)
    if d.category < dtypes.FLOATING and not isinstance(start, Tensor) and not isinstance(end, Tensor):
        start, end = int(start), int(end)
    gap = (end - start) / (steps - 1) if steps > 1 else 0.0
    if d is dtypes.float32 and type(gap) is float and steps > 1:
        # PyTorch's kernel has multiplications and additions with one rounding; the product of two float32 is exact in
        # float64.
        start, end = np.float32(start).item(), np.float32(end).item()
        gap = (np.float32(end - start) / np.float32(steps - 1)).item()
        position = index.to(dtypes.float64)
    up = position * gap + start
    down = (steps - 1 - position) * (-gap) + end
    where = FUNCTIONS["where"]
    spread: Tensor = where(index < steps // 2, up, down) if steps > 1 else up
    return spread if spread.dtype is d else spread.to(d)


def _spread_float32(start: Any, end: Any, steps: int) -> Any:
    """`_spread` on an array, each half in one go."""
    start, end = np.float32(start).item(), np.float32(end).item()
    gap = (np.float32(end - start) / np.float32(steps - 1)).item()
    made, half = np.empty(steps, np.float32), steps // 2
    for part, first, last, step, origin in (
        (made[:half], 0, half, gap, start),
        (made[half:], steps - 1 - half, -1, -gap, end),
    ):
        places = np.arange(first, last, 1 if last > first else -1, dtype=np.float64)
        places *= step
        places += origin
        part[...] = places
    return made


def _check_steps(name: str, start: Any, end: Any, steps: Any) -> None:
    if isinstance(steps, float):
        raise TypeError(f"{name}(): argument 'steps' (position 3) must be int, not {type(steps).__name__}")
    if any(isinstance(v, Tensor) and v.ndim > 0 for v in (start, end)):
        shown = " and ".join(
            f"{word} with {v.ndim if isinstance(v, Tensor) else 0} dimension(s)"
            for word, v in (("start", start), ("end", end))
        )
        raise RuntimeError(f"{name} only supports 0-dimensional start and end tensors, but got {shown}.")
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")


def _end_dtype(start: Any, end: Any, dtype: Any) -> dtype_class:
    if dtype is not None:
        return _resolve_dtype(dtype)
    if any(isinstance(v, complex) or (isinstance(v, Tensor) and v.dtype.is_complex) for v in (start, end)):
        return dtypes.get_default_dtype().to_complex()
    return dtypes.get_default_dtype()


@function()
def linspace(
    start: Any, end: Any, steps: int, *, out: Any = None, dtype: Any = None, layout: Any = None, device: Any = None,
    pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """`steps` evenly spaced values from start to end, both included. See torch.linspace.

    Raises RuntimeError for a negative number of steps.
    """
    _check_steps("linspace", start, end, steps)
    result = _spread(start, end, steps, _end_dtype(start, end, dtype), device)
    return _finish(result, requires_grad) if out is None else _into(out, result)


@function()
def logspace(
    start: Any, end: Any, steps: int, base: float = 10.0, *, out: Any = None, dtype: Any = None, layout: Any = None,
    device: Any = None, pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """`base` to the power of evenly spaced exponents. See torch.logspace."""
    _check_steps("logspace", start, end, steps)
    d = _end_dtype(start, end, dtype)
    inner = d
    if d.category < dtypes.FLOATING:
        inner, start, end = dtypes.float64, int(start), int(end)
    result = FUNCTIONS["pow"](float(base), _spread(start, end, steps, inner, device)).to(d)
    return _finish(result, requires_grad) if out is None else _into(out, result)


# -- matrices ---------------------------------------------------------------------------------------------------------


@function()
def eye(
    n: Any, m: Any = None, *, out: Any = None, dtype: Any = None, layout: Any = None, device: Any = None,
    pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Ones on the diagonal of an n by m matrix. See torch.eye.

    Raises RuntimeError for a negative size.
    """
    m = n if m is None else m
    for name, size in (("n", n), ("m", m)):
        if size < 0:
            raise RuntimeError(f"{name} must be greater or equal to 0, got {size}")
    d = _resolve_dtype(dtype)
    if state.recorder is None and canonical(device) is CPU:
        result = Tensor._wrap(np.eye(n, m, dtype=d.numpy), d)
    else:
        rows, columns = arange(n, device=device), arange(m, device=device)
        result = (rows.reshape((n, 1)) == columns).to(d)
    return _finish(result, requires_grad) if out is None else _into(out, result)


def _triangle(rows: int, columns: int, offset: int, dtype: Any, device: Any, upper: bool) -> Tensor:
    d = dtypes.int64 if dtype is None else _resolve_dtype(dtype)
    indices = np.triu_indices(rows, offset, columns) if upper else np.tril_indices(rows, offset, columns)
    made: Tensor = Tensor._wrap(np.stack(indices).astype(d.numpy), d).to(canonical(device))
    return made


@function()
def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None, layout: Any = None,
    pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """The 2 by n indices of the lower triangle, row by row. See torch.tril_indices."""
    return _finish(_triangle(row, col, offset, dtype, device, upper=False), requires_grad)


@function()
def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None, layout: Any = None,
    pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """The 2 by n indices of the upper triangle, row by row. See torch.triu_indices."""
    return _finish(_triangle(row, col, offset, dtype, device, upper=True), requires_grad)
