"""Comparisons, logic on booleans and bits, and selection by a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphtorch.ops.arithmetic import install_operator
from graphtorch.ops.build import FUNCTIONS, function, operator
from graphtorch.ops.pointwise import (
    binary,
    broadcast_shapes,
    common,
    cpp_name,
    not_implemented,
    pointwise_type,
    promoted,
    refuse,
    scalar_type,
    to_bool,
)
from graphtorch.ops.record import POINTWISE, Sample, sample
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType

# -- comparisons ------------------------------------------------------------------------------------------------------


def _tied_samples(make: Any) -> Iterable[Sample]:
    x = make(3, 4, low=-2.0, high=2.0)
    yield sample(x, x)
    yield sample(make(3, 1), make(4))
    yield sample(make(3, 4), 0)
    yield sample(make(3, 4), make())


def _comparison(name: str, compute: Callable[..., Any], ordered: bool = True) -> Callable[..., Any]:
    return binary(
        name,
        compute,
        result=to_bool,
        check=refuse(f"{name}_cpu", "c") if ordered else None,
        samples=_tied_samples,
        categories="bif" if ordered else "bifc",
    )


eq = _comparison("eq", np.equal, ordered=False)
ne = _comparison("ne", np.not_equal, ordered=False)
lt = _comparison("lt", np.less)
le = _comparison("le", np.less_equal)
gt = _comparison("gt", np.greater)
ge = _comparison("ge", np.greater_equal)

for _name, _other in (
    ("ne", "not_equal"),
    ("lt", "less"),
    ("le", "less_equal"),
    ("gt", "greater"),
    ("ge", "greater_equal"),
):
    for _suffix in ("", "_"):
        FUNCTIONS[_other + _suffix] = FUNCTIONS[_name + _suffix]
        setattr(Tensor, _other + _suffix, FUNCTIONS[_name + _suffix])

# -- logic ------------------------------------------------------------------------------------------------------------


def _logical(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    return binary(name, compute, result=to_bool, other="Tensor", categories="bifc")


logical_and = _logical("logical_and", np.logical_and)
logical_or = _logical("logical_or", np.logical_or)
logical_xor = _logical("logical_xor", np.logical_xor)


def _bitwise(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    return binary(name, compute, check=refuse(f"{name}_cpu", "fc"), input="Tensor|Number", categories="bi")


bitwise_and = _bitwise("bitwise_and", np.bitwise_and)
bitwise_or = _bitwise("bitwise_or", np.bitwise_or)
bitwise_xor = _bitwise("bitwise_xor", np.bitwise_xor)


def _shift(name: str, compute: Callable[..., Any], scalar: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return binary(
        name,
        compute,
        check=refuse(name, "bfc"),
        decompose=scalar,
        low=0,
        high=3,
        categories="i",
    )


def _power_of_two(input: Any, other: Any) -> Any:
    return FUNCTIONS["pow"](2, other if hasattr(other, "shape") else FUNCTIONS["full_like"](input, other))


bitwise_left_shift = _shift(
    "bitwise_left_shift", np.left_shift, lambda input, other: input * _power_of_two(input, other)
)
bitwise_right_shift = _shift(
    "bitwise_right_shift",
    np.right_shift,
    lambda input, other: FUNCTIONS["floor_divide"](input, _power_of_two(input, other)),
)

# -- selection --------------------------------------------------------------------------------------------------------


def _where_type(condition: Any, input: Any, other: Any) -> TensorType:
    if condition.dtype not in (dtypes.bool_, dtypes.uint8):
        raise RuntimeError(
            "where expected condition to be a boolean tensor, but got a tensor with dtype "
            f"{scalar_type(condition.dtype)}"
        )
    d = common(input, other)
    dtypes.check_fits(input, d, fill=True)
    dtypes.check_fits(other, d, fill=True)
    return pointwise_type((condition, input, other), d)


def _numpy_where(condition: Any, input: Any, other: Any) -> Any:
    if condition.dtype != np.bool_:
        condition = condition.astype(np.bool_)
    if not (_goes_with(input, other) or _goes_with(other, input)):
        input, other = promoted(common, (input, other))
    return np.where(condition, input, other)


def _goes_with(x: Any, y: Any) -> bool:
    """Whether NumPy selects from an array `x` and `y` in the dtype of `x`, as PyTorch does."""
    if type(x) is not np.ndarray:
        return False
    if type(y) is np.ndarray:
        return bool(x.dtype == y.dtype)
    return x.dtype.kind == "f" and (type(y) is float or (type(y) is int and y == 0))


def _zero(g: Any) -> Any:
    return FUNCTIONS["zeros"]((), dtype=g.dtype)


def _where_samples(make: Any) -> Iterable[Sample]:
    yield sample(make.bools(3, 4), make(3, 4), make(3, 4))
    yield sample(make.bools(3, 1), make(4), make(3, 4))
    yield sample(make.bools(3, 4), make(3, 4), 0)


_where: Callable[..., Any] = operator(
    "where(Tensor condition, Tensor|Number input, Tensor|Number other)",
    type=_where_type,
    numpy=_numpy_where,
    kind=POINTWISE,
    derivative={
        "input": lambda g, condition: _where(condition, g, 0.0),
        "other": lambda g, condition: _where(condition, 0.0, g),
    },
    scalar="where",
    compute=lambda condition, input, other: (dtypes.bool_, common(input, other), common(input, other)),
    samples=_where_samples,
    categories="bifc",
    method=False,
    out=True,
)


@function()
def where(condition: Any, input: Any = None, other: Any = None, *, out: Any = None) -> Any:
    """Elements of `input` where the condition holds, of `other` elsewhere; with the condition alone, the indices of its
    nonzero elements as a tuple. See torch.where.
    """
    if input is None and other is None:
        return FUNCTIONS["nonzero"](condition, as_tuple=True)
    return _where(condition, input, other, out=out) if out is not None else _where(condition, input, other)


def _where_method(self: Any, condition: Any, other: Any) -> Any:
    """`torch.where(condition, self, other)`."""
    return _where(condition, self, other)


Tensor.where = _where_method  # type: ignore[attr-defined]


def _check_mask(input: Any, mask: Any, value: Any) -> None:
    if mask.dtype is not dtypes.bool_:
        spelled = {"int64": "long int"}.get(mask.dtype.name, cpp_name(mask.dtype))
        raise RuntimeError(f"masked_fill_ only supports boolean masks, but got mask with dtype {spelled}")
    if hasattr(value, "shape") and len(value.shape) != 0:
        raise RuntimeError(
            "masked_fill_ only supports a 0-dimensional value tensor, but got tensor with "
            f"{len(value.shape)} dimension(s)."
        )
    dtypes.check_fits(value, input.dtype)


def _masked_fill_type(input: Any, mask: Any, value: Any) -> TensorType:
    _check_mask(input, mask, value)
    return TensorType(input.dtype, broadcast_shapes(input.shape, mask.shape), input.device)


def _numpy_masked_fill(input: Any, mask: Any, value: Any) -> Any:
    if getattr(value, "dtype", input.dtype) != input.dtype:
        number = value.astype(np.float32).item() if value.dtype.kind == "V" else value.item()
        if isinstance(number, complex) and number.imag == 0:
            number = number.real
        dtypes.check_fits(number, dtypes.from_numpy_dtype(input.dtype))
    return np.where(mask, np.asarray(value).astype(input.dtype), input)


def _cast_to(value: Any, d: dtype) -> Any:
    """A fill value in the dtype of what it fills, which it never promotes."""
    if hasattr(value, "shape"):
        return value if value.dtype is d and not getattr(value, "is_number", False) else value.to(d)
    if d is dtypes.bool_:
        return bool(value)
    if d.category == dtypes.INTEGRAL:
        return int(value)
    return float(value) if d.is_floating_point else complex(value)


def _decompose_masked_fill(input: Any, mask: Any, value: Any) -> Any:
    return _where(mask, _cast_to(value, input.dtype), input)


def _masked_fill_samples(make: Any) -> Iterable[Sample]:
    yield sample(make(3, 4), make.bools(3, 4), 1)
    yield sample(make(3, 4), make.bools(4), make())
    yield sample(make(4), make.bools(3, 4), 0)


masked_fill: Callable[..., Any] = operator(
    "masked_fill(Tensor input, Tensor mask, Tensor|Number value)",
    order={"result": "rows"},
    type=_masked_fill_type,
    numpy=_numpy_masked_fill,
    kind=POINTWISE,
    derivative={
        "input": lambda g, mask: masked_fill(g, mask, 0.0),
        "value": lambda g, mask: _where(mask, g, 0.0).sum(),
    },
    decompose=_decompose_masked_fill,
    compute=lambda input, mask, value: (input.dtype, dtypes.bool_, input.dtype),
    samples=_masked_fill_samples,
    categories="bifc",
    inplace=True,
)

# -- nearness ---------------------------------------------------------------------------------------------------------


@function(method=True)
def isclose(input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Any:
    """Elementwise |input - other| <= atol + rtol |other|, or equal. See torch.isclose.

    Raises RuntimeError for operands of different dtypes or a negative tolerance.
    """
    for place, (name, value) in enumerate((("input", input), ("other", other)), 1):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"isclose(): argument '{name}' (position {place}) must be Tensor, not {type(value).__name__}"
            )
    if input.dtype is not other.dtype:
        raise RuntimeError(f"{scalar_type(input.dtype)} did not match {scalar_type(other.dtype)}")
    if rtol < 0:
        raise RuntimeError(f"rtol must be greater than or equal to zero, but got {rtol:g}")
    if atol < 0:
        raise RuntimeError(f"atol must be greater than or equal to zero, but got {atol:g}")
    close = input == other
    if equal_nan and input.dtype.category >= dtypes.FLOATING:
        close = logical_or(close, logical_and(input.isnan(), other.isnan()))
    if rtol == 0 and atol == 0:
        return close
    if input.dtype.category < dtypes.FLOATING:
        input, other = input.to(dtypes.float64), other.to(dtypes.float64)
    distance = (input - other).abs()
    allowed = atol + (rtol * other).abs()
    return logical_or(close, logical_and(distance.isfinite(), distance <= allowed))


@function(method=True)
def allclose(input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close. See torch.allclose."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all().item())


@function(method=True)
def equal(input: Any, other: Any) -> bool:
    """Whether shape and all elements are the same; NaN differs from itself. See torch.equal."""
    if tuple(input.shape) != tuple(other.shape):
        return False
    return bool((input == other).all().item())


def _isin_type(elements: Any, test_elements: Any, assume_unique: bool, invert: bool) -> TensorType:
    tensors = [v for v in (elements, test_elements) if hasattr(v, "shape")]
    if not tensors:
        raise ValueError("isin: at least one of elements and test_elements must be a tensor")
    shape = tuple(elements.shape) if hasattr(elements, "shape") else ()
    if any(v.dtype is dtypes.bool_ for v in tensors):
        raise RuntimeError("Unsupported input type encountered for isin(): Bool")
    if common(elements, test_elements).is_complex:
        raise not_implemented("isin_default_cpu", common(elements, test_elements))
    return TensorType(dtypes.bool_, shape, tensors[0].device)


def _numpy_isin(elements: Any, test_elements: Any, assume_unique: bool, invert: bool) -> Any:
    x, tests = promoted(common, (elements, test_elements))
    return np.isin(x, tests, assume_unique=False, invert=invert)


isin = operator(
    "isin(Tensor|Number elements, Tensor|Number test_elements, *, bool assume_unique=False, bool invert=False)",
    type=_isin_type,
    numpy=_numpy_isin,
    samples=lambda make: [sample(make(3, 4), make(5)), sample(make(3, 4), 1, invert=True)],
    categories="if",
    method=False,
    out=True,
)

# -- Python's operators -----------------------------------------------------------------------------------------------

for _name, _compute in (
    ("__eq__", eq),
    ("__ne__", ne),
    ("__lt__", lt),
    ("__le__", le),
    ("__gt__", gt),
    ("__ge__", ge),
    ("__and__", bitwise_and),
    ("__rand__", bitwise_and),
    ("__iand__", FUNCTIONS["bitwise_and_"]),
    ("__or__", bitwise_or),
    ("__ror__", bitwise_or),
    ("__ior__", FUNCTIONS["bitwise_or_"]),
    ("__xor__", bitwise_xor),
    ("__rxor__", bitwise_xor),
    ("__ixor__", FUNCTIONS["bitwise_xor_"]),
    ("__lshift__", bitwise_left_shift),
    ("__rshift__", bitwise_right_shift),
    ("__rlshift__", lambda self, other: bitwise_left_shift(self.new_full((), other), self)),
    ("__rrshift__", lambda self, other: bitwise_right_shift(self.new_full((), other), self)),
    ("__ilshift__", FUNCTIONS["bitwise_left_shift_"]),
    ("__irshift__", FUNCTIONS["bitwise_right_shift_"]),
):
    install_operator(_name, _compute)
