"""Which eager operators run as native code on large operands, and the way to it.

NumPy makes one pass over memory an instruction, and leaves 16-bit floats to scalar code. Where that takes several
passes or is slow, operators and derivative formulas on operands of at least `LARGE` elements run as the kernels of the
backend `cpu` (`lowering/cpu/eager.py`), which compiled code has too; compositions and what takes NumPy very many passes
do from `SMALL` elements on. Other operands and dtypes, and machines without that backend, get NumPy. What is computed
depends on shapes, dtypes and layout only, never on earlier calls: equal calls give equal bits."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from graphtorch.ops.record import Operator
    from graphtorch.tensor.generator import Generator


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


LARGE = 1 << 14  # elements: NumPy takes some ten microseconds, a native call a few
SMALL = 1 << 8  # the same for compositions, and for operators that take NumPy many passes: `EARLY`
EARLY = _names(
    "digamma erf erfinv gelu index_add lgamma logaddexp max_pool2d_with_indices remainder scatter_reduce topk"
)

DRAWN = 1 << 13  # numbers of one kind that are drawn before native code draws them
_KEPT = 4096  # kinds

# Pointwise operators that are one vectorised pass of NumPy in float32 and float64.
ONE_PASS = _names(
    "abs add bitwise_and bitwise_not bitwise_or bitwise_xor cast ceil check_class check_probability check_target "
    "clone copy cos div eq exp expm1 fill floor ge gt isfinite isinf isnan le log log1p log2 logical_and logical_not "
    "logical_or logical_xor lt maximum minimum mul ne neg reciprocal round rsub sin sqrt square sub tanh to_device "
    "trunc"
)
# Operators of other kinds whose native form is faster.
OTHERS = _names(
    "amax amin argmax argmin avg_pool2d avg_pool2d_backward binary_cross_entropy binary_cross_entropy_with_logits cat "
    "constant_pad_nd conv2d conv2d_input_grad conv2d_weight_grad cummax cumprod cumsum diagonal_backward digamma "
    "embedding embedding_dense_backward erfinv flip gather huber_loss index index_add index_put index_select kthvalue "
    "layer_norm lgamma linalg_vector_norm log_softmax logcumsumexp logsumexp masked_scatter max max_dim "
    "max_pool2d_backward max_pool2d_with_indices mean median median_dim min min_dim mse_loss one_hot prod repeat roll "
    "scatter scatter_add scatter_reduce select_backward slice_backward smooth_l1_loss softmax sort stack std std_mean "
    "sum topk tril triu var var_mean"
)
# Their derivatives are a single step, which is an operator of its own.
_ONE_STEP = _names("add cast clone copy exp fill mul neg rsub sub to_device")
# Only their gradients are faster: the operator itself reads little of its operand.
GRADIENTS = _names("nll_loss")
# As the others, but only in float16 and bfloat16.
HALF = frozenset(("mm", "bmm"))

_FLOATS = {np.dtype(d).num: np.dtype(d).itemsize for d in (ml_dtypes.bfloat16, np.float16, np.float32, np.float64)}
_HALF = 2  # bytes
_COMPLEX = frozenset((np.dtype(np.complex64).num, np.dtype(np.complex128).num))
_ndarray = np.ndarray


def least(name: str) -> int:
    """The number of elements from which on an operator may run as native code."""
    return SMALL if name in EARLY else LARGE


def is_native(name: str, kind: str, random: bool) -> bool:
    """Whether an operator may run as native code."""
    return (kind == "pointwise" and not random) or name in OTHERS or name in HALF or name in GRADIENTS


def is_worthwhile(op: Operator, arrays: Sequence[Any]) -> bool:
    """Whether native code beats NumPy for an operator on large arrays of these dtypes."""
    if op.name in GRADIENTS:
        return False
    found = 0
    for array in arrays:
        if type(array) is _ndarray:
            size = _FLOATS.get(array.dtype.num)
            if size is None:
                if array.dtype.num in _COMPLEX:
                    return False
            elif size == _HALF:
                return op.name != "clone"
            else:
                found = size
    if not found:
        return False
    if op.name in ONE_PASS or op.name in HALF:
        return op.name == "cast" and arrays[1].itemsize == _HALF
    return True


class _Switch:
    """Whether native code is used. `run`, `update` and `gradients` are those of `lowering/cpu/eager.py`, loaded when a
    large operand is met first; None where this machine can't run them."""

    def __init__(self) -> None:
        self.on = os.environ.get("GRAPHTORCH_EAGER", "native") != "numpy"
        self._module: Any = None

    def module(self) -> Any:
        """`lowering/cpu/eager.py`, or None."""
        if self._module is None and self.on:
            from importlib import import_module

            from graphtorch.ops.dispatch import quiet

            with quiet.nested():
                found = import_module("graphtorch.lowering.cpu.eager")
            if found.available():
                self._module = found
            else:
                self.on = False
        return self._module if self.on else None


