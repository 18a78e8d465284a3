"""The eager tape: nodes, edges, saved values.

A node stands for one recorded operator call and maps the cotangents of its results to those of its operands. Nodes
number themselves in the order of recording; the engine visits them in the reverse of it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from graphtorch.autograd import replay
from graphtorch.autograd.rules import evaluate, fit, saved_names
from graphtorch.autograd.state import modes_entered, state
from graphtorch.ops import native
from graphtorch.ops.record import Operator
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

_sequence = itertools.count()
F = TypeVar("F", bound=Callable[..., Any])

FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already "
    "been freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). "
    "Specify retain_graph=True if you need to backward through the graph a second time or if you need to access saved "
    "tensors after calling backward."
)


class Edge(NamedTuple):
    """Where an operand's cotangent goes: a node and the index of that node's result."""

    node: Node
    place: int


class Node:
    """One step of the backward graph. See torch.autograd.graph.Node."""

    __slots__ = ("__weakref__", "edges", "hooks", "metadata", "prehooks", "sequence", "tensor_hooks")

    stands_for_many = False  # nodes of eager execution, not all of which a backward pass through this one reaches

    def __init__(self, edges: Sequence[Edge | None]) -> None:
        self.edges: tuple[Edge | None, ...] = tuple(edges)
        self.sequence = next(_sequence)
        self.hooks: dict[int, Callable[..., Any]] | None = None
        self.prehooks: dict[int, Callable[..., Any]] | None = None
        # result index -> hooks of the tensor that is that result
        self.tensor_hooks: dict[int, dict[int, Callable[[Tensor], Tensor | None]]] | None = None
        self.metadata: dict[Any, Any] = {}

    def name(self) -> str:
        """PyTorch's name of the node, such as `MulBackward0`."""
        return type(self).__name__

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """The nodes that receive this node's cotangents."""
        return tuple((None, 0) if e is None else (e.node, e.place) for e in self.edges)

    def result_count(self) -> int:
        """How many results the forward call had."""
        return 1

    def apply(self, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """The operands' cotangents, one an edge."""
        raise RuntimeError(f"{self.name()} has no derivative")

    def release(self) -> None:
        """Free what was saved; a later `apply` raises."""

    def register_hook(self, hook: Callable[..., Any]) -> Any:
        """Call `hook(grad_inputs, grad_outputs)` after this node ran."""
        from graphtorch.autograd.hooks import add

        if self.hooks is None:
            self.hooks = {}
        return add(self.hooks, hook)

    def register_prehook(self, hook: Callable[..., Any]) -> Any:
        """Call `hook(grad_outputs)` before this node runs."""
        from graphtorch.autograd.hooks import add

        if self.prehooks is None:
            self.prehooks = {}
        return add(self.prehooks, hook)

    def __repr__(self) -> str:
        return f"<{self.name().rpartition(':')[2]} object at {hex(id(self))}>"


class AccumulateGrad(Node):
    """The sink of a leaf: adds into its `.grad`."""

    __slots__ = ("edge", "variable")

    def name(self) -> str:
        return "torch::autograd::AccumulateGrad"

    def __init__(self, variable: Tensor) -> None:
        super().__init__(())
        self.variable = variable
        self.edge = Edge(self, 0)
        # PyTorch runs accumulation as soon as the gradient is complete, ahead of earlier operators.
        self.sequence = 1 << 62


class SavedTensor:
    """A value kept for the backward pass, with the version it must still have then; or, under `saved_tensors_hooks`,
    what the user keeps instead of it."""

    __slots__ = ("index", "packed", "tensor", "version")

    def __init__(self, tensor: Tensor, index: int = -1) -> None:
        self.packed: _Packed | None = None
        if tensor._inference:
            raise RuntimeError(
                "Inference tensors cannot be saved for backward. Please do not use Tensors created in inference mode "
                "in computation tracked by autograd. To work around this, you can make a clone to get a normal tensor "
                "and use it in autograd, or use `torch.no_grad()` instead of `torch.inference_mode()`."
            )
        if state.saved_hooks is not None:
            self.packed = _Packed(tensor, index, *state.saved_hooks)
            self.index = index
            return
        # A node's own result is kept as an alias outside the graph: node and result would otherwise keep each other
        # alive.
        self.tensor = tensor._alias() if index >= 0 else tensor
        self.index = index
        self.version = tensor._version

    def unpack(self, node: Node, owner: str) -> Tensor:
        """The value; RuntimeError if it was changed in place since."""
        if self.packed is not None:
            return self.packed.unpack(node)
        tensor = self.tensor
        if tensor._version != self.version:
            kind = tensor._dtype.name
            place = self.index if self.index >= 0 else tensor._output_index
            made_by = f", which is output {place} of {_without_suffix(owner)}," if owner else ""
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"[torch.{_LEGACY_NAMES.get(kind, kind)} {list(tensor.shape)}]{made_by} is at version "
                f"{tensor._version}; expected version {self.version} instead. Hint: enable anomaly detection to find "
                "the operation that failed to compute its gradient, with torch.autograd.set_detect_anomaly(True, "
                "check_nan=False)."
            )
        if self.index < 0:
            return tensor
        result = tensor._alias()
        result._node = node
        result._output_index = self.index
        result._requires_grad = True
        return result


