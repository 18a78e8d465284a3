"""Reductions: sums, products, means, logic and extrema.

The primitives fold sorted, non-negative dimensions and are what kernels know: sum, prod, amax, amin, any, all, argmax,
argmin. The others decompose into those. float16 and bfloat16 accumulate in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.dispatch import write_out
from graphtorch.ops.pointwise import not_implemented
from graphtorch.ops.record import REDUCTION, Sample, sample
from graphtorch.ops.shapes import count, keep_dims, reduced_shape, wrap_dim, wrap_dims
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype as dtype_class
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType

# -- shared -----------------------------------------------------------------------------------------------------------


def _where(condition: Any, x: Any, y: Any) -> Any:
    return FUNCTIONS["where"](condition, x, y)


def wide(array: Any) -> Any:
    """The array in the type it is summed in: two-byte floats in float32."""
    return array.astype(np.float32) if array.dtype.itemsize == 2 and array.dtype.kind in "fV" else array


def normalize(input: Any, dim: Any, keepdim: bool, *rest: Any) -> tuple[Any, ...]:
    return (input, wrap_dims(dim, len(input.shape)), keepdim, *rest)


def reduced_type(input: Any, dims: Any, keepdim: bool, d: dtype_class) -> TensorType:
    return TensorType(d, reduced_shape(input.shape, dims, keepdim), input.device)


def restore(value: Any, input_type: Any, dim: Any, keepdim: bool) -> Any:
    """A reduced value, or its cotangent, in a shape that broadcasts against the operand's."""
    return keep_dims(value, dim, len(input_type.shape), keepdim)


def _spread(g: Any, input_type: Any, dim: Any, keepdim: bool) -> Any:
    return restore(g, input_type, dim, keepdim).expand(tuple(input_type.shape))


def _whole_or_dims(input: Any, dim: Any, *rest: Any) -> int:
    """PyTorch's first overload reduces everything, its second the given dimensions."""
    return 0 if len(dim) == len(input.shape) else 1


def _dim_samples(make: Any) -> Iterable[Sample]:
    yield sample(make.distinct(3, 4))
    yield sample(make.distinct(3, 4), 1)
    yield sample(make.distinct(2, 3, 4), (0, -1), keepdim=True)
    yield sample(make.distinct())


# Reductions as ufunc methods: the functions of NumPy's namespace check more than the operators need.
_add_reduce: Any = np.add.reduce
_multiply_reduce: Any = np.multiply.reduce


def not_for(kernel: str, categories: str, d: dtype_class) -> None:
    if "bifc"[d.category] in categories:
        raise not_implemented(kernel, d)


# -- sum and product --------------------------------------------------------------------------------------------------


def _sum_dtype(input: Any, given: Any) -> dtype_class:
    if given is not None:
        return given  # type: ignore[no-any-return]
    d: dtype_class = input.dtype
    return dtypes.int64 if d.category <= dtypes.INTEGRAL else d


def _fold(numpy_fold: Callable[..., Any]) -> Callable[..., Any]:
    def run(input: Any, dim: Any, keepdim: bool, dtype: Any) -> Any:
        own = input.dtype
        target = np.dtype(np.int64) if own.kind in "biu" else own
        if dtype is not None:
            target = dtype.numpy
            if target.kind not in "c" and own.kind == "c":
                input = input.real
            input = input.astype(target, copy=False)
        return np.asarray(numpy_fold(wide(input), axis=dim, keepdims=keepdim)).astype(target, copy=False)

    return run


sum = operator(
    "sum(Tensor input, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None)",
    type=lambda input, dim, keepdim, dtype: reduced_type(input, dim, keepdim, _sum_dtype(input, dtype)),
    numpy=_fold(_add_reduce),
    kind=REDUCTION,
    derivative={"input": lambda g, input_type, dim, keepdim: _spread(g, input_type, dim, keepdim)},
    scalar="sum",
    normalize=normalize,
    overload=_whole_or_dims,
    samples=_dim_samples,
    categories="bifc",
    lazy_check=True,
    out=True,
)


def _prod_formula(g: Any, input: Any, result: Any, dim: Any, keepdim: bool) -> Any:
    """g * product of the others, without dividing by the zeros: one zero leaves a slope at itself alone."""
    zero = input == 0
    filled = _where(zero, 1.0, input)
    others = filled.prod(dim, keepdim=True)
    zeros = zero.sum(dim, keepdim=True)
    at_zero = _where(zeros == 1, others, 0.0)
    product = restore(result, input, dim, keepdim)
    slope = _where(zero, at_zero, product / filled)
    return restore(g, input, dim, keepdim) * (slope.conj() if slope.dtype.is_complex else slope)


