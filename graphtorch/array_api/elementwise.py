"""Elementwise functions with the array API standard's names and promotion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphtorch import ops
from graphtorch.array_api.types import promoted
from graphtorch.ops import FUNCTIONS
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor

Unary = Callable[[Tensor], Tensor]
Binary = Callable[[Any, Any], Tensor]


def _unary(name: str, of: str | None = None) -> Unary:
    """The standard's function of one array over an operator."""
    function = FUNCTIONS[of or name]

    def applied(x: Tensor, /) -> Tensor:
        made: Tensor = function(x)
        return made

    return _named(applied, name, of)  # type: ignore[no-any-return]


def _binary(name: str, of: str | None = None) -> Binary:
    """The standard's function of two operands, one of which may be a Python number, over an operator."""
    function = FUNCTIONS[of or name]

    def applied(x1: Any, x2: Any, /) -> Tensor:
        made: Tensor = function(*promoted(x1, x2))
        return made

    return _named(applied, name, of)  # type: ignore[no-any-return]


def _named(function: Any, name: str, of: str | None) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`{of or name}` of the operators, with the standard's arguments and promotion."
    return function


abs = _unary("abs")
acos = _unary("acos")
acosh = _unary("acosh")
asin = _unary("asin")
asinh = _unary("asinh")
atan = _unary("atan")
atanh = _unary("atanh")
bitwise_invert = _unary("bitwise_invert", "bitwise_not")
cos = _unary("cos")
cosh = _unary("cosh")
exp = _unary("exp")
isfinite = _unary("isfinite")
isinf = _unary("isinf")
isnan = _unary("isnan")
log = _unary("log")
log1p = _unary("log1p")
log2 = _unary("log2")
log10 = _unary("log10")
logical_not = _unary("logical_not")
negative = _unary("negative", "neg")
positive = _unary("positive")
reciprocal = _unary("reciprocal")
signbit = _unary("signbit")
sin = _unary("sin")
sinh = _unary("sinh")
sqrt = _unary("sqrt")
square = _unary("square")
tan = _unary("tan")
tanh = _unary("tanh")

add = _binary("add")
atan2 = _binary("atan2")
bitwise_and = _binary("bitwise_and")
bitwise_left_shift = _binary("bitwise_left_shift")
bitwise_or = _binary("bitwise_or")
bitwise_right_shift = _binary("bitwise_right_shift")
bitwise_xor = _binary("bitwise_xor")
copysign = _binary("copysign")
divide = _binary("divide", "div")
equal = _binary("equal", "eq")
greater = _binary("greater", "gt")
greater_equal = _binary("greater_equal", "ge")
hypot = _binary("hypot")
less = _binary("less", "lt")
less_equal = _binary("less_equal", "le")
logaddexp = _binary("logaddexp")
logical_and = _binary("logical_and")
logical_or = _binary("logical_or")
logical_xor = _binary("logical_xor")
maximum = _binary("maximum")
minimum = _binary("minimum")
multiply = _binary("multiply", "mul")
nextafter = _binary("nextafter")
not_equal = _binary("not_equal", "ne")
pow = _binary("pow")
subtract = _binary("subtract", "sub")


def _rounding(name: str) -> Unary:
    """Rounding: integers and booleans stay as they are, complex numbers round by parts."""
    function = FUNCTIONS[name]

    def applied(x: Tensor, /) -> Tensor:
        if x.dtype.category <= dtypes.INTEGRAL:
            made: Tensor = ops.clone(x)
        elif x.dtype.is_complex:
            made = ops.complex(function(x.real), function(x.imag))
        else:
            made = function(x)
        return made

    return _named(applied, name, None)  # type: ignore[no-any-return]


ceil = _rounding("ceil")
floor = _rounding("floor")
round = _rounding("round")
trunc = _rounding("trunc")


def sign(x: Tensor, /) -> Tensor:
    """-1, 0 or 1, or for complex numbers the point on the unit circle; NaN of NaN."""
    made: Tensor = ops.sgn(x)
    if x.dtype.category > dtypes.INTEGRAL:
        made = ops.where(ops.isnan(x), x, made)
    return made


def expm1(x: Tensor, /) -> Tensor:
    """`exp(x) - 1`, precise near 0; for complex numbers with the standard's values at infinities."""
    if not x.dtype.is_complex:
        real: Tensor = ops.expm1(x)
        return real
    a, b = x.real, x.imag
    grown = ops.expm1(a)
    re = ops.where(b == 0, grown, grown * b.cos() - 2 * (b / 2).sin().square())
    im = ops.where(b == 0, b, a.exp() * b.sin())
    wild = ~b.isfinite()  # no phase: at -infinity nothing is left of it, at infinity all is unknown but the size
    re = ops.where(wild & a.isinf(), ops.where(a > 0, a, -1.0), re)
    im = ops.where(wild & (a == float("-inf")), 0.0, im)
    made: Tensor = ops.complex(re, im)
    return made


def floor_divide(x1: Any, x2: Any, /) -> Tensor:
    """The quotient rounded down; infinities stay infinite, and what is finite divided by them is a zero."""
    a, b = promoted(x1, x2)
    made: Tensor = ops.floor_divide(a, b)
    if not made.dtype.is_floating_point:
        return made
    made = ops.where(a.isinf() & b.isfinite() & (b != 0), a * b.sign(), made)
    return ops.where(a.isfinite() & b.isinf() & (made == -1), -0.0, made)  # type: ignore[no-any-return]


def remainder(x1: Any, x2: Any, /) -> Tensor:
    """What is left of a division rounded down: of the sign of `x2`, zeros too."""
    a, b = promoted(x1, x2)
    made: Tensor = ops.remainder(a, b)
    if made.dtype.is_floating_point:
        made = ops.where(made == 0, ops.copysign(made, b), made)
    return made


def real(x: Tensor, /) -> Tensor:
    """The real parts."""
    made: Tensor = ops.real(x)
    return made


def imag(x: Tensor, /) -> Tensor:
    """The imaginary parts; zeros for a real array."""
    made: Tensor = ops.imag(x) if x.dtype.is_complex else ops.zeros_like(x)
    return made


def conj(x: Tensor, /) -> Tensor:
    """Complex conjugates."""
    made: Tensor = ops.conj_physical(x)
    return made


def clip(x: Tensor, /, min: Any = None, max: Any = None) -> Tensor:
    """`x` held between two bounds, each None, a number or an array. The dtype stays that of `x`."""
    if min is None and max is None:
        made: Tensor = ops.clone(x)
        return made
    made = ops.clamp(x, _bound(min, x), _bound(max, x))
    return made if made.dtype is x.dtype else made.to(x.dtype)


def _bound(bound: Any, x: Tensor) -> Any:
    # A tensor where the other bound is a number needs the number as a tensor: clamp takes one kind.
    return ops.full((), bound, dtype=x.dtype, device=x.device) if isinstance(bound, int | float) else bound


def where(condition: Tensor, x1: Any, x2: Any, /) -> Tensor:
    """Elements of `x1` where the condition holds, of `x2` elsewhere."""
    if not isinstance(x1, Tensor) and not isinstance(x2, Tensor):
        made: Tensor = ops.where(condition, x1, x2)
        return made
    made = ops.where(condition, *promoted(x1, x2))
    return made
