"""Scalar instructions of Kernels as LLVM instructions: one function an instruction name.

Registers hold bool as i1, integers in their own width, float16 and bfloat16 as float, the others as themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.lowering.cpu import double_functions, transcendental
from graphtorch.lowering.cpu.assembly import BITS, Builder, Val, const
from graphtorch.ops.checks import CHECKS
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype

REGISTER = {
    dtypes.bool_: "i1", dtypes.uint8: "i8", dtypes.int8: "i8", dtypes.int16: "i16", dtypes.int32: "i32",
    dtypes.int64: "i64", dtypes.float16: "float", dtypes.bfloat16: "float", dtypes.float32: "float",
    dtypes.float64: "double",
}  # fmt: skip


class RefusedError(Exception):
    """The emitter has no code for a kernel; the message says why. The kernel then runs on NumPy."""


def convert(b: Builder, x: Val, source: dtype, to: dtype) -> Val:
    """A cast between dtypes, as PyTorch rounds: towards zero to integers, through truth to bool."""
    kind, wanted = x.kind, REGISTER[to]
    if to is dtypes.bool_:
        if kind == "i1":
            return x
        return b.compare("une", x, 0.0) if x.is_float else b.compare("ne", x, 0)
    if kind == "i1":
        return b.convert("uitofp" if wanted in ("float", "double") else "zext", x, wanted)
    if x.is_float:
        if wanted in ("float", "double"):
            if kind != wanted:
                x = b.convert("fpext" if wanted == "double" else "fptrunc", x, wanted)
            return round_to(b, x, to) if to.itemsize == 2 else x
        # Out of range is undefined; freeze makes it some number. Narrow types go through int32, as PyTorch's wrap.
        through = wanted if BITS[wanted] >= 32 else "i32"
        if to is dtypes.uint8:
            through = "i64"
        whole = b.freeze(b.convert("fptosi", x, through))
        return whole if through == wanted else b.convert("trunc", whole, wanted)
    if wanted in ("float", "double"):
        x = b.convert("sitofp" if source.is_signed else "uitofp", x, wanted)
        return round_to(b, x, to) if to.itemsize == 2 else x
    if BITS[wanted] == BITS[kind]:
        return x
    if BITS[wanted] < BITS[kind]:
        return b.convert("trunc", x, wanted)
    return b.convert("sext" if source.is_signed else "zext", x, wanted)


def round_to(b: Builder, x: Val, to: dtype) -> Val:
    """A float rounded to half precision, kept as a float."""
    if to is dtypes.float16:
        return b.convert("fpext", b.convert("fptrunc", x, "half"), "float")
    return from_bfloat16(b, to_bfloat16(b, x))


def to_bfloat16(b: Builder, x: Val) -> Val:
    """The upper half of a float's bits, rounded to nearest even; NaN stays one."""
    bits = b.convert("bitcast", x, "i32")
    odd = b.logic("and", b.logic("lshr", bits, 16), 1)
    rounded = b.logic("lshr", b.add(b.add(bits, 0x7FFF), odd), 16)
    quiet = b.logic("or", b.logic("lshr", bits, 16), 0x40)
    return b.convert("trunc", b.select(b.is_nan(x), quiet, rounded), "i16")


def from_bfloat16(b: Builder, bits: Val) -> Val:
    return b.convert("bitcast", b.logic("shl", b.convert("zext", bits, "i32"), 16), "float")


# -- instructions -----------------------------------------------------------------------------------------------------

Instruction = Callable[[Builder, Sequence[Val], dtype], Val]


def _called(name: str) -> Instruction:
    """A function that kernels share (`helpers.py`): polynomials, or the C library's."""

    def run(b: Builder, a: Sequence[Val], of: dtype) -> Val:
        return b.helper(helper_for(b, name, a[0].kind), *b.match(*a))

    return run


def helper_for(b: Builder, name: str, kind: str) -> str:
    """What a function is called in `helpers.py`. Argument reductions in float64 need fused multiply-add."""
    exact = b.fma_available or name not in ("sin", "cos", "tan", "expm1")
    if kind == "float":
        return name if (name in double_functions.SINGLE and exact) or name in ("sin", "cos") else "lib_" + name
    return name if name in double_functions.DOUBLE and exact else "lib_" + name


