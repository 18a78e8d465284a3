"""The scalar instruction set as Triton expressions.

Registers hold bool as int1, integers in their own width, float16 and bfloat16 as float32, the others as themselves.
Where Triton's own function is an approximation (`tl.sin`, `tl.log`, `/` in float32), the accurate one is taken: such
kernels wait for memory, not for arithmetic. precision.py says where half precision makes an exception.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.helpers import SORT_HELPERS
from graphtorch.lowering.triton.philox import RANDOM_HELPERS
from graphtorch.lowering.triton.precision import HALVES
from graphtorch.lowering.triton.special import SPECIAL_HELPERS
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype

LOG2E = 1.4426950408889634

REGISTER = {
    dtypes.bool_: "int1", dtypes.uint8: "uint8", dtypes.int8: "int8", dtypes.int16: "int16", dtypes.int32: "int32",
    dtypes.int64: "int64", dtypes.float16: "float32", dtypes.bfloat16: "float32", dtypes.float32: "float32",
    dtypes.float64: "float64",
}  # fmt: skip

# In memory. A bool is a byte, which Triton has no plain pointer type for.
POINTER = {
    dtypes.bool_: "*i8", dtypes.uint8: "*u8", dtypes.int8: "*i8", dtypes.int16: "*i16", dtypes.int32: "*i32",
    dtypes.int64: "*i64", dtypes.float16: "*fp16", dtypes.bfloat16: "*bf16", dtypes.float32: "*fp32",
    dtypes.float64: "*fp64",
}  # fmt: skip

# Functions that generated sources define where they use them.
HELPERS = {
    "_multiply": """
@triton.jit
def _multiply(a, b):
    return a * b
""",
    "_maximum": """
@triton.jit
def _maximum(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
""",
    "_minimum": """
@triton.jit
def _minimum(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
""",
    "_larger_first": """
@triton.jit
def _larger_first(a, i, b, j):
    # The larger value with its position; NaN is larger than anything; of equal ones the first.
    better = (a > b) | ((a != a) & (b == b)) | (((a == b) | ((a != a) & (b != b))) & (i < j))
    return tl.where(better, a, b), tl.where(better, i, j)
""",
    "_smaller_first": """
@triton.jit
def _smaller_first(a, i, b, j):
    # The smaller value with its position; NaN is smaller than anything; of equal ones the first.
    better = (a < b) | ((a != a) & (b == b)) | (((a == b) | ((a != a) & (b != b))) & (i < j))
    return tl.where(better, a, b), tl.where(better, i, j)
""",
    "_remainder": """
@triton.jit
def _remainder(a, b):
    # With the sign of the divisor, as Python's %.
    rest = libdevice.fmod(a, b)
    return tl.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)
""",
    "_integer_remainder": """
@triton.jit
def _integer_remainder(a, b):
    rest = a % b
    return tl.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)
""",
    "_floor_divide": """
@triton.jit
def _floor_divide(a, b):
    # From the exact remainder: the floor of a rounded quotient may be one too large.
    rest = libdevice.fmod(a, b)
    rest = tl.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)
    return tl.where(b == 0, a / b, libdevice.rint((a - rest) / b))
""",
    "_integer_floor_divide": """
@triton.jit
def _integer_floor_divide(a, b):
    quotient = a // b
    rest = a - quotient * b
    return tl.where((rest != 0) & ((rest < 0) != (b < 0)), quotient - 1, quotient)
""",
    "_integer_power": """
@triton.jit
def _integer_power(base, exponent):
    # By squaring. A negative exponent leaves 1 and -1 as they are and makes 0 of the rest.
    negative = exponent < 0
    zero = negative & (base != 1) & (base != -1)
    left = tl.where(negative, exponent & 1, exponent) + base * 0
    square = tl.where(zero, base * 0, base)
    result = left * 0 + 1
    for _ in range(64):
        result = tl.where((left & 1) != 0, result * square, result)
        square = square * square
        left = left >> 1
    return tl.where(zero, result * 0, result)
""",
    "_plus": """
@triton.jit
def _plus(a, b):
    return a + b
""",
    "_last_larger": """
@triton.jit
def _last_larger(a, i, b, j):
    # The larger value with its position; NaN is larger than anything; of equal ones the last.
    better = (b > a) | ((b != b) & (a == a)) | (((a == b) | ((a != a) & (b != b))) & (j > i))
    return tl.where(better, b, a), tl.where(better, j, i)
""",
    "_last_smaller": """
@triton.jit
def _last_smaller(a, i, b, j):
    # The smaller value with its position; NaN is smaller than anything; of equal ones the last.
    better = (b < a) | ((b != b) & (a == a)) | (((a == b) | ((a != a) & (b != b))) & (j > i))
    return tl.where(better, b, a), tl.where(better, j, i)
""",
    "_log_add_exp": """