prod = operator(
    "prod(Tensor input, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None)",
    type=lambda input, dim, keepdim, dtype: reduced_type(input, dim, keepdim, _sum_dtype(input, dtype)),
    numpy=_fold(_multiply_reduce),
    kind=REDUCTION,
    derivative={"input": _prod_formula},
    scalar="prod",
    normalize=normalize,
    overload=_whole_or_dims,
    samples=_dim_samples,
    categories="bifc",
    lazy_check=True,
    out=True,
)


def _check_floating(name: str, d: dtype_class, given: bool) -> None:
    if d.category < dtypes.FLOATING:
        spelled = {"bool": "Bool", "int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte"}
        raise RuntimeError(
            f"{name}(): could not infer output dtype. {'Optional' if given else 'Input'} dtype must be either a "
            f"floating point or complex dtype. Got: {spelled[d.name]}"
        )


def _mean_type(input: Any, dim: Any, keepdim: bool, dtype: Any) -> TensorType:
    d = input.dtype if dtype is None else dtype
    _check_floating("mean", d, dtype is not None)
    return reduced_type(input, dim, keepdim, d)


def _numpy_mean(input: Any, dim: Any, keepdim: bool, dtype: Any) -> Any:
    if dtype is not None:
        input = input.astype(dtype.numpy, copy=False)
    if input.dtype.kind in "biu":
        raise TypeError("the mean of integers")  # the type rule explains
    total = _add_reduce(wide(input), axis=dim, keepdims=keepdim)
    size = count(input.shape, dim)
    mean = total / total.dtype.type(size) if size else total * np.nan
    return np.asarray(mean).astype(input.dtype, copy=False)


def _decompose_mean(input: Any, dim: Any, keepdim: bool, dtype: Any) -> Any:
    d = input.dtype if dtype is None else dtype
    inner = dtypes.float32 if d in (dtypes.float16, dtypes.bfloat16) else d
    mean = sum(input, dim, keepdim, dtype=inner) / count(input.shape, dim)
    return mean if inner is d else mean.to(d)


mean = operator(
    "mean(Tensor input, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None)",
    type=_mean_type,
    numpy=_numpy_mean,
    kind=REDUCTION,
    derivative={
        "input": lambda g, input_type, dim, keepdim: _spread(g, input_type, dim, keepdim) / count(input_type.shape, dim)
    },
    decompose=_decompose_mean,
    normalize=normalize,
    overload=_whole_or_dims,
    samples=_dim_samples,
    categories="fc",
    lazy_check=True,
    out=True,
)


def _nansum_type(input: Any, dim: Any, keepdim: bool, dtype: Any) -> TensorType:
    if input.dtype.is_complex:
        raise RuntimeError("nansum on CPU does not support complex inputs")
    return reduced_type(input, dim, keepdim, _sum_dtype(input, dtype))


def _without_nan(input: Any) -> Any:
    return _where(input.isnan(), 0.0, input) if input.dtype.is_floating_point else input


nansum = operator(
    "nansum(Tensor input, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None)",
    type=_nansum_type,
    numpy=lambda input, dim, keepdim, dtype: _fold(_add_reduce)(
        np.where(np.isnan(input), input.dtype.type(0), input) if input.dtype.kind in "fV" else input,
        dim,
        keepdim,
        dtype,
    ),
    kind=REDUCTION,
    derivative={"input": lambda g, input, dim, keepdim: _where(input.isnan(), 0.0, _spread(g, input, dim, keepdim))},
    decompose=lambda input, dim, keepdim, dtype: sum(_without_nan(input), dim, keepdim, dtype=dtype),
    normalize=normalize,
    overload=_whole_or_dims,
    samples=_dim_samples,
    categories="bif",
    out=True,
)