class _Packed:
    """What a pack hook gave for a saved value, and the value's place on the tape."""

    __slots__ = ("accumulator", "content", "node", "output_index", "requires_grad", "unpack_hook")

    def __init__(self, tensor: Tensor, index: int, pack: Callable[[Tensor], Any], unpack: Callable[[Any], Any]) -> None:
        edge = edge_of(tensor) if index < 0 and tensor.requires_grad else None
        self.requires_grad = edge is not None or index >= 0
        self.node = None if edge is None or tensor.grad_fn is None else edge.node
        self.accumulator = None if edge is None or tensor.grad_fn is not None else edge.node
        self.output_index = index if index >= 0 else tensor._output_index
        self.unpack_hook = unpack
        held = state.saved_hooks, state.grad_enabled
        state.saved_hooks, state.grad_enabled = None, False
        try:
            self.content = pack(tensor._alias())
        finally:
            state.saved_hooks, state.grad_enabled = held

    def unpack(self, node: Node) -> Tensor:
        """The value, where it was on the tape; `node` is the one that saved it."""
        found = self.unpack_hook(self.content)
        if not isinstance(found, Tensor):
            raise TypeError(
                "Output of saved tensor unpack_hook expected to be a Tensor but got result of type "
                f"{type(found).__name__}"
            )
        made = found._alias()
        if self.requires_grad:
            made._requires_grad = True
            made._output_index = self.output_index
            made._accumulator = self.accumulator
            made._node = None if self.accumulator is not None else node if self.node is None else self.node
        return made


class saved_tensors_hooks:
    """A block in which values saved for a backward pass go through `pack_hook(tensor)`, and come back through
    `unpack_hook(packed)` when they are needed. See torch.autograd.graph.saved_tensors_hooks."""

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Any]) -> None:
        self.hooks = pack_hook, unpack_hook
        self._outer: list[Any] = []

    def __enter__(self) -> None:
        if state.saved_hooks_disabled is not None:
            raise RuntimeError(state.saved_hooks_disabled)
        self._outer.append(state.saved_hooks)
        state.saved_hooks = self.hooks

    def __exit__(self, *error: object) -> None:
        state.saved_hooks = self._outer.pop()


