"""Eager operators and derivative formulas on large operands: each is a small graph, compiled once for all sizes.

What was compiled is found by the operator, its attributes, and its operands' dtypes and pattern of sizes (which are 1,
which are equal). Operands of one shape that lie in the same order are taken as vectors, whatever their rank: one
program serves them all. Python numbers among operands are arguments of the program. `ops/native.py` decides what comes
here."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphtorch.autodiff.reverse import append_gradients
from graphtorch.autograd.rules import evaluate, fit
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph, Value
from graphtorch.ir.passes import default_pipeline
from graphtorch.lowering.backend import get_backend
from graphtorch.lowering.cpu.direct import DirectProgram
from graphtorch.lowering.cpu.instructions import RefusedError
from graphtorch.ops.dispatch import quiet
from graphtorch.ops.native import ONE_PASS
from graphtorch.ops.record import Operator, Parameter
from graphtorch.tensor import dtypes
from graphtorch.tensor.generator import Generator
from graphtorch.tensor.symint import SymbolScope
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType

logger = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]
_ndarray = np.ndarray
_KEPT = 4096  # calls that look different
PACKED = 64  # rows and columns of the smallest product over packed operands
_VARIANTS = 8  # of one call, where what is computed depends on relations of sizes

# A number beside their 16-bit floats keeps its digits, as in PyTorch's kernels; elsewhere it is rounded first.
_EXACT = frozenset(("addcdiv", "addcmul", "div", "lerp", "mul"))
# An exponent and a sum's factor are rounded; a sum with a factor is rounded once.
_ROUNDED = frozenset(("add", "pow", "rsub", "sub"))
# How they are computed depends on their sizes: each has a program of its own.
_BY_SIZE = frozenset(
    ("avg_pool2d", "avg_pool2d_backward", "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "max_pool2d_backward",
     "max_pool2d_with_indices")
)  # fmt: skip
# What they multiply by changes from call to call, as an optimizer's steps do.
_SCALED = frozenset(("add", "addcdiv", "addcmul", "rsub", "sub"))
# Their numbers decide what is computed.
_CONSTANTS = frozenset(("pow", "full", "arange"))


def available() -> bool:
    """Whether this machine can run native code."""
    return get_backend("cpu").unavailable() is None


class _Operands:
    """The arrays of a call as inputs of a program.

    key         what a program depends on
    given       the arrays that it gets, row by row
    sizes       the values of its symbols
    vectors     whether all arrays are vectors or have one element
    shape       with vectors: the shape of the results, in the order in which they lie
    order       with vectors: the dimensions in that order; None: as they are
    """

    __slots__ = ("given", "key", "known", "order", "shape", "sizes", "symbols", "vectors")

    def __init__(self, arrays: Sequence[Array]) -> None:
        self.order: tuple[int, ...] | None = None
        self.symbols: dict[int, int] = {}
        self.known: tuple[int, ...] = ()
        shape: tuple[int, ...] | None = None
        key: list[Any] = []
        for array in arrays:
            if array.ndim:
                if shape is None:
                    shape = array.shape
                elif array.shape != shape:
                    break
                if not array.flags.c_contiguous:
                    break
                key.append(array.dtype.num)
            else:
                key.append(-array.dtype.num - 1)
        else:
            if shape is not None:
                self.vectors = True
                self.shape: tuple[int, ...] = shape
                self.given: Sequence[Any] = arrays
                self.key: tuple[Any, ...] = tuple(key)
                count = 1
                for n in shape:
                    count *= n
                self.sizes: tuple[int, ...] = (count,)
                return
        if len({a.shape for a in arrays if a.ndim}) > 1 or not self._in_order(arrays):
            self._describe(arrays)

    @staticmethod
    def shaped(arrays: Sequence[Array], known: tuple[int, ...] = (), turned: bool = False) -> _Operands:
        """The arrays with their shapes, whatever these are. `known`: sizes that are no symbols; `turned`: transposed
        ones are taken as such, and not copied first."""
        made = object.__new__(_Operands)
        made.order, made.symbols, made.known = None, {}, known
        made._describe(arrays, turned)
        return made

    def _describe(self, arrays: Sequence[Array], turned: bool = False) -> None:
        """Take arrays as they are, but for expanded dimensions and gaps."""
        self.vectors = False
        key: list[Any] = []
        given: list[Array] = []
        for array in arrays:
            pattern = tuple([self._symbol(n) for n in array.shape])
            if turned and array.flags.f_contiguous and not array.flags.c_contiguous:
                key.append((array.dtype.num, pattern[::-1], _TURNED))
                array = array.T
            elif not array.flags.c_contiguous and 0 in array.strides:
                # What is expanded is read as often as needed instead of being copied.
                kept = array[tuple([slice(0, 1) if s == 0 else slice(None) for s in array.strides])]
                key.append((array.dtype.num, tuple([self._symbol(n) for n in kept.shape]), pattern))
                array = kept
            else:
                key.append((array.dtype.num, pattern, None))
            given.append(np.ascontiguousarray(array))
        self.key, self.given = tuple(key), given
        self.sizes = tuple(self.symbols)

    def _in_order(self, arrays: Sequence[Array]) -> bool:
        """Take arrays of one shape as vectors, if all lie without gaps in one order or have the same element
        everywhere."""
        first = next((a for a in arrays if a.ndim and any(a.strides)), None)
        if first is None or 0 in first.shape:
            return False
        order = None
        if not first.flags.c_contiguous:
            order = tuple(sorted(range(first.ndim), key=lambda d: -first.strides[d]))
        key: list[Any] = []
        given: list[Array] = []
        for array in arrays:
            if not array.ndim:
                key.append(-array.dtype.num - 1)
                given.append(array)
                continue
            if not any(array.strides):
                key.append((array.dtype.num,))
                given.append(array[(0,) * array.ndim].reshape(1))
                continue
            turned = array if order is None else array.transpose(order)
            if not turned.flags.c_contiguous:
                return False
            key.append(array.dtype.num)
            given.append(turned)
        self.vectors, self.order = True, order
        self.shape = first.shape if order is None else tuple([first.shape[d] for d in order])
        self.key, self.given, self.sizes = tuple(key), given, (first.size,)
        return True

    def _symbol(self, size: int) -> int:
        """0, 1 and known sizes as they are, -1, -2, ... for others in the order in which they come."""
        return size if size < 2 or size in self.known else self.symbols.setdefault(size, -1 - len(self.symbols))

    def pattern(self, shape: Sequence[int]) -> tuple[int, ...] | None:
        """The pattern of a further shape, which is not an operand's. With vectors: of one that is theirs or has no
        dimensions; None for others."""
        if not self.vectors:
            return tuple([self._symbol(n) for n in shape])
        if not len(shape):
            return ()
        own = self.shape if self.order is None else tuple([self.shape[self.order.index(d)] for d in range(len(shape))])
        return (-1,) if tuple(shape) == own else None

    def results(self, shapes: Sequence[tuple[int, ...]], elements: Sequence[Any]) -> tuple[list[Array], list[Array]]:
        """New arrays for results: as the program sees them, and as the caller does."""
        if not self.vectors:
            made = [np.empty(shape, d) for shape, d in zip(shapes, elements, strict=True)]
            return made, made
        made = [np.empty(self.shape if shape else (), d) for shape, d in zip(shapes, elements, strict=True)]
        if self.order is None:
            return made, made
        inverse = np.argsort(self.order)
        return made, [m.transpose(inverse) if m.ndim else m for m in made]


_MADE, _NOTHING = -1, -2  # results that the program makes, and such as there are none


_TURNED = "turned"  # an operand whose dimensions are in reverse order


def _seen(tensor: Tensor, full: Any) -> Tensor:
    """An input as the call has it: expanded or transposed."""
    if full is None:
        return tensor
    found: Tensor = tensor.permute(tuple(range(tensor.ndim))[::-1]) if full is _TURNED else tensor.expand(full)
    return found


class _LightError(Exception):
    """NumPy does it as well."""


class _Program:
    """A compiled call.

    passed      for each result, the operand that it is, or one of `_MADE` and `_NOTHING`
    constants   the last inputs
    """

    __slots__ = ("constants", "direct", "passed")

    def __init__(self, direct: DirectProgram | None, passed: Sequence[int], constants: Sequence[Array]) -> None:
        self.constants = constants
        self.direct = direct
        self.passed = passed


_Build = Callable[["SymbolScope | None"], "_Program | None"]
_programs: dict[tuple[Any, ...], list[tuple[SymbolScope | None, _Program]] | None] = {}
_chosen: dict[tuple[Any, tuple[int, ...]], _Program | None] = {}  # of a key and sizes, once guards have been asked
_NEVER: list[tuple[SymbolScope | None, _Program]] = []  # of calls that have no program
_lock = threading.RLock()


def _constant(value: Any) -> Any:
    """An attribute as a part of a key: equal parts mean the same program."""
    if type(value) is float and (value == 0 or value != value):
        return float, repr(value)
    if type(value) is tuple:
        return tuple([_constant(v) for v in value])
    return type(value), value


def _find(key: tuple[Any, ...], operands: _Operands, build: _Build, symbolic: bool = True) -> _Program | None:
    """The program for a key, compiled if need be; None where there is none.

    One program serves all sizes. Where the operator has no such form, or not `symbolic`, each combination has its own.
    """
    try:
        return _chosen[key, operands.sizes]
    except KeyError:
        pass
    except TypeError:  # an attribute that is no key
        return None
    if len(_chosen) >= _KEPT:
        _chosen.clear()
    with quiet.nested():  # operators may be called
        found = _chosen[key, operands.sizes] = _choose(key, operands, build, symbolic)
    return found


def _choose(key: tuple[Any, ...], operands: _Operands, build: _Build, symbolic: bool) -> _Program | None:
    sizes = operands.sizes
    known = _programs.get(key, ())
    if known is None or not (symbolic or known is _NEVER):
        known = _programs.get((key, sizes)) or ()
    for scope, program in known:
        if scope is None or not scope.guards:
            return program
        bindings = {f"s{i}": n for i, n in enumerate(sizes)}
        if all(g.holds(bindings) for g in scope.guards):
            return program
    if known is _NEVER:
        return None
    with _lock:
        if len(_programs) >= _KEPT:
            _programs.clear()
        if symbolic and _programs.get(key, ()) is not None:
            scope = SymbolScope()
            for i, n in enumerate(sizes):
                scope.symbol(hint=n, name=f"s{i}")
            try:
                made = _compiled(key, operands, build, scope)
            except _LightError:
                _programs[key] = _NEVER
                return None
            if made is not None and len(known) < _VARIANTS:
                _programs[key] = [*known, (scope, made)]
                return made
            _programs[key] = None
        made = _compiled(key, operands, build, None)
        if made is None:
            _programs[key] = _NEVER
        else:
            _programs[key, sizes] = [(None, made)]
        return made


def _compiled(key: tuple[Any, ...], operands: _Operands, build: _Build, scope: SymbolScope | None) -> _Program | None:
    """A new program, for the sizes of the operands or, with a scope, for others too."""
    try:
        made = build(scope)
        if made is not None and made.direct is not None:
            made.direct.bound(operands.sizes)
    except _LightError:
        raise
    except Exception as error:  # whatever the reason: NumPy does it, or says what is wrong
        logger.debug("%s has no program: %s", key[0], error)
        return None
    return made


class _Builder:
    """Makes the graph of a call: inputs for its arrays and numbers."""

    def __init__(
        self,
        name: str,
        operands: _Operands,
        numbers: int,
        scope: SymbolScope | None,
        recorder: Callable[[Graph], GraphBuilder] = GraphBuilder,
    ) -> None:
        self.graph = Graph(name)
        self.symbols = operands.sizes if scope is None else [scope.symbols[f"s{i}"] for i in range(len(operands.sizes))]
        self.operands = operands
        self.builder = recorder(self.graph)
        types = [self._type(entry) for entry in operands.key]
        inputs = [self.graph.add_input(t, f"x{i}") for i, (t, _) in enumerate(types)]
        self.inputs = list(inputs)
        self.constants: list[Array] = []
        of = [
            self.graph.add_input(TensorType(dtypes.float64, (), is_number=True), f"number{i}", "number")
            for i in range(numbers)
        ]
        with self.builder:
            self.arrays: list[Any] = [_seen(wrap(v), full) for v, (_, full) in zip(inputs, types, strict=True)]
            self.numbers = [wrap(v) for v in of]

    def shape(self, pattern: Sequence[int]) -> tuple[Any, ...]:
        """The shape of a pattern, with symbols for its sizes."""
        return tuple([n if n >= 0 else self.symbols[-1 - n] for n in pattern])

    def _type(self, entry: Any) -> tuple[TensorType, Any]:
        """The input of an entry of the key, and the shape to which it is expanded, or `_TURNED`."""
        if type(entry) is int:
            d, shape = (entry, (-1,)) if entry >= 0 else (-1 - entry, ())
            return TensorType(_dtype(d), self.shape(shape)), None
        if len(entry) == 1:
            return TensorType(_dtype(entry[0]), (1,)), self.shape((-1,))
        d, shape, full = entry
        return TensorType(_dtype(d), self.shape(shape)), self.shape(full) if type(full) is tuple else full

    def finish(self, results: Sequence[Any], onto: int | None = None, draws: bool = False) -> _Program | None:
        """Compile. `results` are tensors of the graph; `onto`: the input whose memory the only result takes; `draws`:
        whether there are random numbers."""
        values = [None if r is None else self.builder.value_of(r) for r in results]
        passed = [_NOTHING if v is None else self.inputs.index(v) if v in self.inputs else _MADE for v in values]
        for value in values:
            if value is not None and value not in self.inputs:
                self.graph.add_output(value)
        direct = None
        if isinstance(self.builder, _Recorder):
            self.constants = [array for _, array in self.builder.constants.values()]
        if self.graph.outputs:
            graph = default_pipeline(False).run(self.graph)
            direct = DirectProgram(graph, None if onto is None else {0: onto}, draws)
        return _Program(direct, passed, self.constants)


def _dtype(number: int) -> dtypes.dtype:
    return _BY_NUMBER[number]


_BY_NUMBER: dict[int, dtypes.dtype] = {np.dtype(d.numpy).num: d for d in dtypes.ALL_DTYPES}


def _launch(program: _Program, operands: _Operands, numbers: Sequence[float]) -> list[Array]:
    """The results of a program that makes all of them."""
    direct = program.direct
    assert direct is not None
    bound = direct.bound(operands.sizes)
    own, seen = operands.results(bound.shapes, direct.dtypes)
    if any(bound.views):
        seen = [a if v is None else as_strided(a, *v) for a, v in zip(own, bound.views, strict=True)]
    bound.run([*operands.given, *program.constants] if program.constants else operands.given, numbers, own)
    return seen


# -- operators --------------------------------------------------------------------------------------------------------


def _varies(op: Operator, parameter: Parameter, number: float) -> bool:
    """Whether a number of a call is an argument of its program, and no part of it."""
    if parameter.kind == "Number":
        return op.name in _SCALED and number != 1
    return parameter.kind == "Tensor|Number" and op.name not in _CONSTANTS


def _template(op: Operator, arguments: Sequence[Any]) -> tuple[tuple[Any, ...], list[Array], list[float]] | None:
    """What a call looks like without its data, its arrays, and its numbers that may change from call to call."""
    arrays: list[Array] = []
    numbers: list[float] = []
    parts: list[Any] = [op]
    for parameter, value in zip(op.parameters, arguments, strict=True):
        kind = type(value)
        if kind is _ndarray:
            arrays.append(value)
            parts.append(None)
        elif kind is float and _varies(op, parameter, value):
            numbers.append(value)
            parts.append(float)
        elif kind is tuple and op.has_list_operands and parameter.is_operand:
            found = [v for v in value if v is not None]
            if any(type(v) is not _ndarray for v in found):
                return None
            arrays += found
            parts.append(tuple([v is None for v in value]))
        else:
            parts.append(_constant(value))
    return tuple(parts), arrays, numbers


def _call(op: Operator, arguments: Sequence[Any], made: _Builder) -> Any:
    """The operator on the inputs of a graph, its attributes as they are."""
    arrays, numbers = iter(made.arrays), iter(made.numbers)
    filled = []
    for parameter, value in zip(op.parameters, arguments, strict=True):
        if type(value) is _ndarray:
            filled.append(next(arrays))
        elif type(value) is float and _varies(op, parameter, value):
            filled.append(next(numbers))
        elif type(value) is tuple and parameter.is_operand:
            filled.append(tuple([None if v is None else next(arrays) for v in value]))
        else:
            filled.append(value)
    with made.builder:
        is_sum = op.name in _ROUNDED and op.name != "pow" and arguments[2] != 1
        if (is_sum or (made.numbers and op.name in _EXACT)) and any(a.dtype.itemsize == 2 for a in made.arrays):
            wide = [a.to(dtypes.float32) if isinstance(a, Tensor) and not a.is_number else a for a in filled]
            return made.builder.call(op, tuple(wide)).to(made.arrays[0].dtype)
        return made.builder.call(op, tuple(filled))


def _rounded(op: Operator, arguments: Sequence[Any]) -> list[Any]:
    """The arguments with the number that is rounded first rounded to the 16-bit type of the arrays."""
    place = 1 if op.name == "pow" else 2
    own = next((a.dtype for a in arguments if type(a) is _ndarray), None)
    found = list(arguments)
    if own is not None and own.itemsize == 2 and own.kind not in "iu" and type(found[place]) is float:
        found[place] = float(np.asarray(found[place]).astype(own))
    return found


def _is_packed(a: Array, b: Array) -> bool:
    """Whether a product is made over packed operands, for which the size of the second one, a weight's mostly, has to
    be known when it is compiled (`packed.py`)."""
    return a.flags.c_contiguous and min(a.shape[0], *b.shape) >= PACKED


def run(op: Operator, arguments: list[Any]) -> Any:
    """The results of an operator as new arrays, a tuple where it has several; None where it has no program."""
    if op.name in _ROUNDED:
        arguments = _rounded(op, arguments)
    template = _template(op, arguments)
    if template is None:
        return None
    parts, arrays, numbers = template
    operands = _Operands(arrays)
    if op.name == "mm":
        operands = _Operands.shaped(arrays, arrays[1].shape if _is_packed(*arrays) else (), turned=True)
    elif operands.vectors and op.kind != "pointwise":
        operands = _Operands.shaped(arrays)
    key = (parts, operands.key, operands.vectors, dtypes.get_default_dtype())

    def build(scope: SymbolScope | None) -> _Program | None:
        made = _Builder(op.name, operands, len(numbers), scope)
        results = _call(op, arguments, made)
        program = made.finish(results if isinstance(results, tuple) else (results,))
        if program is None or any(p >= 0 for p in program.passed):
            raise RefusedError("a result that is an operand")
        return program

    program = _find(key, operands, build, op.name not in _BY_SIZE)
    if program is None:
        return None
    found = _launch(program, operands, numbers)
    return found[0] if len(found) == 1 else tuple(found)


def update(op: Operator, arguments: list[Any]) -> bool:
    """Write the result over the first operand; False, with nothing written, where that can't be done."""
    template = _template(op, arguments)
    if template is None or op.kind != "pointwise":
        return False
    parts, arrays, numbers = template
    target = arguments[0]
    operands = _Operands(arrays)
    if not operands.vectors or type(operands.key[0]) is not int or operands.key[0] < 0 or not target.flags.writeable:
        return False
    for other in arrays[1:]:
        if other is not target and np.may_share_memory(target, other):
            return False
    key = (parts, operands.key, "update", dtypes.get_default_dtype())

    def build(scope: SymbolScope | None) -> _Program | None:
        made = _Builder(op.name, operands, len(numbers), scope)
        result = _call(op, arguments, made)
        if result.dtype.numpy != target.dtype or isinstance(result, tuple):
            raise RefusedError("a result of another dtype")
        return made.finish((result,), 0)

    program = _find(key, operands, build)
    if program is None or program.direct is None:
        return False
    program.direct.bound(operands.sizes).run(operands.given, numbers, ())
    return True