switch = _Switch()


def run(op: Operator, arrays: list[Any]) -> Any:
    """The results of an operator (an array, or a tuple of them) on large arrays; None for those that are NumPy's.

    Raises what the operator raises for values that it refuses, such as an index out of range.
    """
    if not switch.on or not is_worthwhile(op, arrays):
        return None
    module = switch.module()
    return None if module is None else module.run(op, arrays)


def update(op: Operator, arrays: list[Any]) -> bool:
    """The in-place form: whether the result has been written over the first array, which is large."""
    if not switch.on or not is_worthwhile(op, arrays):
        return False
    module = switch.module()
    return module is not None and module.update(op, arrays)


def gradients(
    op: Operator, differentiated: tuple[str, ...], known: dict[str, Any], cotangents: Sequence[Any], targets: Any
) -> list[Any] | None:
    """The gradients of a call with large arrays; None where the formulas are NumPy's. See `lowering/cpu/eager.py`."""
    values = (*known.values(), *cotangents)
    if not switch.on or op.name in HALF or op.name in _ONE_STEP or not _is_real(values):
        return None
    if not any([type(v) is _ndarray and v.size >= op.least for v in values]):
        return None  # what is large is no more than a view
    module = switch.module()
    return None if module is None else module.gradients(op, differentiated, known, cotangents, targets)


_drawn: dict[tuple[Any, ...], int] = {}  # a call of a random operator, but for its size -> elements so far


def draw(op: Operator, arguments: Sequence[Any], at: int, generator: Generator) -> Any:
    """The numbers of a random operator, an array; None for those that are NumPy's.

    At position `at` of its arguments it has a size, or an array whose size it is; the last one is the generator. The
    numbers are the same in native code, so that calls may come before it is worth its compilation.
    """
    given = arguments[at]
    shape = given.shape if type(given) is _ndarray else tuple(given) if isinstance(given, tuple | list) else (given,)
    count = math.prod(shape)
    if count < SMALL or not switch.on:
        return None
    key = (op.name, *[None if i == at else a for i, a in enumerate(arguments[:-1])])
    before = _drawn.get(key, 0)
    if before < DRAWN:
        if len(_drawn) >= _KEPT:
            _drawn.clear()
        _drawn[key] = before + count
        return None
    module = switch.module()
    return None if module is None else module.draw(op, arguments, at, shape, generator)


def compose(function: Callable[..., Any], arrays: Sequence[Any]) -> list[Any] | None:
    """The results of a composition of operators, some of whose operands are large; None where it has no program."""
    module = switch.module() if _is_real(arrays) else None
    return None if module is None else module.compose(function, arrays)


def compose_gradients(
    function: Callable[..., Any], arrays: Sequence[Any], cotangents: Sequence[Any], wanted: Sequence[int]
) -> list[Any] | None:
    """The gradients of a composition's arguments at the positions `wanted`, None for those that it does not depend on;
    None where it has no program."""
    module = switch.module() if _is_real((*arrays, *cotangents)) else None
    return None if module is None else module.compose_gradients(function, arrays, cotangents, wanted)


def step(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """A composition that is to run many times on arrays of the same shapes; see `lowering/cpu/eager.py`. None where it
    has no program."""
    module = switch.module() if _is_real(arguments) else None
    return None if module is None else module.step(function, arguments)


def gradient_step(
    function: Callable[..., Any], arguments: Sequence[Any], cotangents: Sequence[Any], wanted: Sequence[int]
) -> Any:
    """The same of its gradients."""
    module = switch.module() if _is_real((*arguments, *cotangents)) else None
    return None if module is None else module.gradient_step(function, arguments, cotangents, wanted)


def _is_real(arrays: Sequence[Any]) -> bool:
    return not any([type(a) is _ndarray and a.dtype.num in _COMPLEX for a in arrays])
