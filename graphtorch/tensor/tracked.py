"""A Python number whose value is another at each call of a compiled function, as its capture sees it.

It computes as the number does and notes how, so that each call repeats the arithmetic in Python: in double precision,
or with integers of any size, to the bit. Where Python asks for a decision (`if step > 5`) the answer is noted, where it
needs the number itself (an index, a text) its value. A subclass of int or float would not do: C code reads the number
inside such objects without asking."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from graphtorch.tensor.tensor import Tensor

PLAIN = (int, float, bool, np.float64)  # what a tracked number computes with
_EXACT = frozenset((int, float, bool, str, type(None)))


class Ledger(Protocol):
    """Who notes what is done with tracked numbers: `frontend.arithmetic`."""

    def apply(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any: ...

    def pin(self, number: TrackedNumber) -> Any: ...

    def class_of(self, number: TrackedNumber) -> type: ...

    def operand(self, number: TrackedNumber) -> Any: ...


def _binary(function: Callable[[Any, Any], Any], reflected: bool = False) -> Callable[[Any, Any], Any]:
    def method(self: TrackedNumber, other: Any) -> Any:
        kind = type(other)
        if kind is TrackedNumber or kind in PLAIN:
            return self.ledger.apply(function, (other, self) if reflected else (self, other))
        if isinstance(other, Tensor):
            return NotImplemented  # the tensor knows what to do
        mine = self.ledger.pin(self)
        return function(other, mine) if reflected else function(mine, other)

    return method


def _comparison(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    compare = _binary(function)

    def method(self: TrackedNumber, other: Any) -> Any:
        if other is None or type(other) in (str, bytes, tuple, list, dict):
            return NotImplemented  # which number it is makes no difference
        return compare(self, other)

    return method


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *args: self.ledger.apply(function, (self, *args))


class TrackedNumber:
    """An int or a float, of this `value` in the captured call; `index` is its place in the ledger."""

    __slots__ = ("index", "ledger", "value")

    def __init__(self, ledger: Ledger, index: int, value: Any) -> None:
        self.ledger = ledger
        self.index = index
        self.value = value

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # isinstance() asks
        return self.ledger.class_of(self)

    __add__, __radd__ = _binary(operator.add), _binary(operator.add, True)
    __sub__, __rsub__ = _binary(operator.sub), _binary(operator.sub, True)
    __mul__, __rmul__ = _binary(operator.mul), _binary(operator.mul, True)
    __truediv__, __rtruediv__ = _binary(operator.truediv), _binary(operator.truediv, True)
    __floordiv__, __rfloordiv__ = _binary(operator.floordiv), _binary(operator.floordiv, True)
    __mod__, __rmod__ = _binary(operator.mod), _binary(operator.mod, True)
    __pow__, __rpow__ = _binary(operator.pow), _binary(operator.pow, True)
    __and__, __rand__ = _binary(operator.and_), _binary(operator.and_, True)
    __or__, __ror__ = _binary(operator.or_), _binary(operator.or_, True)
    __xor__, __rxor__ = _binary(operator.xor), _binary(operator.xor, True)
    __lshift__, __rlshift__ = _binary(operator.lshift), _binary(operator.lshift, True)
    __rshift__, __rrshift__ = _binary(operator.rshift), _binary(operator.rshift, True)
    __neg__, __pos__, __abs__ = _unary(operator.neg), _unary(operator.pos), _unary(operator.abs)
    __invert__ = _unary(operator.invert)
    __round__, __floor__, __ceil__, __trunc__ = _unary(round), _unary(math.floor), _unary(math.ceil), _unary(math.trunc)
    __lt__, __le__ = _comparison(operator.lt), _comparison(operator.le)
    __gt__, __ge__ = _comparison(operator.gt), _comparison(operator.ge)
    __eq__, __ne__ = _comparison(operator.eq), _comparison(operator.ne)
    __bool__ = _unary(bool)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    # -- what only the value can answer --------------------------------------------------------------------------------

    def __int__(self) -> int:
        return int(pinned(self.ledger.apply(int, (self,))))  # few, of many floats

    def __index__(self) -> int:
        return operator.index(self.ledger.pin(self))

    def __float__(self) -> float:
        return float(self.ledger.pin(self))

    def __complex__(self) -> complex:
        return complex(self.ledger.pin(self))

    def __hash__(self) -> int:
        return hash(self.ledger.pin(self))

    def __repr__(self) -> str:
        return repr(self.ledger.pin(self))

    def __str__(self) -> str:
        return str(self.ledger.pin(self))

    def __format__(self, spec: str) -> str:
        return format(self.ledger.pin(self), spec)

    def __reduce__(self) -> Any:
        value = self.ledger.pin(self)
        return type(value), (value,)

    def __copy__(self) -> TrackedNumber:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TrackedNumber:
        return self

    def __getattr__(self, name: str) -> Any:
        """Methods of numbers, such as `is_integer`."""
        if not hasattr(int if isinstance(self.value, int) else float, name):
            raise AttributeError(f"{type(self.value).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        return getattr(self.ledger.pin(self), name)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.ledger.pin(self), dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        numbers = method == "__call__" and not options and ufunc.nout == 1
        if numbers and all(type(x) is TrackedNumber or type(x) in PLAIN for x in inputs):
            return self.ledger.apply(ufunc, inputs)
        return getattr(ufunc, method)(*map(pinned, inputs), **options)


def pinned(value: Any) -> Any:
    """A tracked number's value, which is assumed; anything else as it is, sequences and slices entry by entry."""
    kind = type(value)
    if kind is TrackedNumber:
        return value.ledger.pin(value)
    if kind is tuple or kind is list:
        return kind(map(pinned, value))
    return slice(pinned(value.start), pinned(value.stop), pinned(value.step)) if kind is slice else value


def plain(value: Any) -> Any:
    """An attribute of an operator as a graph has it: numbers and texts of Python's own classes for those of NumPy's and
    of subclasses (enumerations), and no tracked ones."""
    if isinstance(value, np.generic):
        return value.item()
    value = pinned(value)
    if type(value) in _EXACT:
        return value
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return str.__str__(value) if isinstance(value, str) else value


def operand_of(value: Any) -> Any:
    """What an operator takes for a number: a run-time number for a tracked one."""
    return value.ledger.operand(value) if type(value) is TrackedNumber else value


def _followed(function: Callable[..., Any]) -> Callable[..., Any]:
    def followed(*args: Any) -> Any:
        for arg in args:
            if type(arg) is TrackedNumber:
                found = all(type(a) is TrackedNumber or type(a) in PLAIN for a in args)
                return arg.ledger.apply(function, args) if found else function(*args)
        return function(*args)

    return followed


# Functions of C that read their arguments as doubles: during a capture these stand in their places. Where somebody has
# got hold of a function itself, it asks for the value, which is correct, but assumes it.
_MATH = (
    *("sqrt", "cbrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow", "fabs", "copysign", "fmod"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    *("hypot", "erf", "erfc", "gamma", "lgamma", "degrees", "radians", "isnan", "isinf", "isfinite", "gcd"),
)
FOLLOWED: dict[str, tuple[Any, Callable[..., Any]]] = {
    name: (getattr(math, name), _followed(getattr(math, name))) for name in _MATH if hasattr(math, name)
}
FOLLOWED_BY_ID = {id(original): followed for original, followed in FOLLOWED.values()}