@function(method=True)
def nanmean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The mean of what is no NaN. See torch.nanmean."""
    present = input.isnan().logical_not().sum(dim, keepdim)
    return nansum(input, dim, keepdim, dtype=dtype) / present


@function(method=True)
def count_nonzero(input: Any, dim: Any = None) -> Any:
    """How many elements are not zero. See torch.count_nonzero."""
    return (input != 0).sum(dim)


# -- logic ------------------------------------------------------------------------------------------------------------


def _logical_type(input: Any, dim: Any, keepdim: bool) -> TensorType:
    return reduced_type(input, dim, keepdim, dtypes.uint8 if input.dtype is dtypes.uint8 else dtypes.bool_)


def _logical(numpy_fold: Callable[..., Any]) -> Callable[..., Any]:
    def run(input: Any, dim: Any, keepdim: bool) -> Any:
        found = np.asarray(numpy_fold(input.astype(np.bool_, copy=False), axis=dim, keepdims=keepdim))
        return found.astype(np.uint8) if input.dtype == np.uint8 else found

    return run


def _truth_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4))
    yield sample(make(3, 4), 1)
    yield sample(make(2, 3, 4), (0, -1), keepdim=True)
    yield sample(make(0, 2), 0)


all = operator(
    "all(Tensor input, int[]? dim=None, bool keepdim=False)",
    type=_logical_type,
    numpy=_logical(np.all),
    kind=REDUCTION,
    scalar="all",
    normalize=normalize,
    samples=_truth_samples,
    categories="bifc",
    out=True,
)
any = operator(
    "any(Tensor input, int[]? dim=None, bool keepdim=False)",
    type=_logical_type,
    numpy=_logical(np.any),
    kind=REDUCTION,
    scalar="any",
    normalize=normalize,
    samples=_truth_samples,
    categories="bifc",
    out=True,
)

# -- extrema ----------------------------------------------------------------------------------------------------------


def _check_nonempty(name: str, shape: Any, dims: Any) -> None:
    """An empty range has no extremum. Raises PyTorch's errors for it."""
    for dim in dims:
        if shape[dim] == 0:
            if len(dims) == len(shape):
                raise RuntimeError(
                    f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction "
                    "dim with the 'dim' argument."
                )
            raise IndexError(f"{name}(): Expected reduction dim {dim} to have non-zero size.")


def _extremum_type(name: str) -> Callable[..., TensorType]:
    def rule(input: Any, dim: Any, keepdim: bool) -> TensorType:
        not_for("max_values_cpu" if name == "amax" else "min_values_cpu", "c", input.dtype)
        _check_nonempty(name, input.shape, dim)
        return reduced_type(input, dim, keepdim, input.dtype)

    return rule


def _share(g: Any, input: Any, result: Any, dim: Any, keepdim: bool) -> Any:
    """Tied extrema receive equal parts of the cotangent."""
    hit = (input == restore(result, input, dim, keepdim)).to(g.dtype)
    return hit * (restore(g, input, dim, keepdim) / hit.sum(dim, keepdim=True))


def _amax_amin(name: str, numpy_fold: Callable[..., Any], scalar: str) -> Callable[..., Any]:
    return operator(
        f"{name}(Tensor input, int[]? dim=(), bool keepdim=False)",
        type=_extremum_type(name),
        numpy=lambda input, dim, keepdim: numpy_fold(input, axis=dim, keepdims=keepdim),
        kind=REDUCTION,
        derivative={"input": _share},
        scalar=scalar,
        normalize=normalize,
        samples=_dim_samples,
        categories="bif",
        out=True,
    )


amax = _amax_amin("amax", np.max, "max")
amin = _amax_amin("amin", np.min, "min")


def _position_type(name: str) -> Callable[..., TensorType]:
    def rule(input: Any, dim: Any, keepdim: bool) -> TensorType:
        if input.dtype is dtypes.bool_:
            raise RuntimeError(f"{name}(): does not support bool input")
        not_for(f"{name}_cpu", "c", input.dtype)
        if 0 in [input.shape[i] for i in dim]:
            if len(dim) == len(input.shape):
                raise IndexError(f"{name}(): Expected reduction dim to be specified for input.numel() == 0.")
            raise IndexError(f"{name}(): Expected reduction dim {dim[0]} to have non-zero size.")
        return reduced_type(input, dim, keepdim, dtypes.int64)

    return rule


