"""The scalar instruction set in NumPy: ufuncs with `out=`, short sequences of them, and the records' own functions for
the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphtorch.ops.record import REGISTRY, lookup
from graphtorch.tensor.dtypes import dtype

# Instructions whose NumPy function has PyTorch's meaning on every real dtype that the operator computes in.
UFUNCS: dict[str, np.ufunc] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "neg": np.negative,
    "abs": np.absolute,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "atan2": np.arctan2,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "logical_not": np.logical_not,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
}


@dataclass(frozen=True)
class Expansion:
    """An instruction as several NumPy calls. In `lines`, `{0}`, `{1}`, ... are operands and `{out}` the result; `one`
    is a constant."""

    text: tuple[str, ...]
    functions: dict[str, Any]
    constants: dict[str, float] = field(default_factory=dict)

    def lines(self, operands: list[str], out: str, of: dtype) -> list[str]:
        """The source lines."""
        named = {name: f"{name}_{of.abbreviation}" for name in self.constants}
        made = [line.format(*operands, out=out, **named) for line in self.text]
        return [line for line in made if line != f"copyto({out}, {out})"]


EXPANSIONS: dict[str, Expansion] = {
    "cast": Expansion(("copyto({out}, {0}, casting='unsafe')",), {"copyto": np.copyto}),
    "where": Expansion(("copyto({out}, {2})", "copyto({out}, {1}, where={0})"), {"copyto": np.copyto}),
    "rsqrt": Expansion(
        ("sqrt({0}, out={out})", "true_divide({one}, {out}, out={out})"),
        {"sqrt": np.sqrt, "true_divide": np.true_divide},
        {"one": 1.0},
    ),
    "reciprocal": Expansion(("true_divide({one}, {0}, out={out})",), {"true_divide": np.true_divide}, {"one": 1.0}),
}


def fallback(instruction: str, of: dtype) -> Callable[..., Any]:
    """The NumPy function of the record with that scalar instruction, with results of dtype `of`."""
    op = REGISTRY.get(instruction)
    if op is None or op.scalar != instruction:
        op = next((o for o in REGISTRY.values() if o.scalar == instruction and o.kind == "pointwise"), None) or lookup(
            instruction
        )
    function = op.numpy
    if instruction == "cast":
        return _typed(lambda x: function(x, of), of, instruction)
    # Attributes of a primitive have their defaults: anything else is a decomposition.
    rest = tuple(p.default for p in op.parameters if not p.is_operand)
    return _typed(lambda *operands: function(*operands, *rest), of, instruction)


_TYPED: dict[tuple[str, dtype], Callable[..., Any]] = {}


def _typed(function: Callable[..., Any], of: dtype, instruction: str) -> Callable[..., Any]:
    found = _TYPED.get((instruction, of))
    if found is None:
        target = of.numpy

        def run(*operands: Any) -> Any:
            result = function(*operands)
            return result if getattr(result, "dtype", None) == target else np.asarray(result).astype(target)

        found = _TYPED[instruction, of] = run
    return found


def fold_argument(name: str) -> Callable[..., None]:
    """`argmax` or `argmin` over several axes: the position in their row-major order, the first where several tie."""
    return _argmax if name == "argmax" else _argmin


def _argmax(x: Any, axes: tuple[int, ...], out: Any) -> None:
    _positions(np.argmax, x, axes, out)


def _argmin(x: Any, axes: tuple[int, ...], out: Any) -> None:
    _positions(np.argmin, x, axes, out)


def _positions(function: Callable[..., Any], x: Any, axes: tuple[int, ...], out: Any) -> None:
    if x.dtype.kind == "V":  # bfloat16 has no argmax of its own
        x = x.astype(np.float32)
    if len(axes) == 1:
        out[...] = function(x, axis=axes[0], keepdims=True)
        return
    kept = [i for i in range(x.ndim) if i not in axes]
    flat = x.transpose([*kept, *axes]).reshape([*(x.shape[i] for i in kept), -1])
    out[...] = function(flat, axis=-1).reshape([1 if i in axes else x.shape[i] for i in range(x.ndim)])