class save_on_cpu(saved_tensors_hooks):
    """A block in which saved values go to the CPU until they are needed. See torch.autograd.graph.save_on_cpu."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        super().__init__(lambda t: (t._device, t.cpu()), lambda packed: packed[1].to(packed[0]))


@contextlib.contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """A block in which `saved_tensors_hooks` is a RuntimeError with this message; so is the block itself where hooks
    are active. See torch.autograd.graph.disable_saved_tensors_hooks."""
    if state.saved_hooks is not None:
        raise RuntimeError(error_message)
    outer, state.saved_hooks_disabled = state.saved_hooks_disabled, error_message
    try:
        yield
    finally:
        state.saved_hooks_disabled = outer


class _Handle:
    """Stands for a value that `allow_mutation_on_saved_tensors` keeps."""


class _SavedCopies:
    """What one `allow_mutation_on_saved_tensors` keeps, for as long as nodes hold the handles."""

    def __init__(self) -> None:
        self.cloned: weakref.WeakKeyDictionary[_Handle, Tensor] = weakref.WeakKeyDictionary()

    def clear(self) -> None:
        self.cloned.clear()

    def pack(self, tensor: Tensor) -> _Handle:
        handle = _Handle()
        self.cloned[handle] = tensor.clone()
        return handle

    def unpack(self, handle: _Handle) -> Tensor:
        if handle not in self.cloned:
            raise AssertionError(
                "Trying to backward outside of the 'allow_mutation_on_saved_tensors' context"
                "in which the graph was originally recorded."
            )
        return self.cloned[handle]


@contextlib.contextmanager
def allow_mutation_on_saved_tensors() -> Iterator[_SavedCopies]:
    """A block in which tensors may be changed in place after they were saved for backward: forward and backward belong
    into it. PyTorch copies a saved tensor when it is first written to; here it is copied when it is saved.

    Raises RuntimeError for a block within one, AssertionError for a backward pass outside of the forward's block.
    See torch.autograd.graph.allow_mutation_on_saved_tensors."""
    if state.saved_copies is not None:
        raise RuntimeError("allow_mutation_on_saved_tensors contexts cannot be nested")
    copies = _SavedCopies()
    with saved_tensors_hooks(copies.pack, copies.unpack):
        state.saved_copies = copies
        try:
            yield copies
        finally:
            copies.clear()
            state.saved_copies = None


class GradientEdge(NamedTuple):
    """Where a tensor's gradient arrives. See torch.autograd.graph.GradientEdge."""

    node: Node
    output_nr: int


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The edge of a tensor that requires grad. See torch.autograd.graph.get_gradient_edge."""
    edge = edge_of(tensor) if tensor.requires_grad else None
    if edge is None:
        raise RuntimeError("It is not possible to get the gradient edge for a Tensor that does not require gradients")
    return GradientEdge(edge.node, edge.place)


def register_multi_grad_hook(tensors: Sequence[Tensor], fn: Callable[..., Any], *, mode: str = "all") -> Any:
    """Call `fn` with the gradients of all tensors once a backward pass has computed them, or ("any") with the first.

    See torch.autograd.graph.register_multi_grad_hook. Raises ValueError for another mode.
    """
    if mode not in ("all", "any"):
        raise ValueError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    from graphtorch.autograd.hooks import Handles

    seen: dict[int, Tensor] = {}

    def keep(place: int) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            seen[place] = gradient
            if mode == "any" and len(seen) == 1:
                fn(gradient)
            if len(seen) == len(tensors):
                found = [seen[i] for i in range(len(tensors))]
                seen.clear()
                if mode == "all":
                    fn(found)

        return hook

    return Handles([tensor.register_hook(keep(i)) for i, tensor in enumerate(tensors)])


def increment_version(tensor: Tensor | Sequence[Tensor]) -> None:
    """Say that tensors were changed by code that autograd doesn't see. See torch.autograd.graph.increment_version."""
    for each in (tensor,) if isinstance(tensor, Tensor) else tensor:
        each._bump_version()


def _without_suffix(name: str) -> str:
    """`Mul` of `MulBackward0`."""
    return name.rstrip("0123456789").removesuffix("Backward")


_LEGACY_NAMES = {
    "float32": "FloatTensor",
    "float64": "DoubleTensor",
    "float16": "HalfTensor",
    "bfloat16": "BFloat16Tensor",
    "int64": "LongTensor",
    "int32": "IntTensor",
    "bool": "BoolTensor",
    "complex64": "ComplexFloatTensor",
    "complex128": "ComplexDoubleTensor",
}


