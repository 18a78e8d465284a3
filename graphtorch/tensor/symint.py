"""Symbolic sizes: integer expressions over size symbols, kept in a normal form.

An expression is a polynomial with integer coefficients over atoms; an atom is a symbol, or a floor division, modulo,
maximum or minimum that the polynomial form can't express. Equal polynomials are equal objects (structurally), and a
result that is constant is a plain `int`, so that static shapes never pay for symbolic ones.

Each symbol has an inclusive lower bound (2 by default: sizes 0 and 1 are specialised, because broadcasting depends on
them) and, during capture, a hint: the size it has in the call being captured. A comparison that the lower bounds don't
decide is decided by the hints and recorded in the symbols' `SymbolScope` as a guard, a condition under which the
captured program is valid.
"""

from __future__ import annotations

import math
import operator
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple, Union

from graphtorch.autograd.state import state
from graphtorch.tensor import polynomial
from graphtorch.tensor.dtypes import BY_ABBREVIATION
from graphtorch.tensor.polynomial import Terms

Size = Union[int, "SymInt"]

# Words of the IR's text, which a symbol's name must not be mistaken for.
_RESERVED = {"max", "min", "inf", "nan", "None", "True", "False", "slice", "complex"} | set(BY_ABBREVIATION)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*\Z")
_STANDARD = os.path.dirname(os.__file__) + os.sep


class UndecidedError(TypeError):
    """A comparison or conversion of symbolic sizes that neither lower bounds nor hints decide."""


class Symbol:
    """A size that is unknown until run time. Symbols are equal when their names are."""

    __slots__ = ("_hash", "hint", "key", "lower", "name", "scope")

    def __init__(self, name: str, lower: int = 2, hint: int | None = None, scope: SymbolScope | None = None) -> None:
        if not _IDENTIFIER.match(name) or name in _RESERVED:
            raise ValueError(f"not a symbol name: {name!r}")
        if hint is not None and hint < lower:
            raise ValueError(f"the hint {hint} of {name} is below its lower bound {lower}")
        self.name = name
        self.lower = lower
        self.hint = hint
        self.scope = scope
        self.key = (0, len(name), name)
        self._hash = hash(self.key)

    def __eq__(self, other: object) -> bool:
        return self is other or (type(other) is Symbol and self.key == other.key)

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__

    def bounds(self) -> tuple[int | None, int | None]:
        return self.lower, None


class Call:
    """An atom that is no polynomial: `kind` is "//", "%", "max" or "min" of two sizes."""

    __slots__ = ("_hash", "key", "kind", "left", "right")

    def __init__(self, kind: str, left: Size, right: Size) -> None:
        self.kind = kind
        self.left = left
        self.right = right
        text = str(self)
        self.key = (1, len(text), text)
        self._hash = hash(self.key)

    def __eq__(self, other: object) -> bool:
        return self is other or (type(other) is Call and self.key == other.key)

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        if self.kind in ("max", "min"):
            return f"{self.kind}({self.left}, {self.right})"
        separator = self.kind if self.kind == "//" else " % "
        return f"{_factor_text(self.left)}{separator}{_factor_text(self.right)}"

    __repr__ = __str__

    def bounds(self) -> tuple[int | None, int | None]:
        """Known inclusive bounds; None where there is none."""
        (low, high), (other_low, other_high) = _bounds(self.left), _bounds(self.right)
        if self.kind == "%":
            # Of a positive divisor: 0 <= a % b < b.
            if other_low is None or other_low <= 0:
                return None, None
            return 0, None if other_high is None else other_high - 1
        if self.kind == "//":
            if other_low is None or other_low <= 0:
                return None, None
            # a // b lies between 0 (or a, if negative) and a / the smallest b.
            smallest = None if low is None else low // other_low if low < 0 else 0
            if low is not None and low >= 0 and other_high is not None:
                smallest = low // other_high
            largest = None if high is None else high // other_low if high >= 0 else -1
            return smallest, largest
        choose = max if self.kind == "max" else min
        # The maximum is at least either operand and at most both; the minimum the reverse.
        lows = [b for b in (low, other_low) if b is not None]
        highs = [b for b in (high, other_high) if b is not None]
        smallest = choose(lows) if len(lows) == 2 or (lows and self.kind == "max") else None
        largest = choose(highs) if len(highs) == 2 or (highs and self.kind == "min") else None
        return smallest, largest


Atom = Symbol | Call


