"""The Kernel: a loop nest over an iteration space, and what every backend lowers.

    Kernel      axes, and stores of scalar expressions
    Axis        one loop: its size, and whether it is parallel or a reduction
    Buffer      a contiguous block of memory of one dtype
    Access      an affine index into a buffer: offset + sum of stride * axis index, in elements
    Expr        Load | Constant | Index | Compute | Reduce: a DAG of scalar expressions, shared by identity

Semantics: for every point of the iteration space each expression has one value. A `Reduce` folds its operand over some
of the kernel's reduction axes and is constant along them, so an expression after it may use it at every point again
(softmax is one kernel: load, max, subtract, exp, sum, divide). A store whose access has stride 0 along a reduction axis
stores a value that is constant along it. Views have no kernel: they are the strides and offsets of accesses.

An `ExternCall` is an operator that runs as a call of its own (a matrix product, a convolution, a sort). A `Schedule` is
the list of kernels and calls that computes a graph. Sizes, strides and offsets are ints or symbolic dimensions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from graphtorch.ir.graph import Node, Value
from graphtorch.ops.record import Operator
from graphtorch.tensor.dtypes import dtype


@dataclass(frozen=True, slots=True)
class Axis:
    """One loop of a kernel. Reduction axes come after the parallel ones."""

    name: str
    size: Any
    reduction: bool = False


@dataclass(eq=False, slots=True)
class Buffer:
    """Contiguous memory of `shape` in row-major order.

    `kind` is "input" (a graph input, in the caller's own strides: see `Schedule`), "output" (returned to the caller),
    or "temporary" (planned into the arena). `value` is the IR value that it holds. A number (TensorType.is_number) is a
    buffer of shape ()."""

    name: str
    dtype: dtype
    shape: tuple[Any, ...]
    kind: str
    value: Value


@dataclass(frozen=True, slots=True)
class Access:
    """`buffer[offset + sum(strides[i] * axis_i)]`, one stride a kernel axis, in elements of the contiguous buffer."""

    buffer: Buffer
    offset: Any
    strides: tuple[Any, ...]


class Expr:
    """A scalar expression at a point of the iteration space. Shared subexpressions are the same object."""

    __slots__ = ("dtype",)

    dtype: dtype

    def operands(self) -> tuple[Expr, ...]:
        return ()


class Load(Expr):
    """The element of a buffer at an access."""

    __slots__ = ("access",)

    def __init__(self, access: Access) -> None:
        self.access = access
        self.dtype = access.buffer.dtype


class Constant(Expr):
    """A Python number of a dtype."""

    __slots__ = ("value",)

    def __init__(self, value: Any, of: dtype) -> None:
        self.value = value
        self.dtype = of


class Index(Expr):
    """An affine function of the axis indices as a value (what `arange` and triangular masks are made of)."""

    __slots__ = ("offset", "strides")

    def __init__(self, offset: Any, strides: tuple[Any, ...], of: dtype) -> None:
        self.offset = offset
        self.strides = strides
        self.dtype = of


class Compute(Expr):
    """A scalar instruction on operands of the dtypes that it computes in.

    `instruction` is the `scalar` name of a pointwise operator record, or "cast" (to this expression's dtype). `node` is
    the IR node it came from, for reports and source comments."""

    __slots__ = ("arguments", "instruction", "node")

    def __init__(self, instruction: str, arguments: tuple[Expr, ...], of: dtype, node: Node | None = None) -> None:
        self.instruction = instruction
        self.arguments = arguments
        self.dtype = of
        self.node = node

    def operands(self) -> tuple[Expr, ...]:
        return self.arguments


class Reduce(Expr):
    """A fold over reduction axes: `combine` is sum, prod, max, min, any, all, argmax or argmin.

    `axes` are positions in the kernel's axes. Sums of float16 and bfloat16 accumulate in float32. argmax and argmin
    give the position in row-major order of the reduced axes, the first where several tie; max and min propagate NaN.
    """

    __slots__ = ("axes", "combine", "node", "operand")

    def __init__(self, combine: str, operand: Expr, axes: tuple[int, ...], of: dtype, node: Node | None = None) -> None:
        self.combine = combine
        self.operand = operand
        self.axes = axes
        self.dtype = of
        self.node = node

    def operands(self) -> tuple[Expr, ...]:
        return (self.operand,)


@dataclass(eq=False, slots=True)
class Store:
    """Write an expression through an access. `accumulate` is reserved for scatter kernels: False here."""

    access: Access
    value: Expr


@dataclass(eq=False, slots=True)
class Kernel:
    """A fused loop nest. `nodes` are the primitive nodes it computes, in order; `reasons` says why each joined."""

    name: str
    axes: tuple[Axis, ...]
    stores: list[Store]
    nodes: list[Node] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    _exprs: tuple[Expr, ...] | None = field(default=None, init=False, repr=False)  # a kernel stays as it was built
    _reads: list[Buffer] | None = field(default=None, init=False, repr=False)

    def exprs(self) -> tuple[Expr, ...]:
        """Every expression that it computes after its operands, each once."""
        if self._exprs is None:
            self._exprs = tuple(post_order([s.value for s in self.stores]))
        return self._exprs

    def reads(self) -> list[Buffer]:
        """The buffers loaded, each once, in order of first use."""
        if self._reads is None:
            loads = [e.access.buffer for e in self.exprs() if isinstance(e, Load)]
            self._reads = list({id(b): b for b in loads}.values())
        return self._reads

    def writes(self) -> list[Buffer]:
        """The buffers stored to."""
        return [s.access.buffer for s in self.stores]


def post_order(roots: Iterable[Expr], stop: frozenset[int] = frozenset()) -> list[Expr]:
    """Every expression after its operands, each once; those in `stop` (by identity) are left out, with what only they
    need."""
    done: set[int] = set(stop)
    order: list[Expr] = []
    for root in roots:
        stack = [root]
        while stack:
            expr = stack[-1]
            key = id(expr)
            if key in done:
                stack.pop()
                continue
            height = len(stack)
            for operand in expr.operands()[::-1]:
                if id(operand) not in done:
                    stack.append(operand)
            if len(stack) == height:
                stack.pop()
                done.add(key)
                order.append(expr)
    return order


@dataclass(eq=False, slots=True)
class ExternCall:
    """An operator that runs as one call on whole buffers.

    `args` follows the operator's parameters: a `View` where it takes a tensor, a tuple of them for a list, constants
    elsewhere."""

    name: str
    op: Operator
    args: tuple[Any, ...]
    outputs: tuple[Buffer | None, ...]  # None: a result that nobody uses
    nodes: list[Node] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    accumulate: bool = False  # its one result is added to what the buffer holds

    def reads(self) -> list[Buffer]:
        found: dict[int, Buffer] = {id(b): b for b in self.outputs if b is not None} if self.accumulate else {}
        for arg in self.args:
            for item in arg if type(arg) is tuple else (arg,):
                if isinstance(item, View):
                    found.setdefault(id(item.buffer), item.buffer)
        return list(found.values())

    def writes(self) -> list[Buffer]:
        return [o for o in self.outputs if o is not None]


@dataclass(frozen=True, slots=True)
class View:
    """A strided view of a buffer as an operand of an ExternCall; strides and offset in elements."""

    buffer: Buffer
    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    offset: Any = 0


@dataclass(eq=False)
class Schedule:
    """Kernels and calls in execution order, for one graph.

    inputs     one Buffer a graph input. At run time an input array may have any strides; an executor that needs the
               contiguous form that accesses describe copies it first.
    outputs    one View a graph output: of an output buffer, of an input (an output that is an input or a view of one),
               or shared by several.
    report     one line a decision: which nodes fused, and why two neighbours did not.
    states     what a run changes beside the graph's values even if no step reads it (a random stream moves on where
               nobody uses what was drawn); made by a backend's own passes.
    """

    steps: list[Kernel | ExternCall]
    inputs: list[Buffer]
    outputs: list[View]
    report: list[str] = field(default_factory=list)
    primitive_count: int = 0
    states: tuple[Buffer, ...] = ()

    @property
    def kernels(self) -> list[Kernel]:
        return [s for s in self.steps if isinstance(s, Kernel)]