def draw(op: Operator, arguments: Sequence[Any], at: int, shape: tuple[int, ...], generator: Generator) -> Any:
    """The numbers of a random operator; None where it has no program.

    Its last argument says which generator; at position `at` it has a size, or an array whose size it is.
    """
    sized = arguments[at]
    is_operand = type(sized) is _ndarray
    operands = _Operands([sized] if is_operand else [])
    if not is_operand:
        operands.vectors, operands.shape, operands.sizes = True, shape, (math.prod(shape),)
    elif not operands.vectors or operands.order is not None or type(operands.key[0]) is not int:
        return None
    key = (op, *(_constant(a) for i, a in enumerate(arguments[:-1]) if i != at), operands.key)

    def build(scope: SymbolScope | None) -> _Program | None:
        made = _Builder(op.name, operands, 0, scope)
        filled, n = [*arguments[:-1], None], made.symbols[0]
        filled[at] = made.arrays[0] if is_operand else (n,) if isinstance(sized, tuple | list) else n
        with made.builder:
            return made.finish([made.builder.call(op, tuple(filled))], draws=True)

    program = _find(key, operands, build)
    if program is None or program.direct is None:
        return None
    found = np.empty(shape, program.direct.dtypes[0])
    with generator.drawing():
        program.direct.bound(operands.sizes).run(operands.given, (), [found], generator)
    return found