class Guard(NamedTuple):
    """An assumption of a captured program: whether `expression <relation> 0` holds, and the user's line that asked."""

    expression: SymInt
    relation: str
    truth: bool
    location: str = ""

    def holds(self, bindings: Mapping[str, int]) -> bool:
        """Whether the assumption is true of these sizes."""
        return _RELATIONS[self.relation](evaluate(self.expression, bindings), 0) is self.truth

    def __str__(self) -> str:
        relation = self.relation if self.truth else _OPPOSITE[self.relation]
        positive = {m: c for m, c in self.expression._terms.items() if c > 0}
        negative = {m: -c for m, c in self.expression._terms.items() if c < 0}
        left, right = _text(positive), _text(negative)
        if not any(positive) and any(negative):  # the constant to the right
            left, right, relation = right, left, _MIRRORED[relation]
        return f"{left} {relation} {right}"


_RELATIONS: dict[str, Callable[[int, int], bool]] = {"==": operator.eq, "<": operator.lt, "<=": operator.le}
_OPPOSITE = {"==": "!=", "<": ">=", "<=": ">", ">=": "<", ">": "<=", "!=": "=="}
_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass
class SymbolScope:
    """The symbols of one capture and the guards that its comparisons made.

    locate    called for each new guard: the user's line, as text.
    """

    symbols: dict[str, SymInt] = field(default_factory=dict)
    guards: list[Guard] = field(default_factory=list)
    locate: Callable[[], str] | None = None
    _decided: dict[tuple[SymInt, str], bool] = field(default_factory=dict)

    def symbol(self, hint: int | None = None, lower: int = 2, name: str | None = None) -> SymInt:
        """A new symbol; named s0, s1, ... unless a name is given. Raises ValueError for a name that is taken."""
        name = name or f"s{len(self.symbols)}"
        if name in self.symbols:
            raise ValueError(f"the symbol {name} exists already")
        made = self.symbols[name] = symbol(name, lower, hint, self)
        return made

    def decide(self, expression: SymInt, relation: str) -> bool:
        """Decide `expression <relation> 0` by the hints, and record the guard once."""
        hint = expression.hint
        if hint is None:
            raise _undecided(f"{expression} {relation} 0")
        known = self._decided.get((expression, relation))
        if known is not None:
            return known
        truth = _RELATIONS[relation](hint, 0)
        self._decided[expression, relation] = truth
        self.guards.append(Guard(expression, relation, truth, self.locate() if self.locate is not None else ""))
        return truth

    @contextmanager
    def discarding(self) -> Iterator[None]:
        """Forget the guards made inside: for checks and reports, which must not narrow what is valid."""
        guards, decided = list(self.guards), dict(self._decided)
        try:
            yield
        finally:
            self.guards[:] = guards
            self._decided = decided


