"""Sizes as text: reading what `str` of a size printed, within bounds.

Text may come from anywhere, and a few characters can describe numbers and polynomials that no memory holds."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from graphtorch.tensor.symint import Size, SymInt, sym_max, sym_min

MAX_TERMS = 256  # of an expression that text describes
MAX_TEXT = 4096


def bounded(operation: str, left: Size, right: Size) -> Size:
    """One operation on sizes that text asks for: text may come from anywhere, and a few characters can describe numbers
    and polynomials that no memory holds.

    Raises ValueError for what is too large for a size, and for divisions by zero."""
    known = type(left) is int and type(right) is int
    terms = [len(x._terms) if type(x) is SymInt else 1 for x in (left, right)]
    if operation == "**":
        if type(right) is not int or not 0 <= right <= 62:
            raise ValueError("a size has powers from 0 to 62")
        if known:
            fits = max(abs(int(left)), 1).bit_length() * right < 64
        else:
            fits = math.comb(terms[0] + right, right) <= MAX_TERMS
    elif operation == "*" and not known:
        fits = terms[0] * terms[1] <= MAX_TERMS
    else:
        fits = True
    if not fits:
        raise ValueError("an expression that is too large for a size")
    try:
        result: Size = _OPERATIONS[operation](left, right)
    except ZeroDivisionError as error:
        raise ValueError(str(error)) from None
    coefficients = [*result._terms.values()] if type(result) is SymInt else [int(result)]
    if len(coefficients) > MAX_TERMS or any(abs(c) >= 1 << 63 for c in coefficients):
        raise ValueError("an expression that is too large for a size")
    return result


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}


def parse_size(text: str, symbols: Mapping[str, SymInt]) -> Size:
    """Read what `str` of a size printed. Raises ValueError for anything else, and for unknown symbols."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"not a size: {len(text)} characters")

    def value(node: ast.expr) -> Size:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.Name) and node.id in symbols:
            return symbols[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return bounded(_BINARY[type(node.op)], value(node.left), value(node.right))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 2 and not node.keywords:
            if node.func.id == "max":
                return sym_max(value(node.args[0]), value(node.args[1]))
            if node.func.id == "min":
                return sym_min(value(node.args[0]), value(node.args[1]))
        raise ValueError(f"not a size over {', '.join(symbols) or 'no symbols'}: {text!r}")

    try:
        return value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"not a size: {text[:80]!r}") from None


_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}
