"""Sizes in generated source: numbers, or expressions of the arguments that stand for symbols."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from graphtorch.tensor.symint import SymInt, substitute, symbol, symbols_of


def size_argument(name: str) -> str:
    """The argument that a symbol of a size becomes."""
    return f"size_{name}"


class Sizes:
    """Sizes in a generated text: numbers, or expressions of arguments that stand for symbols."""

    def __init__(self) -> None:
        self.symbols: dict[str, Any] = {}
        self.numbers: dict[str, int] = {}  # further arguments, which no size determines

    def text(self, size: Any) -> str:
        """A size as source; its symbols become arguments."""
        if type(size) is not SymInt:
            return str(int(size))
        for name in symbols_of(size):
            self.symbols.setdefault(name, symbol(name))
        text = str(substitute(size, {n: symbol(size_argument(n), lower=0) for n in symbols_of(size)}))
        divides = "-" in text and ("%" in text or "//" in text)
        return ast.unparse(_InTriton().visit(ast.parse(text, mode="eval"))) if divides or "**" in text else text

    def factor(self, size: Any) -> str:
        """A size as one operand of a product."""
        text = self.text(size)
        return text if text.lstrip("-").isidentifier() or text.lstrip("-").isdigit() else f"({text})"

    def arguments(self) -> tuple[tuple[str, Any], ...]:
        """The integer arguments that the texts refer to."""
        return (*((size_argument(n), s) for n, s in self.symbols.items()), *self.numbers.items())

    def divisible(self, bindings: Mapping[str, int]) -> frozenset[str]:
        """Those of them that are multiples of 16."""
        return frozenset(size_argument(s) for s in self.symbols if bindings[s] % 16 == 0)


class _InTriton(ast.NodeTransformer):
    """Powers as products, of which Triton has none, and quotients of what may be negative rounded down as Python's
    are: Triton rounds towards zero."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, ast.Mod | ast.FloorDiv) and _may_be_negative(node.left):
            a, b = node.left, node.right
            rest: ast.expr = ast.BinOp(ast.BinOp(ast.BinOp(a, ast.Mod(), b), ast.Add(), b), ast.Mod(), b)
            return rest if isinstance(node.op, ast.Mod) else ast.BinOp(ast.BinOp(a, ast.Sub(), rest), ast.FloorDiv(), b)
        if not isinstance(node.op, ast.Pow):
            return node
        made = node.left
        for _ in range(ast.literal_eval(node.right) - 1):
            made = ast.BinOp(made, ast.Mult(), node.left)
        return made


def _may_be_negative(expression: ast.expr) -> bool:
    return any(isinstance(part, ast.Sub | ast.USub) for part in ast.walk(expression))