# -- derivatives ------------------------------------------------------------------------------------------------------


def gradients(
    op: Operator,
    differentiated: tuple[str, ...],
    known: dict[str, Any],
    cotangents: Sequence[Any],
    targets: Sequence[tuple[str, TensorType]],
) -> list[Any] | None:
    """The gradients of a recorded call, as arrays; None where they have no program.

    `known` holds what the formulas need beside cotangents: arrays, attributes and types by name. `targets` are the
    operands that get a gradient, none of them a list: name and type. A gradient that is
    a cotangent as it came is that very array.
    """
    arrays: list[Array] = []
    parts: list[Any] = [op, differentiated]
    types: list[tuple[str, TensorType]] = []
    for name, value in known.items():
        if type(value) is _ndarray:
            arrays.append(value)
            parts.append(name)
        elif type(value) is TensorType:
            types.append((name, value))
        else:
            parts.append((name, _constant(value)))
    for value in cotangents:
        parts.append(value is None)
        if value is not None:
            arrays.append(value)
    operands = _Operands(arrays)
    if operands.vectors and op.kind != "pointwise":
        operands = _Operands.shaped(arrays)
    patterns = [operands.pattern(t.shape) for _, t in types] + [operands.pattern(t.shape) for _, t in targets]
    if None in patterns:
        operands = _Operands.shaped(arrays)
        patterns = [operands.pattern(t.shape) for _, t in types] + [operands.pattern(t.shape) for _, t in targets]
    if not operands.vectors:
        operands.sizes = tuple(operands.symbols)
    described = [(n, t.dtype, t.is_number) for n, t in types] + [(n, t.dtype) for n, t in targets]
    key = (*parts, tuple(described), tuple(patterns), operands.key, operands.vectors, dtypes.get_default_dtype())

    def build(scope: SymbolScope | None) -> _Program | None:
        made = _Builder(f"{op.name}_backward", operands, 0, scope)
        shapes = [made.shape(p) for p in patterns if p is not None]
        rest = iter(made.arrays)
        values = {n: next(rest) if type(v) is _ndarray else v for n, v in known.items()}
        for (name, of), shape in zip(types, shapes, strict=False):
            values[name] = TensorType(of.dtype, shape, of.device, of.is_number)
        flowing = [None if c is None else next(rest) for c in cotangents]
        with made.builder:
            results = []
            found = {name: evaluate(op.derivative[name], op, flowing, values.__getitem__) for name in differentiated}
            for (name, of), shape in zip(targets, shapes[len(types) :], strict=True):
                results.append(fit(found[name], TensorType(of.dtype, shape, of.device, of.is_number)))
        if any(not isinstance(r, Tensor) for r in results) or _is_light(made.graph):
            raise _LightError
        return made.finish(results)

    program = _find(key, operands, build)
    if program is None or program.direct is None:
        return None
    made = iter(_launch(program, operands, ()))
    return [next(made) if place == _MADE else arrays[place] for place in program.passed]