def _position(numpy_fold: Callable[..., Any]) -> Callable[..., Any]:
    """The position, in row-major order over the reduced dimensions, of the first extremum; NaN counts as one."""

    def run(input: Any, dim: Any, keepdim: bool) -> Any:
        if input.dtype.kind == "V":
            input = input.astype(np.float32)
        if len(dim) == 1:
            return np.asarray(numpy_fold(input, axis=dim[0], keepdims=keepdim))
        kept = [i for i in range(input.ndim) if i not in dim]
        rows = np.transpose(input, (*kept, *dim)).reshape((*[input.shape[i] for i in kept], -1))
        return np.asarray(numpy_fold(rows, axis=-1)).reshape(reduced_shape(input.shape, dim, keepdim))

    return run


def _normalize_position(input: Any, dim: Any, keepdim: bool) -> tuple[Any, ...]:
    dims = wrap_dims(dim, len(input.shape))
    if len(dims) not in (1, len(input.shape)):
        raise TypeError("argmax() and argmin() take one dimension or none")
    return input, dims, keepdim


def _position_samples(make: Any) -> Iterable[Sample]:
    yield sample(make.distinct(3, 4))
    yield sample(make.distinct(3, 4), 1)
    yield sample(make.distinct(2, 3, 4), -2, keepdim=True)
    yield sample(make.distinct(), 0)


def _argmax_argmin(name: str, numpy_fold: Callable[..., Any]) -> Callable[..., Any]:
    return operator(
        f"{name}(Tensor input, int[]? dim=None, bool keepdim=False)",
        type=_position_type(name),
        numpy=_position(numpy_fold),
        kind=REDUCTION,
        scalar=name,
        normalize=_normalize_position,
        samples=_position_samples,
        categories="if",
        out=True,
    )


argmax = _argmax_argmin("argmax", np.argmax)
argmin = _argmax_argmin("argmin", np.argmin)


def select_along(g: Any, indices: Any, input_type: Any, dim: int, keepdim: bool) -> Any:
    """The cotangent at the selected positions of `dim`, zero elsewhere: by comparing positions, which fuses."""
    if len(input_type.shape) == 0:
        return g
    if not keepdim:
        g, indices = g.unsqueeze(dim), indices.unsqueeze(dim)
    size = input_type.shape[dim]
    positions = FUNCTIONS["arange"](size, device=indices.device)
    positions = positions.reshape((size,) + (1,) * (len(input_type.shape) - 1 - dim))
    return _where(indices == positions, g, 0.0)


def _pair_type(name: str) -> Callable[..., tuple[TensorType, ...]]:
    def rule(input: Any, dim: int, keepdim: bool) -> tuple[TensorType, ...]:
        not_for(name, "c", input.dtype)
        dims = (dim,) if len(input.shape) else ()
        if dims and input.shape[dim] == 0:
            raise IndexError(f"{name}(): Expected reduction dim {dim} to have non-zero size.")
        return reduced_type(input, dims, keepdim, input.dtype), reduced_type(input, dims, keepdim, dtypes.int64)

    return rule


def take_along(input: Any, positions: Any, dim: int, keepdim: bool) -> Any:
    """The elements at `positions` (kept dims) of `dim`, as a NumPy array."""
    values = np.take_along_axis(input, positions, dim)
    return values if keepdim else np.squeeze(values, dim)


def _numpy_pair(numpy_fold: Callable[..., Any]) -> Callable[..., Any]:
    def run(input: Any, dim: int, keepdim: bool) -> Any:
        if input.ndim == 0:
            return input.copy(), np.zeros((), np.int64)
        comparable = input.astype(np.float32) if input.dtype.kind == "V" else input
        positions = numpy_fold(comparable, axis=dim, keepdims=True)
        return take_along(input, positions, dim, keepdim), positions if keepdim else np.squeeze(positions, dim)

    return run


def _normalize_pair(input: Any, dim: int, keepdim: bool) -> tuple[Any, ...]:
    return input, wrap_dim(dim, len(input.shape)), keepdim


def _decompose_pair(fold: Callable[..., Any], position: Callable[..., Any]) -> Callable[..., Any]:
    def run(input: Any, dim: int, keepdim: bool) -> Any:
        integral = input.to(dtypes.uint8) if input.dtype is dtypes.bool_ else input
        return fold(input, dim, keepdim), position(integral, dim, keepdim)

    return run