def edge_of(tensor: Tensor) -> Edge | None:
    """Where the cotangent of `tensor` goes; None if it needs none."""
    if not tensor._requires_grad:
        if tensor._base is None or not tensor._base._requires_grad or tensor._node_version == tensor._version:
            return None
        if tensor.grad_fn is None:
            return None
    node = tensor._node if tensor._base is None and state.recorder is None else tensor.grad_fn
    if node is not None:
        return Edge(node, tensor._output_index)
    if tensor._accumulator is None:
        tensor._accumulator = AccumulateGrad(tensor)
    return tensor._accumulator.edge  # type: ignore[no-any-return]


def _type_of(tensor: Tensor) -> TensorType:
    """`type_of` for a tensor of eager execution."""
    return TensorType(tensor._dtype, tensor._data.shape, tensor._device, tensor.is_number)


@functools.cache
def _operands(op: Operator) -> tuple[tuple[int, str, bool], ...]:
    """Position and name of each operand, and whether gradients flow to it."""
    return tuple((i, p.name, p.name in op.derivative) for i, p in enumerate(op.parameters) if p.is_operand)


@functools.cache
def _needs(op: Operator, differentiated: tuple[str, ...]) -> tuple[tuple[str, int, bool], ...]:
    """What formulas need of the arguments: the name, the argument's position, and whether its type will do."""
    found: list[tuple[str, int, bool]] = []
    for name in saved_names(op, differentiated):
        if name in op.positions:
            found.append((name, op.positions[name], False))
        elif name.endswith("_type") and name[:-5] in op.positions:
            found.append((name, op.positions[name[:-5]], True))
    return tuple(found)