def _is_light(graph: Graph) -> bool:
    """Whether NumPy, or the operators' own native forms, compute a graph as fast node by node."""
    heavy = [n for n in graph.nodes if n.op.kind not in ("view", "source")]
    if len(heavy) <= 1:
        return True
    simple = all(n.op.name in ONE_PASS and all(o.type.dtype.itemsize > 2 for o in n.operands()) for n in heavy)
    return simple and len(heavy) < len(graph.inputs)


# -- compositions -----------------------------------------------------------------------------------------------------


class _Recorder(GraphBuilder):
    """Records a composition. Tensors that it makes from NumPy's arrays are constants of the program."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.constants: dict[int, tuple[Value, Any]] = {}

    def value_of(self, tensor: Tensor) -> Value:
        data = tensor._data
        if type(data) is not _ndarray:
            return super().value_of(tensor)
        if id(data) not in self.constants:
            value = self.graph.add_input(TensorType(tensor._dtype, data.shape), f"c{len(self.constants)}", "constant")
            self.constants[id(data)] = value, np.ascontiguousarray(data)
        return self.constants[id(data)][0]


def _composed(
    function: Callable[..., Any], arguments: Sequence[Any], operands: _Operands, scope: SymbolScope | None
) -> tuple[_Builder, list[Any], list[Any]]:
    """A graph of a composition: its builder, the arguments, and the results."""
    made = _Builder(function.__name__, operands, 0, scope, _Recorder)
    arrays = iter(made.arrays)
    given = [next(arrays) if type(a) is _ndarray else a for a in arguments]
    with made.builder:
        results = function(*given)
    return made, given, list(results) if isinstance(results, tuple) else [results]


def _composition_key(function: Any, arguments: Sequence[Any], operands: _Operands, *more: Any) -> tuple[Any, ...]:
    attributes = tuple([None if type(a) is _ndarray else _constant(a) for a in arguments])
    return (function, attributes, operands.key, dtypes.get_default_dtype(), *more)


def _composition(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[_Program | None, _Operands]:
    """The program of a composition, and its operands."""
    operands = _Operands.shaped([a for a in arguments if type(a) is _ndarray])

    def build(scope: SymbolScope | None) -> _Program | None:
        made, _, results = _composed(function, arguments, operands, scope)
        program = made.finish(results)
        if program is None or any(p >= 0 for p in program.passed):
            raise RefusedError("a result that is an operand")
        return program

    return _find(_composition_key(function, arguments, operands), operands, build), operands


def compose(function: Callable[..., Any], arguments: Sequence[Any]) -> list[Array] | None:
    """The results of a composition of operators as new arrays; None where it has no program."""
    program, operands = _composition(function, arguments)
    found = None if program is None else _launch(program, operands, ())
    return None if found is None else [a if a.flags.c_contiguous else a.copy() for a in found]


def _composition_gradients(
    function: Callable[..., Any], arguments: Sequence[Any], cotangents: Sequence[Any], wanted: Sequence[int]
) -> tuple[_Program | None, _Operands]:
    """The program for a composition's gradients, and its operands: the arguments, then the cotangents."""
    arrays = [a for a in arguments if type(a) is _ndarray]
    operands = _Operands.shaped([*arrays, *(c for c in cotangents if c is not None)])
    flows = tuple([c is not None for c in cotangents])

    def build(scope: SymbolScope | None) -> _Program | None:
        made = _Builder(f"{function.__name__}_backward", operands, 0, scope, _Recorder)
        rest = iter(made.arrays)
        given = [next(rest) if type(a) is _ndarray else a for a in arguments]
        seeds = [next(rest) for c in cotangents if c is not None]
        with made.builder:
            made_results = function(*given)
            results = made_results if isinstance(made_results, tuple) else (made_results,)
            outputs = [made.builder.value_of(r) for r, flow in zip(results, flows, strict=True) if flow]
            of = [made.builder.value_of(s) for s in seeds]
            inputs = [made.builder.value_of(given[i]) for i in wanted]
        found = append_gradients(made.graph, outputs, of, inputs, made.builder)
        with made.builder:
            return made.finish([None if v is None else wrap(v) for v in found])

    return _find(_composition_key(function, arguments, operands, flows, tuple(wanted)), operands, build), operands


