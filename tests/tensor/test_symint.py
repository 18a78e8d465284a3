"""Symbolic sizes: normal form, decisions and guards, text; against plain integers."""

import copy
import math
import operator
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphtorch.tensor.size_text import parse_size
from graphtorch.tensor.symint import (
    SymbolScope,
    SymInt,
    UndecidedError,
    at_least,
    evaluate,
    free_symbols,
    same_shape,
    same_size,
    substitute,
    sym_max,
    sym_min,
    symbol,
)

NAMES = ("s0", "s1", "s2")
BINARY = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "max": sym_max,
    "min": sym_min,
}

s0, s1, s2 = (symbol(name) for name in NAMES)


def trees():
    leaves = st.sampled_from(NAMES) | st.integers(-6, 9)
    return st.recursive(leaves, lambda inner: st.tuples(st.sampled_from(list(BINARY)), inner, inner), max_leaves=7)


sizes = st.integers(2, 40)
bindings = st.fixed_dictionaries({name: sizes for name in NAMES})


def build(tree, values):
    """Evaluate a tree over ints or symbols; None where it divides by zero."""
    if isinstance(tree, str):
        return values[tree]
    if isinstance(tree, int):
        return tree
    kind, *parts = tree
    left, right = (build(p, values) for p in parts)
    if left is None or right is None:
        return None
    try:
        return BINARY[kind](left, right)
    except ZeroDivisionError:
        return None


COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def symbols(scope=None, hints=None):
    if scope is None:
        return {name: symbol(name) for name in NAMES}
    return {name: scope.symbol(hints[name], name=name) for name in NAMES}


@given(trees(), bindings)
def test_expressions_agree_with_integers(tree, values):
    expected = build(tree, values)
    expression = build(tree, symbols())
    if expected is None or expression is None:
        return
    assert evaluate(expression, values) == expected
    assert eval(str(expression), {"max": max, "min": min}, dict(values)) == expected


@given(trees(), bindings)
def test_text_parses_back_to_the_same_expression(tree, values):
    expression = build(tree, symbols())
    if expression is None:
        return
    again = parse_size(str(expression), symbols())
    assert same_size(again, expression)
    assert str(again) == str(expression)


@given(trees(), bindings)
def test_bounds_contain_the_value(tree, values):
    expected, expression = build(tree, values), build(tree, symbols())
    if expected is None or not isinstance(expression, SymInt):
        return
    low, high = expression.bounds()
    assert low is None or low <= expected
    assert high is None or expected <= high


@given(trees(), trees(), bindings, bindings, st.sampled_from(list(COMPARE)))
def test_a_decision_holds_wherever_its_guards_hold(first, second, hints, others, relation):
    scope = SymbolScope()
    values = symbols(scope, hints)
    a, b = build(first, values), build(second, values)
    a_here, b_here = build(first, hints), build(second, hints)
    a_there, b_there = build(first, others), build(second, others)
    if any(v is None for v in (a, b, a_here, b_here, a_there, b_there)):
        return
    decided = COMPARE[relation](a, b)
    assert decided == COMPARE[relation](a_here, b_here)
    assert all(guard.holds(hints) for guard in scope.guards)
    if all(guard.holds(others) for guard in scope.guards):
        assert decided == COMPARE[relation](a_there, b_there)