def _pair(name: str, numpy_fold: Callable[..., Any], decompose: Callable[..., Any]) -> Callable[..., Any]:
    return operator(
        f"{name}_dim(Tensor input, int dim, bool keepdim=False) -> (values, indices)",
        type=_pair_type(name),
        numpy=_numpy_pair(numpy_fold),
        kind=REDUCTION,
        derivative={
            "input": lambda g_values, indices, input_type, dim, keepdim: select_along(
                g_values, indices, input_type, dim, keepdim
            )
        },
        decompose=decompose,
        normalize=_normalize_pair,
        samples=lambda make: [sample(make.distinct(3, 4), 1), sample(make.distinct(2, 3, 4), 1, keepdim=True)],
        categories="bif",
        grad_name=f"{name.capitalize()}Backward0",
        return_name=name,
        public=False,
        method=False,
    )


_max_dim = _pair("max", np.argmax, _decompose_pair(amax, argmax))
_min_dim = _pair("min", np.argmin, _decompose_pair(amin, argmin))


def _extremum_of_all(name: str, numpy_fold: Callable[..., Any], fold: Callable[..., Any]) -> Callable[..., Any]:
    def rule(input: Any) -> TensorType:
        not_for(f"{name}_all", "c", input.dtype)
        _check_nonempty(name, input.shape, range(len(input.shape)))
        return TensorType(input.dtype, (), input.device)

    return operator(
        f"{name}(Tensor input)",
        type=rule,
        numpy=lambda input: numpy_fold(input),
        kind=REDUCTION,
        derivative={
            "input": lambda g, input, result: _share(g, input, result, wrap_dims(None, len(input.shape)), False)
        },
        decompose=lambda input: fold(input),
        samples=lambda make: [sample(make.distinct(3, 4)), sample(make.distinct())],
        categories="bif",
        grad_name=f"{name.capitalize()}Backward1",
        public=False,
        method=False,
    )


def _overloads(name: str, whole: Any, pair: Any, binary: Any) -> Callable[..., Any]:
    def front(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None, out: Any = None) -> Any:
        if isinstance(dim, Tensor):
            dim, other = None, dim
        if other is not None:
            return binary(input, other, out=out) if out is not None else binary(input, other)
        result = whole(input) if dim is None else pair(input, dim, keepdim)
        if out is not None:
            write_out(out if isinstance(out, tuple | list) else (out,), result)
            return out
        return result

    front.__name__ = front.__qualname__ = name
    front.__doc__ = (
        f"The {name}imum of all elements; with `dim`, a named tuple of values and indices along it; with a tensor, the "
        f"elementwise {name}imum. See torch.{name}."
    )
    return function(method=True)(front)


max = _overloads("max", _extremum_of_all("max", np.max, amax), _max_dim, FUNCTIONS["maximum"])
min = _overloads("min", _extremum_of_all("min", np.min, amin), _min_dim, FUNCTIONS["minimum"])


def _aminmax_normalize(input: Any, dim: Any, keepdim: bool) -> tuple[Any, ...]:
    return input, wrap_dims(dim, len(input.shape)), keepdim


def _aminmax_type(input: Any, dim: Any, keepdim: bool) -> tuple[TensorType, ...]:
    not_for("aminmax_cpu", "c", input.dtype)
    if 0 in [input.shape[i] for i in dim]:
        if len(dim) == len(input.shape):
            raise RuntimeError(
                "aminmax(): cannot compute aminmax over an empty dimension as the operation has no identity."
            )
        raise IndexError(f"aminmax: Expected reduction dim {dim[0]} to have non-zero size.")
    one = reduced_type(input, dim, keepdim, input.dtype)
    return one, one


def _aminmax_formula(gs: Any, input: Any, min: Any, max: Any, dim: Any, keepdim: bool) -> Any:
    parts = [_share(g, input, r, dim, keepdim) for g, r in zip(gs, (min, max), strict=True) if g is not None]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


aminmax = operator(
    "aminmax(Tensor input, *, int[]? dim=None, bool keepdim=False) -> (min, max)",
    type=_aminmax_type,
    numpy=lambda input, dim, keepdim: (
        np.min(input, axis=dim, keepdims=keepdim),
        np.max(input, axis=dim, keepdims=keepdim),
    ),
    kind=REDUCTION,
    derivative={"input": _aminmax_formula},
    decompose=lambda input, dim, keepdim: (amin(input, dim, keepdim), amax(input, dim, keepdim)),
    normalize=_aminmax_normalize,
    samples=lambda make: [sample(make.distinct(3, 4)), sample(make.distinct(3, 4), dim=1, keepdim=True)],
    categories="bif",
)