@functools.cache
def _needed_results(op: Operator, differentiated: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Which results formulas need, and their positions."""
    return tuple((name, op.results.index(name)) for name in saved_names(op, differentiated) if name in op.results)


class OperatorNode(Node):
    """A recorded operator call."""

    __slots__ = ("differentiated", "is_large", "op", "operands", "overload", "saved", "user_line", "wanted")

    def __init__(self, op: Operator, args: tuple[Any, ...], inplace: bool = False) -> None:
        edges: list[Edge | None] = []
        operands: list[tuple[str, Any]] = []  # (parameter, type) one an edge; a list operand has several
        differentiated: list[str] = []
        self.wanted = False  # whether the results require grad: they may although no gradient flows to an operand
        for place, name, is_differentiable in _operands(op):
            arg = args[place]
            wanted = False
            for tensor in arg if type(arg) is tuple else (arg,):
                edge = edge_of(tensor) if is_differentiable and isinstance(tensor, Tensor) else None
                edges.append(edge)
                if edge is None:
                    operands.append((name, None))
                    if is_differentiable and isinstance(tensor, Tensor) and tensor._base is not None:
                        self.wanted = self.wanted or tensor.requires_grad
                else:
                    wanted = True
                    operands.append((name, _type_of(tensor)))
            if wanted:
                differentiated.append(name)
                self.wanted = True
        super().__init__(edges)
        self.op = op
        # The number that ends PyTorch's name for this call (-1: the record's), or the whole name.
        self.overload: int | str = -1 if op.overload is None else op.overload(*args)
        self.operands = operands
        self.differentiated = tuple(differentiated)
        self.saved: dict[str, Any] | None = {}
        self.user_line = ""
        self.is_large = False  # whether the gradients are worth native code
        for name, place, is_type in _needs(op, self.differentiated):
            arg = args[place]
            if isinstance(arg, Tensor):
                # An in-place call overwrites its target: the formula gets what it was, with its history.
                self.saved[name] = (
                    _type_of(arg) if is_type else SavedTensor(arg.clone() if inplace and place == 0 else arg)
                )
            elif is_type:
                listed = type(arg) is tuple
                self.saved[name] = tuple(type_of(a) if isinstance(a, Tensor) else None for a in arg) if listed else None
            elif type(arg) is tuple and any(isinstance(a, Tensor) for a in arg):
                self.saved[name] = tuple(SavedTensor(a) if isinstance(a, Tensor) else a for a in arg)
            else:
                self.saved[name] = arg

    def save_results(self, results: tuple[Tensor, ...]) -> None:
        """Keep those results that formulas need; called once the results have their final version."""
        assert self.saved is not None
        for name, index in _needed_results(self.op, self.differentiated):
            if name not in self.saved:
                self.saved[name] = SavedTensor(results[index], index)

    def name(self) -> str:
        if isinstance(self.overload, str):
            return self.overload
        if self.overload < 0:
            return self.op.grad_name
        return f"{self.op.grad_name.rstrip('0123456789')}{self.overload}"

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        found = super().next_functions
        order = self.op.edge_order
        if not order:
            return found
        names = [name for name, _ in self.operands]
        return tuple(found[names.index(name)] for name in order if found[names.index(name)][0] is not None)

    def __getattr__(self, name: str) -> Any:
        # What PyTorch shows of saved values: `node._saved_self`, `node._saved_result`.
        if not name.startswith("_saved_"):
            raise AttributeError(f"'{self.name()}' object has no attribute '{name}'")
        wanted = name.removeprefix("_saved_")
        if self.saved is None:
            raise RuntimeError(FREED)
        own = self.op.parameters[0].name if wanted == "self" else wanted
        if own not in self.saved:
            raise AttributeError(f"'{self.name()}' object has no attribute '{name}'")
        return self._lookup(own)

    def result_count(self) -> int:
        return len(self.op.results)

    def release(self) -> None:
        # What holds no tensor is not freed: such a node can run again, as in PyTorch.
        for value in self.saved.values() if self.saved else ():
            if type(value) is SavedTensor or (type(value) is tuple and any([type(i) is SavedTensor for i in value])):
                self.saved = None
                break

    def _lookup(self, name: str) -> Any:
        assert self.saved is not None
        value = self.saved[name]
        if type(value) is SavedTensor:
            return value.unpack(self, self._owner(value))
        if type(value) is tuple and value and any(type(v) is SavedTensor for v in value):
            return tuple(v.unpack(self, self._owner(v)) if type(v) is SavedTensor else v for v in value)
        return value

    def _owner(self, saved: SavedTensor) -> str:
        if saved.index >= 0:
            return self.name()
        if saved.packed is not None:
            return ""
        node = saved.tensor._node
        return "" if node is None else node.name()

    def apply(self, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        if self.saved is None:
            raise RuntimeError(FREED)
        if not state.grad_enabled and state.recorder is None and not modes_entered:
            made = self._native(cotangents) if self.is_large else self._replayed(cotangents)
            if made is not None:
                return made
        return self._evaluated(cotangents)

    def _evaluated(self, cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The operands' cotangents, formula by formula and operator by operator."""
        found: dict[str, Any] = {
            name: evaluate(self.op.derivative[name], self.op, cotangents, self._lookup) for name in self.differentiated
        }
        gradients: list[Tensor | None] = []
        seen: dict[str, int] = {}
        for edge, (name, operand) in zip(self.edges, self.operands, strict=True):
            place = seen.get(name, 0)
            seen[name] = place + 1
            if edge is None:
                gradients.append(None)
                continue
            value = found[name]
            if type(value) is tuple or type(value) is list:
                value = value[place]
            gradients.append(fit(value, operand))
        return gradients

    def _replayed(self, cotangents: Sequence[Tensor | None]) -> list[Tensor | None] | None:
        """The operands' cotangents by code for small operands of this signature; None where there is none."""
        assert self.saved is not None
        key: list[Any] = [self.op, self.differentiated, dtypes.get_default_dtype()]
        arrays: list[Any] = []
        given: list[Tensor] = []
        for cotangent in cotangents:
            if cotangent is None:
                key.append(None)
                continue
            data = cotangent._data
            if type(data) is not np.ndarray or data.size >= native.LARGE:
                return None
            given.append(cotangent)
            arrays.append(data)
            key += (data.dtype.num, data.shape, data.strides)
        for value in self.saved.values():
            kind = type(value)
            if kind is SavedTensor:
                if value.packed is not None or value.tensor._version != value.version:
                    return None
                data = value.tensor._data
                if type(data) is not np.ndarray or data.size >= native.LARGE:
                    return None
                arrays.append(data)
                key += (data.dtype.num, data.shape, data.strides)
            elif kind is TensorType:
                key += (value.dtype, value.shape)
            elif kind is tuple and value:
                if any([type(v) is SavedTensor for v in value]):
                    return None
                key.append(tuple([v if type(v) is TensorType else replay.constant(v) for v in value]))
            else:
                key.append(replay.constant(value))
        for _, operand in self.operands:
            key.append(None if operand is None else (operand.dtype, operand.shape))

        def write(straight: Any) -> Any:
            assert self.saved is not None
            saved = {n: v.tensor._data if type(v) is SavedTensor else v for n, v in self.saved.items()}
            flowing = [None if c is None else c._data for c in cotangents]
            return straight.of_formulas(self.op, self.differentiated, saved, flowing, self.operands)

        return replay.run(tuple(key), arrays, given, write, lambda: self._evaluated(cotangents))

    def _native(self, cotangents: Sequence[Tensor | None]) -> list[Tensor | None] | None:
        """The operands' cotangents by native code, where that is worth while and nobody differentiates them."""
        flowing: list[Any] = []
        for cotangent in cotangents:
            data = None if cotangent is None else cotangent._data
            if data is not None and type(data) is not np.ndarray:
                return None
            flowing.append(data)
        known: dict[str, Any] = {}
        assert self.saved is not None
        for name, value in self.saved.items():
            if type(value) is SavedTensor:
                if value.packed is not None or value.tensor._version != value.version:
                    return None
                value = value.tensor._data
                if type(value) is not np.ndarray:
                    return None
            elif type(value) is tuple and any([type(v) is SavedTensor or isinstance(v, TensorType) for v in value]):
                return None
            known[name] = value
        targets = [operand for edge, operand in zip(self.edges, self.operands, strict=True) if edge is not None]
        names = [name for name, _ in targets]
        if len(set(names)) < len(names):
            return None
        made = native.gradients(self.op, self.differentiated, known, flowing, targets)
        if made is None:
            return None
        given = {id(c._data): c for c in cotangents if c is not None}
        results = iter([given[id(array)] if id(array) in given else Tensor._wrap(array) for array in made])
        return [None if edge is None else next(results) for edge in self.edges]


def renamed(result: Tensor, name: str) -> Tensor:
    """Call the newest step in the history of `result` by PyTorch's name for the whole composition that it ends."""
    node = result._node
    if node is not None and state.recorder is None:
        if type(node) is OperatorNode:
            node.overload = name
        elif hasattr(node, "called"):  # a composition in one piece
            node.called = name
    return result


def composes(name: str) -> Callable[[F], F]:
    """Decorate a composition of operators, so that the history of its result bears PyTorch's name for it."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def composition(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            if isinstance(result, Tensor) and result._node is not None and not any(result is a for a in args):
                renamed(result, name)
            return result

        return composition  # type: ignore[return-value]

    return decorate


def record_call(op: Operator, args: tuple[Any, ...], results: Any, is_large: bool = False) -> None:
    """Put a call on the tape: results that can carry a gradient get the node. `is_large`: some operand is."""
    outputs = results if type(results) is tuple else (results,)
    for result in outputs:
        if result._dtype.is_differentiable:
            break
    else:
        return
    node = OperatorNode(op, args)
    if not node.wanted:
        return
    node.is_large = is_large and op.native
    for index, result in enumerate(outputs):
        if result._dtype.is_differentiable:
            result._node = node
            result._output_index = index
            result._requires_grad = True
    node.save_results(outputs)
    if state.anomaly:
        from graphtorch.ops.dispatch import user_location

        node.user_line = user_location()


def record_inplace(op: Operator, args: tuple[Any, ...], write: Callable[[], Any]) -> None:
    """Put an in-place call on the tape and perform it: the target's history becomes this call's."""
    target: Tensor = args[0]
    node = OperatorNode(op, args, inplace=True)
    write()
    target._bump_version()
    if target._base is not None:
        from graphtorch.autograd.views import rebase

        node.save_results((target,))
        rebase(target, node)
        return
    target._node = node
    target._output_index = 0
    target._requires_grad = True
    node.save_results((target,))