def _polynomial(function: Callable[[Builder, Val], Val], name: str = "") -> Instruction:
    """A polynomial in float32; float64 has a function of its own, if a name is given."""

    def run(b: Builder, a: Sequence[Val], of: dtype) -> Val:
        if a[0].kind == "double" and name:
            return b.helper(helper_for(b, name, "double"), a[0])
        return function(b, a[0])

    return run


def _arithmetic(name: str) -> Instruction:
    def run(b: Builder, a: Sequence[Val], of: dtype) -> Val:
        if a[0].kind == "i1":
            return b.logic({"add": "or", "mul": "and", "sub": "xor"}[name], a[0], a[1])
        return b.binary(("f" if a[0].is_float else "") + name, a[0], a[1])

    return run


def _compare(floating: str, integer: str) -> Instruction:
    def run(b: Builder, a: Sequence[Val], of: dtype) -> Val:
        predicate = floating if a[0].is_float else integer
        return b.compare(predicate, a[0], a[1])

    return run


def _ordering(predicate: str) -> Instruction:
    def run(b: Builder, a: Sequence[Val], of: dtype) -> Val:
        if a[0].is_float:
            return b.compare("o" + predicate, a[0], a[1])
        return b.compare(("s" if of.is_signed else "u") + predicate, a[0], a[1])

    return run


def _extremum(larger: bool) -> Instruction:
    return lambda b, a, of: extremum(b, a[0], a[1], larger, of)


def extremum(b: Builder, x: Val, y: Val, larger: bool, of: dtype) -> Val:
    """The larger or smaller of two; NaN if either is."""
    if x.is_float:
        picked = b.select(b.compare("ogt" if larger else "olt", x, y), x, y)  # y where either is NaN
        return b.select(b.is_nan(x), x, picked)
    sign = "s" if of.is_signed else "u"
    return b.select(b.compare(sign + ("gt" if larger else "lt"), x, y), x, y)


def _rounding(name: str) -> Instruction:
    return lambda b, a, of: b.intrinsic(name, a[0]) if a[0].is_float else a[0]


def _abs(b: Builder, a: Sequence[Val], of: dtype) -> Val:
    x = a[0]
    if x.is_float:
        return b.intrinsic("fabs", x)
    return b.select(b.compare("slt", x, 0), b.neg(x), x) if of.is_signed else x


def _sign(b: Builder, a: Sequence[Val], of: dtype) -> Val:
    x = a[0]
    if x.kind == "i1":
        return x
    if x.is_float:
        one = b.intrinsic("copysign", const(1.0, x.kind, x.lanes), x)
        return b.select(b.compare("one", x, 0.0), one, 0.0)
    positive = b.select(b.compare("sgt" if of.is_signed else "ugt", x, 0), const(1, x.kind), 0)
    return b.select(b.compare("slt", x, 0), -1, positive) if of.is_signed else positive


def _reciprocal(b: Builder, a: Sequence[Val], of: dtype) -> Val:
    if not a[0].is_float:
        raise RefusedError("reciprocal of integers")
    return b.div(1.0, a[0])


def _divide(b: Builder, a: Sequence[Val], of: dtype) -> Val:
    if not a[0].is_float:
        raise RefusedError("true division of integers")
    return b.binary("fdiv", a[0], a[1])


def _is_literal(x: Val) -> bool:
    return "%" not in x.text


def _divided(b: Builder, a: Sequence[Val], of: dtype) -> tuple[Val, Val, Val]:
    """(quotient towards zero, remainder, divisor) of integers. Division by zero is noted as a failure."""
    x, y = b.match(*a)
    signed = "s" if of.is_signed else "u"
    number = a[1].text.removeprefix("splat (").split()[-1].rstrip(")") if _is_literal(a[1]) else ""
    if number not in ("", "0", "-1"):
        return b.binary(signed + "div", x, y), b.binary(signed + "rem", x, y), y
    if not b.failure_slot:
        raise RefusedError("integer division by a divisor that may be zero")
    zero = b.compare("eq", y, 0)
    _fail(b, zero, "ZeroDivisionError", RuntimeError)
    # The lowest number divided by -1 overflows: negation wraps, as PyTorch's division does.
    negates = b.compare("eq", y, -1) if of.is_signed else zero
    divisor = b.select(b.logic("or", zero, negates), 1, y)
    quotient = b.binary(signed + "div", x, divisor)
    if of.is_signed:
        quotient = b.select(negates, b.neg(x), quotient)
    return quotient, b.binary(signed + "rem", x, divisor), y