def compose_gradients(
    function: Callable[..., Any], arguments: Sequence[Any], cotangents: Sequence[Any], wanted: Sequence[int]
) -> list[Array | None] | None:
    """The gradients of the arguments at the positions `wanted`; None where they have no program.

    Those that the results with cotangents do not depend on are None."""
    program, operands = _composition_gradients(function, arguments, cotangents, wanted)
    if program is None or program.direct is None:
        return None
    made = iter(_launch(program, operands, ()))
    return [next(made) if p == _MADE else None if p == _NOTHING else operands.given[p] for p in program.passed]


# -- compositions that run again and again ----------------------------------------------------------------------------

Step = Callable[[Sequence[Any], Sequence[Array]], None]


def step(function: Callable[..., Any], arguments: Sequence[Any]) -> Step | None:
    """A composition for arrays of the very shapes and dtypes of those among the arguments: called with such arrays and
    with those that take the results, all of which lie row by row. None where it has no program."""
    return _step(*_composition(function, arguments))


def gradient_step(
    function: Callable[..., Any], arguments: Sequence[Any], cotangents: Sequence[Any], wanted: Sequence[int]
) -> Step | None:
    """The same of its gradients: called with the arrays among the arguments and the cotangents. None too where a
    gradient is no array of its own."""
    return _step(*_composition_gradients(function, arguments, cotangents, wanted))


def _step(program: _Program | None, operands: _Operands) -> Step | None:
    if program is None or program.direct is None or any(p != _MADE for p in program.passed):
        return None
    bound = program.direct.bound(operands.sizes)
    if any(v is not None for v in bound.views) or any(full is not None for _, _, full in operands.key):
        return None
    run, constants = bound.run, program.constants
    if constants:
        return lambda arrays, results: run([*arrays, *constants], (), results)
    return lambda arrays, results: run(arrays, (), results)
