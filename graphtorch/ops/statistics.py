"""Variance, standard deviation and the median."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.dispatch import write_out
from graphtorch.ops.pointwise import not_implemented
from graphtorch.ops.record import REDUCTION, Sample, sample
from graphtorch.ops.reduction import restore, select_along, take_along, wide
from graphtorch.ops.shapes import count, reduced_shape, wrap_dim, wrap_dims
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

_add_reduce: Any = np.add.reduce

# -- variance ---------------------------------------------------------------------------------------------------------


def _normalize(input: Any, dim: Any, correction: Any, keepdim: bool) -> tuple[Any, ...]:
    return input, wrap_dims(dim, len(input.shape)), correction, keepdim


def _one_type(input: Any, dim: Any, correction: Any, keepdim: bool) -> TensorType:
    if input.dtype.category < dtypes.FLOATING:
        raise RuntimeError("std and var only support floating point and complex dtypes")
    return TensorType(input.dtype.to_real(), reduced_shape(input.shape, dim, keepdim), input.device)


def _two_types(input: Any, dim: Any, correction: Any, keepdim: bool) -> tuple[TensorType, TensorType]:
    spread = _one_type(input, dim, correction, keepdim)
    return spread, spread.with_dtype(input.dtype)


def _freedom(shape: Any, dim: Any, correction: Any) -> Any:
    """The divisor: how many values, less the correction, but not below zero."""
    free = count(shape, dim) - correction
    return free if free >= 0 else 0


def _numpy_var_mean(input: Any, dim: Any, correction: Any, keepdim: bool) -> tuple[Any, Any]:
    x = wide(input)
    size = count(x.shape, dim)
    total_of_all: Any = np.add.reduce(x, axis=dim, keepdims=True)
    mean = np.asarray(total_of_all / total_of_all.dtype.type(size))
    distance = x - mean
    square = (distance * distance.conj()).real if np.iscomplexobj(x) else distance * distance
    total = np.asarray(_add_reduce(square, axis=dim, keepdims=keepdim))
    variance = np.asarray(total / total.dtype.type(_freedom(x.shape, dim, correction)))
    target = input.dtype if not np.iscomplexobj(x) else total.dtype
    return variance.astype(target), mean.reshape(reduced_shape(x.shape, dim, keepdim)).astype(input.dtype)


def _numpy_std_mean(input: Any, dim: Any, correction: Any, keepdim: bool) -> tuple[Any, Any]:
    variance, mean = _numpy_var_mean(wide(input), dim, correction, keepdim)
    root = np.sqrt(variance)
    return root if np.iscomplexobj(input) else root.astype(input.dtype), mean.astype(input.dtype)


def _decompose_var_mean(input: Any, dim: Any, correction: Any, keepdim: bool) -> tuple[Any, Any]:
    d = input.dtype
    x = input.to(dtypes.float32) if d in (dtypes.float16, dtypes.bfloat16) else input
    mean = x.mean(dim, keepdim=True)
    distance = x - mean
    square = (distance * distance.conj()).real if d.is_complex else distance * distance
    variance = square.sum(dim, keepdim) / _freedom(input.shape, dim, correction)
    if not keepdim:
        mean = mean.reshape(reduced_shape(input.shape, dim, False))
    if x is not input:
        variance, mean = variance.to(d), mean.to(d)
    return variance, mean


def _decompose_std_mean(input: Any, dim: Any, correction: Any, keepdim: bool) -> tuple[Any, Any]:
    d = input.dtype
    x = input.to(dtypes.float32) if d in (dtypes.float16, dtypes.bfloat16) else input
    variance, mean = _decompose_var_mean(x, dim, correction, keepdim)
    root = variance.sqrt()
    return (root, mean) if x is input else (root.to(d), mean.to(d))


def _of_var(g: Any, input: Any, dim: Any, correction: Any, keepdim: bool) -> Any:
    free = _freedom(input.shape, dim, correction)
    distance = input - input.mean(dim, keepdim=True)
    each = restore(g, input, dim, keepdim)
    if getattr(free, "is_symbolic_int", False):  # a quotient of symbolic sizes would fix them
        return each * 2.0 / free * distance
    return each * (2.0 / free if free else float("inf")) * distance


def _of_std(g: Any, input: Any, result: Any, dim: Any, correction: Any, keepdim: bool) -> Any:
    return _of_var(FUNCTIONS["where"](result == 0, 0.0, g / (result * 2)), input, dim, correction, keepdim)


def _of_mean(g: Any, input: Any, dim: Any, keepdim: bool) -> Any:
    return restore(g, input, dim, keepdim).expand(tuple(input.shape)) / count(input.shape, dim)


def _add(first: Any, second: Any) -> Any:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4))
    yield sample(make(3, 4), 1, 0)
    yield sample(make(2, 3, 4), (0, -1), 1, keepdim=True)


def _spread_operator(
    name: str, numpy: Callable[..., Any], decompose: Callable[..., Any], slope: Any
) -> Callable[..., Any]:
    return operator(
        f"{name}(Tensor input, int[]? dim=None, Number correction=1, bool keepdim=False)",
        type=_one_type,
        numpy=lambda input, dim, correction, keepdim: numpy(input, dim, correction, keepdim)[0],
        kind=REDUCTION,
        derivative={"input": slope},
        decompose=lambda input, dim, correction, keepdim: decompose(input, dim, correction, keepdim)[0],
        normalize=_normalize,
        samples=_samples,
        categories="fc",
        public=False,
        method=False,
    )


def _pair_operator(
    name: str, result: str, numpy: Callable[..., Any], decompose: Callable[..., Any], slope: Any
) -> Callable[..., Any]:
    return operator(
        f"{name}(Tensor input, int[]? dim=None, Number correction=1, bool keepdim=False) -> ({result}, mean)",
        type=_two_types,
        numpy=numpy,
        kind=REDUCTION,
        derivative={"input": slope},
        decompose=decompose,
        normalize=_normalize,
        samples=_samples,
        categories="fc",
        public=False,
        method=False,
    )


_var = _spread_operator("var", _numpy_var_mean, _decompose_var_mean, _of_var)
_std = _spread_operator("std", _numpy_std_mean, _decompose_std_mean, _of_std)
_var_mean = _pair_operator(
    "var_mean",
    "var",
    _numpy_var_mean,
    _decompose_var_mean,
    lambda g_var, g_mean, input, dim, correction, keepdim: _add(
        None if g_var is None else _of_var(g_var, input, dim, correction, keepdim),
        None if g_mean is None else _of_mean(g_mean, input, dim, keepdim),
    ),
)
_std_mean = _pair_operator(
    "std_mean",
    "std",
    _numpy_std_mean,
    _decompose_std_mean,
    lambda g_std, g_mean, input, std, dim, correction, keepdim: _add(
        None if g_std is None else _of_std(g_std, input, std, dim, correction, keepdim),
        None if g_mean is None else _of_mean(g_mean, input, dim, keepdim),
    ),
)


def _front(name: str, record: Callable[..., Any], what: str) -> None:
    def front(
        input: Any,
        dim: Any = None,
        unbiased: Any = None,
        keepdim: bool = False,
        *,
        correction: Any = None,
        out: Any = None,
    ) -> Any:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        if correction is None:
            correction = 1 if unbiased is None else int(unbiased)
        result = record(input, dim, correction, keepdim)
        if out is not None:
            write_out((out,), result)
            return out
        return tuple(result) if isinstance(result, tuple) else result

    front.__name__ = front.__qualname__ = name
    front.__doc__ = (
        f"{what} along `dim` (all dimensions by default); the divisor is the number of values less `correction`. "
        f"See torch.{name}."
    )
    function(method="mean" not in name)(front)


_front("var", _var, "The variance")
_front("std", _std, "The standard deviation")
_front("var_mean", _var_mean, "Variance and mean")
_front("std_mean", _std_mean, "Standard deviation and mean")

# -- median -----------------------------------------------------------------------------------------------------------


def _refuse(input: Any) -> None:
    if input.dtype is dtypes.bool_ or input.dtype.is_complex:
        raise not_implemented("median_cpu", input.dtype)


def _median_type(input: Any) -> TensorType:
    _refuse(input)
    return TensorType(input.dtype, (), input.device)


def _middle(rows: Any, ignore_nan: bool) -> Any:
    """The positions, along the last axis, of the lower median; a NaN is the median unless ignored."""
    keys = rows.astype(np.float32) if rows.dtype.kind == "V" else rows
    order = np.argsort(keys, axis=-1, kind="stable")  # NaN last
    size = rows.shape[-1]
    if keys.dtype.kind != "f":
        return order[..., (size - 1) // 2]
    missing = np.isnan(keys).sum(-1)
    if ignore_nan:
        place = np.maximum((size - missing - 1) // 2, 0)
    else:
        place = np.where(missing > 0, size - missing, (size - 1) // 2)
    return np.take_along_axis(order, place[..., None], -1)[..., 0]


def _numpy_median(ignore_nan: bool) -> Callable[..., Any]:
    def run(input: Any) -> Any:
        flat = input.reshape(-1)
        if not flat.size:
            if input.dtype.kind not in "fV":
                return np.asarray(np.iinfo(input.dtype).min, input.dtype)
            return np.asarray(np.nan).astype(input.dtype)
        return flat[_middle(flat, ignore_nan)]

    return run


def _share(g: Any, input: Any, result: Any) -> Any:
    """Elements equal to the median receive equal parts of the cotangent."""
    hit = FUNCTIONS["logical_or"](input == result, FUNCTIONS["logical_and"](input.isnan(), result.isnan())).to(g.dtype)
    return hit * (g / hit.sum())


def _median_dim_type(input: Any, dim: int, keepdim: bool) -> tuple[TensorType, TensorType]:
    _refuse(input)
    dims = (dim,) if len(input.shape) else ()
    if dims and input.shape[dim] == 0:
        raise IndexError(f"median(): Expected reduction dim {dim} to have non-zero size.")
    values = TensorType(input.dtype, reduced_shape(input.shape, dims, keepdim), input.device)
    return values, values.with_dtype(dtypes.int64)


def _numpy_median_dim(ignore_nan: bool) -> Callable[..., Any]:
    def run(input: Any, dim: int, keepdim: bool) -> Any:
        if input.ndim == 0:
            return input.copy(), np.zeros((), np.int64)
        positions = np.expand_dims(_middle(np.moveaxis(input, dim, -1), ignore_nan), dim)
        positions = np.ascontiguousarray(positions)
        return take_along(input, positions, dim, keepdim), positions if keepdim else np.squeeze(positions, dim)

    return run


def _median(name: str, ignore_nan: bool) -> None:
    grad = f"{name.capitalize()}Backward"
    whole = operator(
        f"{name}(Tensor input)",
        type=_median_type,
        numpy=_numpy_median(ignore_nan),
        derivative={"input": _share},
        samples=lambda make: [sample(make.distinct(3, 4)), sample(make.distinct(5))],
        categories="if",
        grad_name=grad + "0",
        public=False,
        method=False,
    )
    along = operator(
        f"{name}_dim(Tensor input, int dim, bool keepdim=False) -> (values, indices)",
        type=_median_dim_type,
        numpy=_numpy_median_dim(ignore_nan),
        derivative={
            "input": lambda g_values, indices, input_type, dim, keepdim: select_along(
                g_values, indices, input_type, dim, keepdim
            )
        },
        normalize=lambda input, dim, keepdim: (input, wrap_dim(dim, len(input.shape)), keepdim),
        samples=lambda make: [sample(make.distinct(3, 4), 1), sample(make.distinct(2, 3, 4), 1, keepdim=True)],
        categories="if",
        grad_name=grad + "1",
        return_name=name,
        public=False,
        method=False,
    )

    def front(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
        return whole(input) if dim is None else along(input, dim, keepdim)

    front.__name__ = front.__qualname__ = name
    front.__doc__ = (
        "The lower median of all elements, or a named tuple of medians and their indices along `dim`"
        + (", NaN left out" if ignore_nan else "")
        + f". See torch.{name}."
    )
    function(method=True)(front)


_median("median", False)
_median("nanmedian", True)