def _fail(b: Builder, condition: Val, message: str, error: type[Exception], shown: Val | None = None) -> None:
    if b.failures and b.error is not error:
        raise RefusedError("failures of two kinds in one kernel")
    b.fail_if(condition, message, error, shown)


def _floor_divide(b: Builder, a: Sequence[Val], of: dtype) -> Val:
    x, y = b.match(*a)
    if x.is_float:
        # floor of the exact quotient, from the exact remainder: floor(x / y) alone may round up to the next integer.
        quotient = b.binary("fdiv", b.sub(x, _remainder(b, a, of)), y)
        quotient = b.intrinsic("rint", quotient)
        return b.select(b.compare("oeq", y, 0.0), b.binary("fdiv", x, y), quotient)
    quotient, rest, y = _divided(b, a, of)
    if not of.is_signed:
        return quotient
    below = b.logic("and", b.compare("ne", rest, 0), b.compare("slt", b.logic("xor", rest, y), 0))
    return b.sub(quotient, b.convert("zext", below, x.kind))


def _check_below(name: str) -> Instruction:
    """The first operand, which has to be in [0, second)."""
    error, message = CHECKS[name]

    def run(b: Builder, a: Sequence[Val], of: dtype) -> Val:
        x, size = b.match(*a)
        if x.is_float or not b.failure_slot:
            raise RefusedError(f"{name} here")
        _fail(b, b.compare("uge", x, size), message, error, x)  # unsigned: negative numbers are large
        return x

    return run


def _check_probability(b: Builder, a: Sequence[Val], of: dtype) -> Val:
    if not a[0].is_float or not b.failure_slot:
        raise RefusedError("check_probability here")
    fine = b.logic("and", b.compare("oge", a[0], 0.0), b.compare("ole", a[0], 1.0))
    error, message = CHECKS["check_probability"]
    _fail(b, b.logic("xor", fine, True), message, error)
    return a[0]


def _fmod(b: Builder, a: Sequence[Val], of: dtype) -> Val:
    x, y = b.match(*a)
    if x.is_float:
        return b.helper(helper_for(b, "fmod", x.kind), x, y)
    return _divided(b, a, of)[1]


def _remainder(b: Builder, a: Sequence[Val], of: dtype) -> Val:
    """With the divisor's sign, as Python's %."""
    x, y = b.match(*a)
    if not x.is_float:
        _, rest, y = _divided(b, a, of)
        if not of.is_signed:
            return rest
        other = b.logic("and", b.compare("ne", rest, 0), b.compare("slt", b.logic("xor", rest, y), 0))
        return b.select(other, b.add(rest, y), rest)
    rest = b.helper(helper_for(b, "fmod", x.kind), x, y)
    other = b.logic(
        "and", b.compare("une", rest, 0.0), b.logic("xor", b.compare("olt", rest, 0.0), b.compare("olt", y, 0.0))
    )
    return b.select(other, b.add(rest, y), rest)


def _pow(b: Builder, a: Sequence[Val], of: dtype) -> Val:
    if a[0].kind == "i1":
        raise RefusedError("powers of bool")
    if not a[0].is_float:
        return b.helper("ipow" if of.is_signed else "upow", *b.match(*a))
    return b.helper(helper_for(b, "pow", a[0].kind), *b.match(*a))


def _truth(op: str) -> Instruction:
    def run(b: Builder, a: Sequence[Val], of: dtype) -> Val:
        return b.logic(op, *[_true(b, v) for v in a])

    return run


def _true(b: Builder, x: Val) -> Val:
    if x.kind == "i1":
        return x
    return b.compare("une", x, 0.0) if x.is_float else b.compare("ne", x, 0)


def _is_infinite(b: Builder, a: Sequence[Val], of: dtype) -> Val:
    if not a[0].is_float:
        return const(False, "i1", a[0].lanes)
    return b.compare("oeq", b.intrinsic("fabs", a[0]), float("inf"))


def _is_finite(b: Builder, a: Sequence[Val], of: dtype) -> Val:
    if not a[0].is_float:
        return const(True, "i1", a[0].lanes)
    return b.compare("olt", b.intrinsic("fabs", a[0]), float("inf"))