@given(trees(), bindings)
def test_substitution_of_all_symbols_is_evaluation(tree, values):
    expected, expression = build(tree, values), build(tree, symbols())
    if expected is None or expression is None:
        return
    assert substitute(expression, values) == expected


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (s0 + s0 + 1, "2*s0 + 1"),
        (s0 // 2, "s0//2"),
        ((s0 + 1) // 2, "(s0 + 1)//2"),
        (-(s0 // 2), "-(s0//2)"),
        (3 * (s0 % 4), "3*(s0 % 4)"),
        (s1 * s0 * s0, "s0**2*s1"),
        (5 - s0, "-s0 + 5"),
        ((s0 + s1) % (s2 + 1), "(s0 + s1) % (s2 + 1)"),
        (sym_max(s1, 4), "max(s1, 4)"),
        (sym_min(s1, s0), "min(s0, s1)"),
        (symbol("s10") + symbol("s9"), "s9 + s10"),
    ],
)
def test_text(expression, text):
    assert str(expression) == repr(expression) == f"{expression}" == text


@pytest.mark.parametrize(
    ("expression", "simple"),
    [
        (s0 - s0, 0),
        ((s0 + 4) - s0, 4),
        (s0 * s1 // s0, s1),
        (s0 * s1 // (s0 * s1), 1),
        ((s0 * s1 + s1) // (s0 + 1), s1),
        ((4 * s0 + 2) // 4, s0),
        (s0 // 2 // 3, s0 // 6),
        ((2 * s0) // 4, s0 // 2),
        ((6 * s0) % 3, 0),
        ((s0 * s1) % s1, 0),
        (1 // s0, 0),
        (1 % s0, 1),
        (s0 // (s0 + 1), 0),
        ((s0 + 2 * 1 - 3) // 1 + 1, s0),
        (sym_max(s0, 1), s0),
        (sym_min(s0 * s1, s0), s0),
        ((-1) * (-s0), s0),
    ],
)
def test_normal_form(expression, simple):
    assert same_size(expression, simple)
    assert hash(expression) == hash(simple)


@pytest.mark.parametrize(
    ("decided", "truth"),
    [
        (s0 == 1, False),
        (s0 == 0, False),
        (s0 != 1, True),
        (s0 >= 2, True),
        (s0 > 1, True),
        (s0 + 1 > s0, True),
        (s0 * s1 >= s0, True),
        (s0 * s1 - s0 >= 2, True),
        (2 * s0 == 5, False),
        (s0 % 4 < 4, True),
        (s0 // 2 >= 0, True),
        (bool(s0), True),
        (s0 == "s0", False),
        (s0 == None, False),  # noqa: E711
        (s0 < math.inf, True),
    ],
)
def test_decided_by_the_lower_bounds(decided, truth):
    assert decided is truth


def test_without_hints_equality_is_structural_and_order_raises():
    assert s0 + s1 == s1 + s0
    assert s0 != s1
    with pytest.raises(UndecidedError, match=r"can't decide s0 < s1: the symbols have no hints"):
        bool(s0 < s1)
    with pytest.raises(UndecidedError, match=r"can't decide int\(s0\)"):
        int(s0)


def test_guards_are_recorded_once_with_the_line_that_asked():
    scope = SymbolScope(locate=lambda: "train.py:3")
    a, b = scope.symbol(8), scope.symbol(8)
    assert a == b
    assert b == a
    assert not a < b
    assert a <= 100
    assert [str(g) for g in scope.guards] == ["s0 == s1", "s0 >= s1", "s0 <= 100"]
    assert scope.guards[0].location == "train.py:3"
    assert scope.guards[0].holds({"s0": 5, "s1": 5})
    assert not scope.guards[0].holds({"s0": 5, "s1": 6})


def test_int_specialises():
    scope = SymbolScope()
    a = scope.symbol(3)
    assert [0 for _ in range(a + 1)] == [0] * 4
    assert [str(g) for g in scope.guards] == ["s0 == 3"]
    assert a / 2 == 1.5
    assert 2.0 * a == 6.0
    assert len(scope.guards) == 1


def test_discarding_forgets_guards():
    scope = SymbolScope()
    a = scope.symbol(3)
    with scope.discarding():
        assert a == 3
    assert scope.guards == []
    assert a == 3
    assert len(scope.guards) == 1


def test_inside_shapes():
    scope = SymbolScope()
    n = scope.symbol(5)
    shape = (n, 3, 4)
    assert same_size(math.prod(shape), 12 * n)
    assert same_size(sum(shape), n + 7)
    assert same_shape((n, 3), (n, 3)) and not same_shape((n, 3), (n + 1, 3))
    assert (n, 3) == (n, 3)
    assert scope.guards == []
    assert same_size(max(shape), n)
    assert [str(g) for g in scope.guards] == ["s0 >= 3", "s0 >= 4"]


def test_numpy_integers_mix():
    assert same_size(np.int64(2) * s0, 2 * s0)
    assert same_size(s0 + np.int32(1), s0 + 1)
    assert same_size(s0 + True, s0 + 1)


def test_queries():
    assert free_symbols(s0 * s1 // 3) == {"s0", "s1"}
    assert free_symbols(3) == frozenset()
    assert at_least(s0 + 1, 3) and not at_least(s0, 3)
    assert evaluate(7, {}) == 7
    with pytest.raises(KeyError):
        evaluate(s0, {})


def test_copies():
    n = symbol("n", lower=4, hint=9) * 2 + 1
    for again in (pickle.loads(pickle.dumps(n)), copy.copy(n), copy.deepcopy(n)):
        assert same_size(again, n) and again.hint == 19 and again.bounds() == (9, None)


def test_errors():
    with pytest.raises(ZeroDivisionError):
        s0 // 0
    with pytest.raises(ZeroDivisionError):
        s0 % 0
    with pytest.raises(ValueError, match="not a symbol name"):
        symbol("f32")
    with pytest.raises(ValueError, match="below its lower bound"):
        symbol("a", hint=1)
    with pytest.raises(ValueError, match="exists already"):
        scope = SymbolScope()
        scope.symbol(name="a")
        scope.symbol(name="a")
    for text in ("s0 +", "s9", "s0 @ 2", "f(s0, 1)", "1.5"):
        with pytest.raises(ValueError):
            parse_size(text, {"s0": s0})
    with pytest.raises(TypeError):
        s0 + "a"