class SymInt:
    """An integer expression that is not constant. Made from `symbol(...)` or `SymbolScope.symbol` by arithmetic.

    Behaves as an int: `+ - * // %` and powers give expressions (or ints), comparisons give bools. `int()`, `range` and
    indexing specialise: they return the hint and record a guard that the size stays equal to it.
    Arithmetic with a float specialises too.
    """

    __slots__ = ("_hash", "_terms")

    is_symbolic_int = True
    __array_ufunc__ = None  # NumPy scalars leave arithmetic with symbolic sizes to this class

    def __init__(self, terms: Terms) -> None:
        # Sorted: higher degree first, then by atom; the constant comes last. Text, hash and equality follow from it.
        self._terms: Terms = dict(sorted(terms.items(), key=polynomial.monomial_order)) if len(terms) > 1 else terms
        self._hash = hash(tuple(self._terms.items()))

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def hint(self) -> int | None:
        """The value for the symbols' hints; None where a symbol has none."""
        total = 0
        for monomial, coefficient in self._terms.items():
            for atom, power in monomial:
                value = _atom_hint(atom)
                if value is None:
                    return None
                coefficient *= value**power
            total += coefficient
        return total

    @property
    def scope(self) -> SymbolScope | None:
        """The scope of the first symbol that has one."""
        for found in symbols_of(self).values():
            if found.scope is not None:
                return found.scope
        return None

    def bounds(self) -> tuple[int | None, int | None]:
        """Inclusive bounds that follow from the symbols' lower bounds; None where there is none."""
        high = _minimum(polynomial.scale(self._terms, -1))
        return _minimum(self._terms), None if high is None else -high

    def same(self, other: object) -> bool:
        """Structural equality; records nothing."""
        return type(other) is SymInt and self._hash == other._hash and self._terms == other._terms

    @property  # type: ignore[misc]  # the class itself is none that anybody assigns
    def __class__(self) -> Any:
        """The class that programs are told of: they know sizes as integers."""
        return int if self._is_captured() and not _asked_by_package() else SymInt

    def __str__(self) -> str:
        if self._is_captured() and not _asked_by_package():
            return str(int(self))  # as a key or a name, it would have to be that of the number
        return _text(self._terms)

    __repr__ = __str__

    def _is_captured(self) -> bool:
        return state.recorder is not None and self.scope is not None

    def __hash__(self) -> int:
        # In a set or dictionary of the user's, a size would have to meet the number that it is equal to.
        if self.scope is not None and not _asked_by_package():
            raise _undecided(f"the hash of {self}", "it holds for every size")
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (str(self), {n: (s.lower, s.hint) for n, s in symbols_of(self).items()}))

    # -- arithmetic ------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        terms = _terms_of(other)
        if terms is None:
            return self._specialised(operator.add, other)
        return _from_terms(polynomial.add(self._terms, terms))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        terms = _terms_of(other)
        if terms is None:
            return self._specialised(operator.sub, other)
        return _from_terms(polynomial.add(self._terms, polynomial.scale(terms, -1)))

    def __rsub__(self, other: Any) -> Any:
        terms = _terms_of(other)
        if terms is None:
            return self._specialised(operator.sub, other, True)
        return _from_terms(polynomial.add(terms, polynomial.scale(self._terms, -1)))

    def __mul__(self, other: Any) -> Any:
        terms = _terms_of(other)
        if terms is None:
            return self._specialised(operator.mul, other)
        return _from_terms(polynomial.multiply(self._terms, terms))

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        if _terms_of(other) is None:
            return self._specialised(operator.floordiv, other)
        return _floordiv(self, _plain(other))

    def __rfloordiv__(self, other: Any) -> Any:
        if _terms_of(other) is None:
            return self._specialised(operator.floordiv, other, True)
        return _floordiv(_plain(other), self)

    def __mod__(self, other: Any) -> Any:
        if _terms_of(other) is None:
            return self._specialised(operator.mod, other)
        return _mod(self, _plain(other))

    def __rmod__(self, other: Any) -> Any:
        if _terms_of(other) is None:
            return self._specialised(operator.mod, other, True)
        return _mod(_plain(other), self)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __pow__(self, exponent: Any) -> Any:
        if type(exponent) is not int or exponent < 0:
            return self._specialised(operator.pow, exponent)
        result: Size = 1
        for _ in range(exponent):
            result = result * self
        return result

    def __rpow__(self, base: Any) -> Any:
        return self._specialised(operator.pow, base, True)

    def __truediv__(self, other: Any) -> Any:
        return self._specialised(operator.truediv, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._specialised(operator.truediv, other, True)

    def __neg__(self) -> SymInt:
        return SymInt(polynomial.scale(self._terms, -1))

    def __pos__(self) -> SymInt:
        return self

    def __abs__(self) -> SymInt:
        return -self if self < 0 else self

    def _specialised(self, function: Callable[[Any, Any], Any], other: Any, reflected: bool = False) -> Any:
        """Arithmetic that no integer expression describes: with a float, or a true division."""
        if isinstance(other, SymInt):
            other = int(other)
        if not isinstance(other, int | float | complex):
            return NotImplemented
        return function(other, int(self)) if reflected else function(int(self), other)

    # -- decisions -------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if self is other or self.same(other):
            return True
        terms = _terms_of(other)
        if terms is None:
            return int(self) == other if isinstance(other, float) else NotImplemented
        difference = _from_terms(polynomial.add(self._terms, polynomial.scale(terms, -1)))
        if isinstance(difference, int):
            return difference == 0
        low, high = difference.bounds()
        if (low is not None and low > 0) or (high is not None and high < 0) or _never_zero(difference):
            return False
        scope = difference.scope
        if scope is None or difference.hint is None:
            return False  # structurally different, and nothing to decide by
        # One spelling of a - b == 0 and b - a == 0.
        if next(iter(difference._terms.values())) < 0:
            difference = -difference
        return scope.decide(difference, "==")

    def __lt__(self, other: Any) -> Any:
        return self._compare(other, "<")

    def __le__(self, other: Any) -> Any:
        return self._compare(other, "<=")

    def __gt__(self, other: Any) -> Any:
        decided = self._compare(other, "<=")
        return decided if decided is NotImplemented else not decided

    def __ge__(self, other: Any) -> Any:
        decided = self._compare(other, "<")
        return decided if decided is NotImplemented else not decided

    def _compare(self, other: Any, relation: str) -> Any:
        """Decide `self < other` or `self <= other`."""
        terms = _terms_of(other)
        if terms is None:
            if isinstance(other, float):
                if math.isinf(other):
                    return other > 0
                return int(self) < other if relation == "<" else int(self) <= other
            return NotImplemented
        difference = _from_terms(polynomial.add(self._terms, polynomial.scale(terms, -1)))
        decided = _decide_statically(difference, relation)
        if decided is not None:
            return decided
        assert type(difference) is SymInt
        scope = difference.scope
        if scope is None or difference.hint is None:
            raise _undecided(f"{self} {relation} {other}")
        return scope.decide(difference, relation)

    def __bool__(self) -> bool:
        return self != 0

    def __index__(self) -> int:
        hint = self.hint
        if hint is None:
            raise _undecided(f"int({self})")
        scope = self.scope
        if scope is not None:
            scope.decide(self - hint, "==")
        return hint

    __int__ = __index__
    __trunc__ = __index__

    def __float__(self) -> float:
        return float(self.__index__())

    def __format__(self, spec: str) -> str:
        if self._is_captured() and not _asked_by_package():
            return format(int(self), spec)
        return format(_text(self._terms), spec)


# -- making and taking apart ------------------------------------------------------------------------------------------


def symbol(name: str, lower: int = 2, hint: int | None = None, scope: SymbolScope | None = None) -> SymInt:
    """The expression that is one symbol."""
    return SymInt({((Symbol(name, lower, hint, scope), 1),): 1})


def sym_max(a: Size, b: Size) -> Size:
    """The larger of two sizes as an expression; unlike `max`, it needs no guard."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    if _decide_statically(a - b, "<="):
        return b
    return a if _decide_statically(b - a, "<=") else _extremum("max", a, b)


def sym_min(a: Size, b: Size) -> Size:
    """The smaller of two sizes as an expression; unlike `min`, it needs no guard."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    if _decide_statically(a - b, "<="):
        return a
    return b if _decide_statically(b - a, "<=") else _extremum("min", a, b)


def _extremum(kind: str, a: Size, b: Size) -> SymInt:
    first, second = sorted((a, b), key=lambda size: (isinstance(size, int), str(size)))
    return _atom(Call(kind, first, second))


def symbols_of(size: Any) -> dict[str, Symbol]:
    """The symbols that occur in a size, by name, in order of occurrence."""
    found: dict[str, Symbol] = {}
    if type(size) is SymInt:
        for monomial in size._terms:
            for atom, _ in monomial:
                if type(atom) is Symbol:
                    found.setdefault(atom.name, atom)
                elif type(atom) is Call:
                    for part in (atom.left, atom.right):
                        for name, inner in symbols_of(part).items():
                            found.setdefault(name, inner)
    return found


def free_symbols(size: Any) -> frozenset[str]:
    """The names of the symbols that occur in a size; empty for an int."""
    return frozenset(symbols_of(size))


def same_size(a: Any, b: Any) -> bool:
    """Whether two sizes are the same int or the same expression; records no guard."""
    if type(a) is SymInt:
        return a.same(b)
    return type(b) is not SymInt and bool(a == b)


def same_shape(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """`same_size` of every dimension."""
    if a is b:
        return True
    if len(a) != len(b):
        return False
    return all(map(_is_same, a, b))


def _is_same(a: Any, b: Any) -> bool:
    return a is b or same_size(a, b)


def at_least(size: Any, bound: int) -> bool:
    """Whether `size >= bound` is known without a guard."""
    if isinstance(size, int):
        return size >= bound
    return _decide_statically(size - bound, "<") is False


def evaluate(size: Size, bindings: Mapping[str, int]) -> int:
    """The value of a size for given values of its symbols. Raises KeyError for a symbol that is not bound."""
    if isinstance(size, int):
        return size
    value: int = _fold(size, lambda s: bindings[s.name])
    return value


def substitute(size: Size, replacements: Mapping[str, Size]) -> Size:
    """The size with symbols replaced; symbols that are not mentioned stay."""
    if isinstance(size, int):
        return size
    result: Size = _fold(size, lambda s: replacements[s.name] if s.name in replacements else _atom(s))
    return result


def _rebuild(text: str, symbols: dict[str, tuple[int, int | None]]) -> Size:
    from graphtorch.tensor.size_text import parse_size

    return parse_size(text, {name: symbol(name, lower, hint) for name, (lower, hint) in symbols.items()})


def _fold(size: Any, of_symbol: Callable[[Symbol], Any]) -> Any:
    """Evaluate an expression over whatever `of_symbol` returns."""
    if type(size) is not SymInt:
        return size
    total: Any = 0
    for monomial, coefficient in size._terms.items():
        term: Any = coefficient
        for atom, power in monomial:
            if type(atom) is Symbol:
                value = of_symbol(atom)
            else:
                assert type(atom) is Call
                value = _CALLS[atom.kind](_fold(atom.left, of_symbol), _fold(atom.right, of_symbol))
            term = term * value**power
        total = total + term
    return total


_CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "//": operator.floordiv,
    "%": operator.mod,
    "max": sym_max,
    "min": sym_min,
}


def _atom_hint(atom: Atom) -> int | None:
    if type(atom) is Symbol:
        return atom.hint
    assert type(atom) is Call
    left = atom.left if isinstance(atom.left, int) else atom.left.hint
    right = atom.right if isinstance(atom.right, int) else atom.right.hint
    return None if left is None or right is None else int(_CALLS[atom.kind](left, right))


def _undecided(question: str, why: str = "the symbols have no hints") -> UndecidedError:
    return UndecidedError(f"can't decide {question}: {why}")


def _asked_by_package() -> bool:
    """Whether the caller's caller, the standard library apart, is this package."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_STANDARD):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == __name__.partition(".")[0]


# -- polynomials ------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Size:
    return value if type(value) is SymInt or type(value) is int else int(operator.index(value))


def _terms_of(value: Any) -> Terms | None:
    """The polynomial of an int or SymInt; None for anything else."""
    if type(value) is SymInt:
        return value._terms
    if type(value) is int:
        return {(): value} if value else {}
    if isinstance(value, float | complex | str | bytes) or not hasattr(value, "__index__") or hasattr(value, "shape"):
        # NumPy integer scalars have a shape and an index; arrays and tensors are not sizes.
        if getattr(value, "shape", None) == () and getattr(getattr(value, "dtype", None), "kind", "") in ("i", "u"):
            return _terms_of(int(value))
        return None
    return _terms_of(int(operator.index(value)))


def _from_terms(terms: Terms) -> Size:
    if not terms:
        return 0
    if len(terms) == 1 and () in terms:
        return terms[()]
    return SymInt(terms)


def _atom(atom: Atom) -> SymInt:
    return SymInt({((atom, 1),): 1})


def _floordiv(a: Size, b: Size) -> Size:
    """a // b: exact multiples of the divisor leave the division; what remains is an atom."""
    if isinstance(b, int):
        if b == 0:
            raise ZeroDivisionError("integer division by zero")
        if isinstance(a, int):
            return a // b
        if b < 0:
            a, b = -a, -b
        whole = _from_terms({m: q for m, c in a._terms.items() if (q := c // b)})
        rest = _from_terms({m: r for m, c in a._terms.items() if (r := c % b)})
        return whole + _floor_atom(rest, b)
    if not at_least(b, 1):
        return 0 if isinstance(a, int) and a == 0 else _atom(Call("//", a, b))
    if _is_remainder(a, b):
        return 0
    exact, left = polynomial.divide(_terms_of(a) or {}, b._terms)
    return _from_terms(exact) + _floor_atom(_from_terms(left), b)


def _floor_atom(a: Size, b: Size) -> Size:
    """a // b for a positive b, with what divides out already gone."""
    if isinstance(a, int) and (a == 0 or isinstance(b, int)):
        return 0 if a == 0 else a // b
    if _is_remainder(a, b):
        return 0
    if _is_remainder(a + b, b):
        return -1
    if isinstance(b, int) and type(a) is SymInt:
        # floor((g x + c) / (g k)) = floor(x / k) for 0 <= c < g: a common factor divides out.
        factor = reduce(math.gcd, (c for m, c in a._terms.items() if m), b)
        if factor > 1:
            return _floordiv(_from_terms({m: q for m, c in a._terms.items() if (q := c // factor)}), b // factor)
        # (x // j) // k = x // (j k)
        if len(a._terms) == 1:
            ((monomial, coefficient),) = a._terms.items()
            if coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1:
                inner = monomial[0][0]
                if type(inner) is Call and inner.kind == "//" and type(inner.right) is int and inner.right > 0:
                    return _floordiv(inner.left, inner.right * b)
    return _atom(Call("//", a, b))


def _mod(a: Size, b: Size) -> Size:
    """a % b: multiples of the divisor vanish."""
    if isinstance(b, int):
        if b == 0:
            raise ZeroDivisionError("integer modulo by zero")
        if isinstance(a, int):
            return a % b
        if b < 0:
            return -_mod(-a, -b)
        rest = _from_terms({m: r for m, c in a._terms.items() if (r := c % b)})
        if isinstance(rest, int) or _is_remainder(rest, b):
            return rest
        factor = reduce(math.gcd, rest._terms.values(), b)
        if factor > 1:
            return factor * _mod(_from_terms({m: c // factor for m, c in rest._terms.items()}), b // factor)
        return _atom(Call("%", rest, b))
    if at_least(b, 1):
        rest = _from_terms(polynomial.divide(_terms_of(a) or {}, b._terms)[1])
        if isinstance(rest, int) and rest == 0:
            return 0
        return rest if _is_remainder(rest, b) else _atom(Call("%", rest, b))
    return _atom(Call("%", a, b))


def _is_remainder(a: Size, b: Size) -> bool:
    """Whether 0 <= a < b is known."""
    return at_least(a, 0) and at_least(b - a, 1)


# -- bounds -----------------------------------------------------------------------------------------------------------


def _bounds(size: Size) -> tuple[int | None, int | None]:
    return (size, size) if isinstance(size, int) else size.bounds()


def _decide_statically(difference: Size, relation: str) -> bool | None:
    """Decide `difference < 0` or `difference <= 0` by the symbols' lower bounds."""
    if isinstance(difference, int):
        return _RELATIONS[relation](difference, 0)
    low, high = difference.bounds()
    limit = 0 if relation == "<" else 1
    if low is not None and low >= limit:
        return False
    if high is not None and high < limit:
        return True
    return None


def _minimum(terms: Terms) -> int | None:
    """A lower bound of a polynomial.

    Writing each atom as its lower bound plus something non-negative, the constant term is the minimum if no other
    coefficient is negative. A single atom that is bounded above may have a negative one.
    """
    shifted: Terms = {(): terms.get((), 0)}
    for monomial, coefficient in terms.items():
        if not monomial:
            continue
        expanded: Terms = {(): coefficient}
        for atom, power in monomial:
            low = atom.bounds()[0]
            if low is None:
                high = atom.bounds()[1]
                if high is not None and power == 1 and len(monomial) == 1 and coefficient < 0:
                    expanded = {(): coefficient * high}
                    break
                return None
            variable: Terms = {((atom, 1),): 1}
            if low:
                variable[()] = low
            for _ in range(power):
                expanded = polynomial.multiply(expanded, variable)
        shifted = polynomial.add(shifted, expanded)
    total = shifted.get((), 0)
    for monomial, coefficient in shifted.items():
        if monomial and coefficient < 0:
            low, high = monomial[0][0].bounds()
            if len(monomial) > 1 or monomial[0][1] > 1 or high is None or low is None:
                return None
            total += coefficient * (high - low)
    return total


def _never_zero(difference: SymInt) -> bool:
    """Whether divisibility rules zero out: 2 s0 + 1 is odd."""
    constant = difference._terms.get((), 0)
    factor = reduce(math.gcd, (c for m, c in difference._terms.items() if m), 0)
    return constant % factor != 0


# -- text -------------------------------------------------------------------------------------------------------------


def _text(terms: Terms) -> str:
    if not terms:
        return "0"
    parts: list[str] = []
    for monomial, coefficient in terms.items():
        factors = [str(abs(coefficient))] if abs(coefficient) != 1 or not monomial else []
        # A product or a sign binds tighter than // and %: 2*(s0//2), -(s0//2).
        alone = len(monomial) == 1 and not factors and coefficient > 0
        for atom, power in monomial:
            text = str(atom)
            if type(atom) is Call and atom.kind in ("//", "%") and not (alone and power == 1):
                text = f"({text})"
            factors.append(text if power == 1 else f"{text}**{power}")
        term = "*".join(factors)
        if not parts:
            parts.append(term if coefficient > 0 else f"-{term}")
        else:
            parts.append(f" + {term}" if coefficient > 0 else f" - {term}")
    return "".join(parts)


def _factor_text(size: Size) -> str:
    """A size as an operand of // or %."""
    text = str(size)
    return text if _IDENTIFIER.match(text) or text.isdigit() else f"({text})"