@triton.jit
def _log_add_exp(a, b):
    high = tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    low = tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
    # Equal infinities have no difference.
    return tl.where(low == high, high + 0.6931471805599453, high + libdevice.log1p(libdevice.exp(low - high)))
""",
    **RANDOM_HELPERS,
    **SORT_HELPERS,
    **SPECIAL_HELPERS,
}  # fmt: skip


_NAMES = re.compile(r"(?<!\w)_\w+(?=[(),])")  # as the names of helpers are


def helpers_in(text: str) -> list[str]:
    """The helper functions that a source refers to, and those that these refer to, each before its users."""
    found: set[str] = set()
    waiting = [text]
    while waiting:
        source = waiting.pop()
        new = {n for n in _NAMES.findall(source) if n in HELPERS} - found
        found |= new
        waiting.extend(HELPERS[n] for n in new)
    return [n for n in HELPERS if n in found]


def register(of: dtype) -> str:
    """The Triton type that values of a dtype are computed in. Raises UnsupportedError for complex ones."""
    name = REGISTER.get(of)
    if name is None:
        raise UnsupportedError(f"{of.name} values")
    return f"tl.{name}"


def memory(of: dtype) -> str:
    """The Triton type in memory."""
    narrow = {dtypes.bool_: "tl.int8", dtypes.float16: "tl.float16", dtypes.bfloat16: "tl.bfloat16"}
    return narrow.get(of) or register(of)


def convert(x: str, source: dtype, to: dtype) -> str:
    """A cast, as PyTorch rounds: towards zero to integers, through truth to bool."""
    if to is dtypes.bool_:
        return x if source is dtypes.bool_ else f"{x} != 0"
    if to in (dtypes.float16, dtypes.bfloat16):
        single = x if register(source) == "tl.float32" else f"{x}.to(tl.float32)"  # as PyTorch, in two steps
        return x if source is to else f"{single}.to({memory(to)}).to(tl.float32)"
    if register(source) == register(to):
        return x
    if source.is_floating_point and to.itemsize < 4 and not to.is_floating_point:
        return f"{x}.to(tl.int64).to({register(to)})"  # narrow types wrap around, as PyTorch's
    return f"{x}.to({register(to)})"


Instruction = Callable[[Sequence[str], dtype], str]


def _library(name: str) -> Instruction:
    return lambda a, of: f"libdevice.{name}({', '.join(a)})"


def _exp(a: Sequence[str], of: dtype) -> str:
    """Of float32, in the base that the hardware has; as `exp` Triton would spend three instructions more on results
    below 1e-38, which are zero here as in its other functions."""
    return f"libdevice.exp({a[0]})" if of is dtypes.float64 else f"tl.exp2(({a[0]}) * {LOG2E!r})"


def _infix(sign: str, of_bools: str = "") -> Instruction:
    return lambda a, of: f"{a[0]} {of_bools if of is dtypes.bool_ and of_bools else sign} {a[1]}"


def _extremum(name: str, of_bools: str) -> Instruction:
    def run(a: Sequence[str], of: dtype) -> str:
        if of is dtypes.bool_:
            return f"{a[0]} {of_bools} {a[1]}"
        if of.is_floating_point:
            return f"tl.{name}({a[0]}, {a[1]}, propagate_nan=tl.PropagateNan.ALL)"
        return f"tl.{name}({a[0]}, {a[1]})"

    return run


def _rounding(text: str) -> Instruction:
    return lambda a, of: text.format(a[0]) if of.is_floating_point else a[0]


def _only_floating(name: str, instruction: Instruction) -> Instruction:
    def run(a: Sequence[str], of: dtype) -> str:
        if not of.is_floating_point:
            raise UnsupportedError(f"{name} of {of.name}")
        return instruction(a, of)

    return run


def _divide(a: Sequence[str], of: dtype) -> str:
    return f"{a[0]} / {a[1]}" if of is dtypes.float64 else f"tl.div_rn({a[0]}, {a[1]})"


def _sqrt(a: Sequence[str], of: dtype) -> str:
    return f"libdevice.sqrt({a[0]})" if of is dtypes.float64 else f"tl.sqrt_rn({a[0]})"


def _sigmoid(a: Sequence[str], of: dtype) -> str:
    below = f"(1.0 + {_exp((f'{a[0]} * -1.0',), of)})"
    # The exponential is not exact either.
    return f"1.0 / {below}" if of in HALVES else _divide(("1.0", below), of)


def _neg(a: Sequence[str], of: dtype) -> str:
    return f"{a[0]} * -1.0" if of.is_floating_point else f"0 - {a[0]}"  # Triton's own -x makes +0.0 of 0.0


def _sign(a: Sequence[str], of: dtype) -> str:
    x, t = a[0], register(of)
    if of is dtypes.bool_:
        return x
    return f"({x} > 0).to({t}) - ({x} < 0).to({t})" if of.is_signed else f"({x} > 0).to({t})"


def _choose(floating: str, signed: str, unsigned: str) -> Instruction:
    def run(a: Sequence[str], of: dtype) -> str:
        text = floating if of.is_floating_point else signed if of.is_signed else unsigned
        return text.format(*a)

    return run


def _pow(a: Sequence[str], of: dtype) -> str:
    return f"libdevice.pow({a[0]}, {a[1]})" if of.is_floating_point else f"_integer_power({a[0]}, {a[1]})"


def _is(test: str, otherwise: str) -> Instruction:
    return lambda a, of: (test if of.is_floating_point else otherwise).format(a[0])


def _bitwise_not(a: Sequence[str], of: dtype) -> str:
    return f"{a[0]} == 0" if of is dtypes.bool_ else f"~{a[0]}"


_LIBRARY = (
    "expm1", "log", "log1p", "log2", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "erf",
    "atan2",
)  # fmt: skip

INSTRUCTIONS: dict[str, Instruction] = {
    "copy": lambda a, of: a[0],
    "neg": _neg,
    "abs": lambda a, of: f"tl.abs({a[0]})",
    "sign": _sign,
    "exp": _exp,
    "sqrt": _sqrt,
    "rsqrt": lambda a, of: _divide(("1.0", _sqrt(a, of)), of),
    "reciprocal": lambda a, of: _divide(("1.0", a[0]), of),
    "sigmoid": _sigmoid,
    **{
        name: _only_floating(name, _library(name))
        for name in _LIBRARY
    },
    "floor": _rounding("libdevice.floor({0})"),
    "ceil": _rounding("libdevice.ceil({0})"),
    "trunc": _rounding("libdevice.trunc({0})"),
    "round": _rounding("libdevice.rint({0})"),
    "isnan": _is("{0} != {0}", "{0} != {0}"),
    "isinf": _is('tl.abs({0}) == float("inf")', "{0} != {0}"),
    "isfinite": _is('tl.abs({0}) < float("inf")', "{0} == {0}"),
    "logical_not": lambda a, of: f"{a[0]} == 0",
    "bitwise_not": _bitwise_not,
    "add": _infix("+", "|"),
    "sub": _infix("-", "^"),
    "mul": _infix("*", "&"),
    "div": _only_floating("div", _divide),
    "pow": _pow,
    "maximum": _extremum("maximum", "|"),
    "minimum": _extremum("minimum", "&"),
    "fmod": _choose("libdevice.fmod({0}, {1})", "{0} % {1}", "{0} % {1}"),
    "remainder": _choose("_remainder({0}, {1})", "_integer_remainder({0}, {1})", "{0} % {1}"),
    "floor_divide": _choose("_floor_divide({0}, {1})", "_integer_floor_divide({0}, {1})", "{0} // {1}"),
    **dict.fromkeys(("check_target", "check_class", "check_probability"), lambda a, of: a[0]),  # nothing can raise
    "eq": _infix("=="),
    "ne": _infix("!="),
    "lt": _infix("<"),
    "le": _infix("<="),
    "gt": _infix(">"),
    "ge": _infix(">="),
    "logical_and": _infix("&"),
    "logical_or": _infix("|"),
    "logical_xor": _infix("^"),
    "bitwise_and": _infix("&"),
    "bitwise_or": _infix("|"),
    "bitwise_xor": _infix("^"),
    "where": lambda a, of: f"tl.where({a[0]}, {a[1]}, {a[2]})",
}  # fmt: skip

# The short forms of float32, for what is rounded to half precision next. Triton's short roots take subnormal numbers,
# which bfloat16 has as float32 does, for zero.
COARSE = {"div": "{0} / {1}", "reciprocal": "1.0 / {0}", "rsqrt": "1.0 / tl.sqrt_rn({0})"}

# Instructions that take a Python number beside a tensor and give it the tensor's type.
LITERALS = frozenset(["add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge"])


def apply(instruction: str, arguments: Sequence[str], operand: dtype) -> str:
    """One instruction on named values; `operand` is the dtype of its (last) operand.

    Raises UnsupportedError for an instruction without code."""
    function = INSTRUCTIONS.get(instruction)
    if function is None:
        raise UnsupportedError(f"no code for the instruction {instruction!r}")
    return function(arguments, operand)


def identity(combine: str, of: dtype) -> str:
    """The number that a fold starts with, as source."""
    if combine in ("sum", "any"):
        return "0"
    if combine in ("prod", "all"):
        return "1"
    lowest = combine in ("max", "argmax")
    if of.is_floating_point:
        return 'float("-inf")' if lowest else 'float("inf")'
    if of is dtypes.bool_:
        return "0" if lowest else "1"
    bits = of.itemsize * 8
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if of.is_signed else (0, (1 << bits) - 1)
    return str(low if lowest else high)
