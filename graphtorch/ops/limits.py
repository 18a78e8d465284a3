"""The larger and the smaller of two operands, and clamping between limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops.build import FUNCTIONS, operator
from graphtorch.ops.pointwise import binary, common, not_implemented, pointwise_type, promoted
from graphtorch.ops.record import POINTWISE, Sample, sample
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType

# -- larger and smaller -----------------------------------------------------------------------------------------------


def _refuse_complex(name: str) -> Callable[..., None]:
    def check(input: Any, other: Any) -> None:
        if common(input, other).is_complex:
            raise RuntimeError(f"{name} not implemented for complex tensors.")

    return check


def _shared(worse: Callable[[Any, Any], Any], of_input: bool) -> Callable[..., Any]:
    """The larger operand receives the cotangent; equal operands share it."""

    def formula(g: Any, input: Any, other: Any) -> Any:
        where = FUNCTIONS["where"]
        half = where(input == other, g / 2, g)
        return where(worse(input, other) if of_input else worse(other, input), 0.0, half)

    return formula


def _extremum(name: str, compute: Any, worse: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return binary(
        name,
        compute,
        {"input": _shared(worse, True), "other": _shared(worse, False)},
        check=_refuse_complex(name),
        other="Tensor",
        categories="bif",
        inplace=False,
    )


def _less(a: Any, b: Any) -> Any:
    return a < b


def _greater(a: Any, b: Any) -> Any:
    return a > b


maximum = _extremum("maximum", np.maximum, _less)
minimum = _extremum("minimum", np.minimum, _greater)


def _ignoring_nan(
    name: str, compute: Any, pick: Callable[..., Any], better: Callable[[Any, Any], Any]
) -> Callable[..., Any]:
    """fmax and fmin: a NaN loses against a number."""

    def decompose(input: Any, other: Any) -> Any:
        where = FUNCTIONS["where"]
        return where(input.isnan(), other, where(other.isnan(), input, pick(input, other)))

    def keeps_input(input: Any, other: Any) -> Any:
        return FUNCTIONS["logical_or"](better(input, other), other.isnan())

    return binary(
        name,
        compute,
        {
            "input": lambda g, input, other: FUNCTIONS["where"](keeps_input(input, other), g, 0.0),
            "other": lambda g, input, other: FUNCTIONS["where"](keeps_input(input, other), 0.0, g),
        },
        check=_refuse_complex(name),
        decompose=decompose,
        other="Tensor",
        categories="bif",
        inplace=False,
    )


fmax = _ignoring_nan("fmax", np.fmax, maximum, lambda a, b: a >= b)
fmin = _ignoring_nan("fmin", np.fmin, minimum, lambda a, b: a <= b)

# -- limits -----------------------------------------------------------------------------------------------------------


def _clamp_dtype(input: Any, min: Any, max: Any) -> dtypes.dtype:
    return common(*(v for v in (input, min, max) if v is not None))


def _clamp_type(input: Any, min: Any, max: Any) -> TensorType:
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    d = _clamp_dtype(input, min, max)
    if d.is_complex:
        raise NotImplementedError("clamp is not supported for complex types")
    if d is dtypes.bool_:
        side = "" if min is not None and max is not None else "_min" if max is None else "_max"
        raise not_implemented(f"clamp{side}_scalar_cpu", d)
    dtypes.check_fits(min, d)
    dtypes.check_fits(max, d)
    return pointwise_type([v for v in (input, min, max) if v is not None], d)


def _numpy_clamp(input: Any, min: Any, max: Any) -> Any:
    bounds = [v for v in (min, max) if v is not None]
    if type(input) is np.ndarray and input.dtype.char in "fd" and all([type(v) is float for v in bounds]):
        made = input if min is None else np.maximum(input, min)
        if max is None:
            return made
        return np.minimum(made, max, out=made) if made is not input and input.ndim else np.minimum(made, max)
    x, *cast = promoted(common, (input, *bounds))
    if min is not None:
        x = np.maximum(x, cast[0])
    if max is None:
        return x
    # The first step's result is nobody else's.
    return np.minimum(x, cast[-1], out=x if min is not None and _covers(x, cast[-1]) else None)


def _covers(x: Any, y: Any) -> bool:
    """Whether an operation on both can write into `x`."""
    return isinstance(x, np.ndarray) and np.broadcast_shapes(x.shape, y.shape) == x.shape


def _inside(input: Any, min: Any, max: Any) -> Any:
    """Where a clamped operand passes through: both limits included."""
    if min is None:
        return input <= max
    return input >= min if max is None else FUNCTIONS["logical_and"](input >= min, input <= max)


def _clamp_min_formula(g: Any, input: Any, min: Any, max: Any) -> Any:
    where = FUNCTIONS["where"]
    below = input < min
    return where(below if max is None else FUNCTIONS["logical_and"](min < max, below), g, 0.0)


def _clamp_max_formula(g: Any, input: Any, min: Any, max: Any) -> Any:
    where = FUNCTIONS["where"]
    above = input > max
    return where(above if min is None else FUNCTIONS["logical_or"](max < min, above), g, 0.0)


def _as_tensor_bound(bound: Any, like: Any) -> Any:
    return bound if hasattr(bound, "shape") else FUNCTIONS["full"]((), bound, dtype=like, device=None)


def _decompose_clamp(input: Any, min: Any, max: Any) -> Any:
    d = _clamp_dtype(input, min, max)
    if input.dtype is not d:
        input = input.to(d)
    if min is not None:
        input = maximum(input, _as_tensor_bound(min, d)).to(d)
    return input if max is None else minimum(input, _as_tensor_bound(max, d)).to(d)


def _clamp_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), -1, 1)
    yield sample(make(3, 4), min=0)
    yield sample(make(3, 4), max=1)
    yield sample(make(3, 4), make(4, high=0.0), make(3, 1, low=0.0))
    yield sample(make(3, 4), min=make(1))
    yield sample(make(3, 4), 2, 1)


clamp = operator(
    "clamp(Tensor input, Tensor|Number? min=None, Tensor|Number? max=None)",
    type=_clamp_type,
    numpy=_numpy_clamp,
    kind=POINTWISE,
    derivative={
        "input": lambda g, input, min, max: FUNCTIONS["where"](_inside(input, min, max), g, 0.0),
        "min": _clamp_min_formula,
        "max": _clamp_max_formula,
    },
    decompose=_decompose_clamp,
    compute=_clamp_dtype,
    samples=_clamp_samples,
    categories="if",
    overload=lambda input, min, max: 0 if hasattr(min, "shape") or hasattr(max, "shape") else 1,
    inplace=True,
    out=True,
)
FUNCTIONS["clip"] = Tensor.clip = clamp  # type: ignore[attr-defined]
FUNCTIONS["clip_"] = Tensor.clip_ = Tensor.clamp_  # type: ignore[attr-defined]


def _one_sided(name: str, bound: str) -> Callable[..., Any]:
    """clamp_min and clamp_max: `clamp` with one limit, by PyTorch's names."""
    lower = bound == "min"

    def both(limit: Any) -> tuple[Any, Any]:
        return (limit, None) if lower else (None, limit)

    def derivative_of_input(g: Any, input: Any, limit: Any) -> Any:
        return FUNCTIONS["where"](_inside(input, *both(limit)), g, 0.0)

    def derivative_of_limit(g: Any, input: Any, limit: Any) -> Any:
        return FUNCTIONS["where"](input < limit if lower else input > limit, g, 0.0)

    def rule(input: Any, limit: Any) -> TensorType:
        if hasattr(limit, "shape") and common(input, limit) is dtypes.bool_:
            return pointwise_type((input, limit), dtypes.bool_)
        return _clamp_type(input, *both(limit))

    namespace: dict[str, Any] = {"a": derivative_of_input, "b": derivative_of_limit}
    # A formula names what it needs by its parameters, and here the parameter's own name varies.
    of_input = eval(f"lambda g, input, {bound}: a(g, input, {bound})", namespace)
    of_limit = eval(f"lambda g, input, {bound}: b(g, input, {bound})", namespace)
    return operator(
        f"{name}(Tensor input, Tensor|Number {bound})",
        type=rule,
        numpy=lambda input, limit: _numpy_clamp(input, *both(limit)),
        kind=POINTWISE,
        derivative={"input": of_input, bound: of_limit},
        decompose=lambda input, limit: _decompose_clamp(input, *both(limit)),
        compute=common,
        samples=lambda make: [sample(make(3, 4), make(4)), sample(make(3, 4), 0)],
        categories="if",
        inplace=True,
        out=True,
    )


clamp_min = _one_sided("clamp_min", "min")
clamp_max = _one_sided("clamp_max", "max")