INSTRUCTIONS: dict[str, Instruction] = {
    "copy": lambda b, a, of: a[0],
    "neg": lambda b, a, of: b.neg(a[0]),
    "abs": _abs,
    "sign": _sign,
    "exp": _polynomial(transcendental.exp),
    "expm1": _polynomial(transcendental.expm1, "expm1"),
    "log": _polynomial(transcendental.log),
    "log1p": _polynomial(transcendental.log1p),
    "log2": _polynomial(transcendental.log2, "log2"),
    "sqrt": lambda b, a, of: b.intrinsic("sqrt", a[0]),
    "rsqrt": lambda b, a, of: b.div(1.0, b.intrinsic("sqrt", a[0])),
    "reciprocal": _reciprocal,
    "sin": _called("sin"),
    "cos": _called("cos"),
    "tanh": _polynomial(transcendental.tanh, "tanh"),
    "erf": _polynomial(transcendental.erf, "erf"),
    "sigmoid": _polynomial(transcendental.sigmoid),
    **{name: _called(name) for name in ("tan", "asin", "acos", "atan", "sinh", "cosh", "atan2")},
    "floor": _rounding("floor"),
    "ceil": _rounding("ceil"),
    "trunc": _rounding("trunc"),
    "round": _rounding("rint"),
    "isnan": lambda b, a, of: b.is_nan(a[0]) if a[0].is_float else const(False, "i1", a[0].lanes),
    "isinf": _is_infinite,
    "isfinite": _is_finite,
    "logical_not": lambda b, a, of: b.logic("xor", _true(b, a[0]), True),
    "bitwise_not": lambda b, a, of: b.logic("xor", a[0], -1 if a[0].kind != "i1" else True),
    "add": _arithmetic("add"),
    "sub": _arithmetic("sub"),
    "mul": _arithmetic("mul"),
    "div": _divide,
    "pow": _pow,
    "maximum": _extremum(True),
    "minimum": _extremum(False),
    "fmod": _fmod,
    "remainder": _remainder,
    "floor_divide": _floor_divide,
    "check_target": _check_below("check_target"),
    "check_class": _check_below("check_class"),
    "check_probability": _check_probability,
    "eq": _compare("oeq", "eq"),
    "ne": _compare("une", "ne"),
    "lt": _ordering("lt"),
    "le": _ordering("le"),
    "gt": _ordering("gt"),
    "ge": _ordering("ge"),
    "logical_and": _truth("and"),
    "logical_or": _truth("or"),
    "logical_xor": _truth("xor"),
    "bitwise_and": lambda b, a, of: b.logic("and", a[0], a[1]),
    "bitwise_or": lambda b, a, of: b.logic("or", a[0], a[1]),
    "bitwise_xor": lambda b, a, of: b.logic("xor", a[0], a[1]),
    "where": lambda b, a, of: b.select(_true(b, a[0]), a[1], a[2]),
}

# What an instruction costs beside an addition, for choosing what to cache, unroll and run in parallel.
COSTS = {
    "div": 4, "sqrt": 4, "rsqrt": 8, "reciprocal": 4, "exp": 12, "expm1": 16, "log": 20, "log1p": 26, "log2": 20,
    "tanh": 22, "erf": 26, "sigmoid": 20, "sin": 30, "cos": 30, "pow": 120, "tan": 60, "asin": 50, "acos": 50,
    "atan": 50, "sinh": 60, "cosh": 50, "atan2": 80, "fmod": 30, "remainder": 40, "floor_divide": 50,
}  # fmt: skip


def apply(b: Builder, name: str, arguments: Sequence[Val], of: dtype, operand: dtype) -> Val:
    """One instruction. `of` is the result's dtype, `operand` that of the (last) operand. Raises RefusedError for one
    without code."""
    instruction = INSTRUCTIONS.get(name)
    if instruction is None:
        raise RefusedError(f"no code for the instruction {name!r}")
    return instruction(b, arguments, operand)


def identity(combine: str, of: dtype) -> Any:
    """The value with which a fold starts."""
    if combine in ("sum", "any"):
        return 0
    if combine in ("prod", "all"):
        return 1
    lowest = combine in ("max", "argmax")
    if of.is_floating_point:
        return float("-inf") if lowest else float("inf")
    if of is dtypes.bool_:
        return not lowest
    bits = of.itemsize * 8
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if of.is_signed else (0, (1 << bits) - 1)
    return low if lowest else high
