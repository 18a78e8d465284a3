"""Compositions of operators that run in one piece.

Eagerly, a composition (`group_norm`, say) runs operator by operator, and each of them reads and writes all elements.
Decorated with `in_one_piece`, it is one native program where `ops/native.py` says that this pays, and one node of the
tape, whose gradients are a program too: they compute again what they need of the forward pass, in the same kernels."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from graphtorch.autograd import replay
from graphtorch.autograd.graph import FREED, Node, SavedTensor, edge_of, renamed
from graphtorch.autograd.state import modes_entered, state
from graphtorch.ops import native
from graphtorch.ops.dispatch import quiet
from graphtorch.tensor.devices import CPU
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

F = TypeVar("F", bound=Callable[..., Any])


def in_one_piece(name: str, strided: bool = False, linear: bool = False) -> Callable[[F], F]:
    """Decorate a composition of operators that returns a tensor or a tuple of them.

    `name` is PyTorch's name of its node in the history; empty: that of the last operator. The function may not change
    a tensor, draw random numbers or read data, and which operators it calls may depend on types, sizes and attributes
    only; it has a tensor among its arguments, on whose device its constants are. `strided`: its results lie row by row,
    however its operands lie. `linear`: gradients do not depend on the values of operands, which therefore are not kept
    and may be changed."""

    def decorate(function: F) -> F:
        signature = functools.cache(lambda: inspect.signature(function))

        @functools.wraps(function)
        def composition(*args: Any, **kwargs: Any) -> Any:
            if state.recorder is None and state.autocast is None and not modes_entered:
                given = args
                if kwargs:
                    bound = signature().bind(*args, **kwargs)
                    bound.apply_defaults()
                    given = bound.args
                made = _native(function, name, given, strided, linear) if native.switch.on else None
                if made is None:
                    made = _small(function, name, given, linear)
                if made is not None:
                    return made
            result = function(*args, **kwargs)
            if not linear and state.recorder is not None:
                _keep_recorded(args, kwargs, result)
            if name and isinstance(result, Tensor) and not any([result is a for a in args]):
                renamed(result, name)
            return result

        return composition  # type: ignore[return-value]

    return decorate


class Kernels(NamedTuple):
    """A composition in NumPy, forwards and backwards.

    applies     called with the arguments, tensors as arrays: whether the functions serve them
    forward     the results as arrays, and what `backward` needs of them
    backward    called with that, the arguments, the results' cotangents (None where none flows) and the positions of
                the arguments whose gradients are wanted; returns these
    """

    applies: Callable[[Sequence[Any]], bool]
    forward: Callable[..., tuple[tuple[Any, ...], Any]]
    backward: Callable[..., list[Any]]


def by_kernels(name: str, kernels: Kernels) -> Callable[[F], F]:
    """Decorate a composition as `in_one_piece` does, whose eager form is NumPy code."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def composition(*args: Any) -> Any:
            if state.recorder is None and state.autocast is None and not modes_entered:
                made = _by_kernels(function, name, kernels, args)
                if made is not None:
                    return made
            result = function(*args)
            if state.recorder is not None:
                _keep_recorded(args, {}, result)
            return result

        return composition  # type: ignore[return-value]

    return decorate


def _keep_recorded(args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> None:
    """Let a recorder know what the node of a composition keeps, which its operators may not."""
    keep = getattr(state.recorder, "keep_for_backward", None)
    if keep is not None and state.grad_enabled:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        for result in made if isinstance(made, tuple) else (made,):
            if not any([result is a for a in tensors]):
                keep(result, tensors)


def _by_kernels(function: Callable[..., Any], name: str, kernels: Kernels, args: tuple[Any, ...]) -> Any:
    arrays: list[Any] = []
    for arg in args:
        if isinstance(arg, Tensor):
            if arg._device is not CPU or type(arg._data) is not np.ndarray:
                return None
            arrays.append(arg._data)
        else:
            arrays.append(arg)
    if not kernels.applies(arrays):
        return None
    made, saved = quiet.run(kernels.forward, *arrays)
    results, node = _recorded(function, name, args, made)
    if node is not None:
        node.kernels, node.kept = kernels, saved
    return results


def _native(function: Callable[..., Any], name: str, args: tuple[Any, ...], strided: bool, linear: bool) -> Any:
    """The results by native code; None where operators do it one by one."""
    is_large = False
    arrays: list[Any] = []
    for arg in args:
        if isinstance(arg, Tensor):
            data = arg._data
            if arg._device is not CPU or type(data) is not np.ndarray:
                return None
            if data.size >= native.SMALL:
                is_large = True
            if not strided and not data.flags.c_contiguous:
                return None
            arrays.append(data)
        else:
            arrays.append(arg)
    if not is_large:
        return None
    made = native.compose(function, arrays)
    if made is None:
        return None
    results, node = _recorded(function, name, args, made, linear)
    if node is not None:
        node.is_large = True
    return results


def _small(function: Callable[..., Any], name: str, args: tuple[Any, ...], linear: bool) -> Any:
    """The results on small operands, with one node; None where the tape is to hold the operators."""
    wanted = False
    for arg in args:
        if isinstance(arg, Tensor):
            data = arg._data
            if arg._device is not CPU or type(data) is not np.ndarray or data.size >= native.LARGE:
                return None
            wanted = wanted or arg.requires_grad
    wanted = wanted and state.grad_enabled
    if state.anomaly:  # each operator says where it was called
        return None

    def plain() -> tuple[Tensor, ...]:
        made = function(*args)
        return made if isinstance(made, tuple) else (made,)

    made = replay.compose(function, args, plain)
    if made is not None:
        return _recorded(function, name, args, [r._data for r in made if r is not None], linear)[0]
    if not wanted:
        return None
    parts = [a.detach().requires_grad_(a.requires_grad) if isinstance(a, Tensor) else a for a in args]
    # What hooks keep is theirs: the tape inside would keep more.
    inner = _without_tape(function, parts) if state.saved_hooks is not None else function(*parts)
    results = inner if isinstance(inner, tuple) else (inner,)
    if any([r is p or r._base is p for r in results for p in parts if isinstance(p, Tensor)]):
        return None
    if state.saved_hooks is not None:
        return _recorded(function, name, args, [r._data for r in results], linear)[0]
    node = CompositionNode(function, name, args, len(results), linear)
    node.inner = parts, results
    shown = tuple([r._alias() for r in results])
    _attach(shown, node)
    return shown if len(shown) > 1 else shown[0]


def _without_tape(function: Callable[..., Any], args: Sequence[Any]) -> Any:
    state.grad_enabled = False
    try:
        return function(*args)
    finally:
        state.grad_enabled = True


def _attach(results: Sequence[Tensor], node: CompositionNode) -> None:
    """Make results those of a node."""
    for index, result in enumerate(results):
        if result._dtype.is_differentiable:
            result._node = node
            result._output_index = index
            result._requires_grad = True


def _recorded(
    function: Callable[..., Any], name: str, args: tuple[Any, ...], arrays: Sequence[Any], linear: bool = False
) -> tuple[Any, CompositionNode | None]:
    """The results as tensors, and their node if they have a history."""
    results = tuple([Tensor._wrap(array) for array in arrays])
    if state.inference:
        for result in results:
            result._inference = True
    node = None
    if state.grad_enabled and any([isinstance(a, Tensor) and a.requires_grad for a in args]):
        node = CompositionNode(function, name, args, len(results), linear)
        _attach(results, node)
    return results if len(results) > 1 else results[0], node


class CompositionNode(Node):
    """A composition that ran in one piece.

    With `kernels`, these are its derivative, given what they `kept`. `inner`: arguments and results on a tape of their
    own, where operators made it one by one. `is_large`: native code made it."""

    __slots__ = ("arguments", "called", "count", "function", "inner", "is_large", "kept", "kernels", "places")

    def __init__(
        self, function: Callable[..., Any], name: str, args: tuple[Any, ...], count: int, linear: bool
    ) -> None:
        self.places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        super().__init__([edge_of(args[i]) for i in self.places])
        self.function = function
        self.called = name
        self.count = count
        self.kernels: Kernels | None = None
        self.kept: Any = None
        self.is_large = False
        self.inner: tuple[Sequence[Any], Sequence[Tensor]] | None = None
        keep = type_of if linear else SavedTensor
        self.arguments: list[Any] | None = [keep(a) if isinstance(a, Tensor) else a for a in args]

    def name(self) -> str:
        return self.called or f"{self.function.__name__.strip('_').title().replace('_', '')}Backward0"

    def result_count(self) -> int:
        return self.count

    def release(self) -> None:
        self.arguments = self.kept = self.inner = None

    def apply(self, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        if self.arguments is None:
            raise RuntimeError(FREED)
        args = [self._unpacked(a) for a in self.arguments]
        wanted = [i for i, edge in zip(self.places, self.edges, strict=True) if edge is not None]
        found = None
        if not state.grad_enabled and state.recorder is None and not modes_entered:
            found = self._native(args, cotangents, wanted)
        if found is None:
            found = self._by_operators(args, cotangents, wanted)
        given = iter(found)
        return [None if edge is None else next(given) for edge in self.edges]

    def _unpacked(self, kept: Any) -> Any:
        if type(kept) is SavedTensor:
            return kept.unpack(self, "")
        if type(kept) is TensorType and kept.device is not CPU:
            from graphtorch.ops.build import FUNCTIONS

            return FUNCTIONS["full"](tuple(kept.shape), 0, dtype=kept.dtype, device=kept.device)
        if type(kept) is TensorType:  # its values do not matter
            return Tensor._wrap(np.broadcast_to(np.zeros((), kept.dtype.numpy), kept.shape), kept.dtype)
        return kept

    def _native(
        self, args: list[Any], cotangents: Sequence[Tensor | None], wanted: Sequence[int]
    ) -> list[Tensor | None] | None:
        if self.inner is not None:
            return _gradients(*self.inner, cotangents, wanted, create_graph=False)
        made: list[Any] | None = None
        if self.kernels is not None or self.is_large:
            flowing: list[Any] = [None if c is None else c._data for c in cotangents]
            arrays = [a._data if isinstance(a, Tensor) else a for a in args]
            if any([c is not None and type(c) is not np.ndarray for c in flowing]):
                return None
            if self.kernels is not None:
                made = quiet.run(self.kernels.backward, self.kept, arrays, flowing, wanted)
            else:
                made = native.compose_gradients(self.function, arrays, flowing, wanted)
            if made is not None:
                return [None if array is None else Tensor._wrap(array) for array in made]
        return replay.compose_gradients(
            self.function, args, cotangents, wanted, lambda: self._by_operators(args, cotangents, wanted)
        )

    def _by_operators(
        self, args: list[Any], cotangents: Sequence[Tensor | None], wanted: Sequence[int]
    ) -> list[Tensor | None]:
        """Run the composition again, on the tape, and go back over that."""
        again = state.grad_enabled
        state.grad_enabled = True
        try:
            if not again or any([type(a) is TensorType for a in self.arguments or ()]):
                parts = [a.detach() if isinstance(a, Tensor) else a for a in args]
                args = [a.requires_grad_(i in wanted) if isinstance(a, Tensor) else a for i, a in enumerate(parts)]
            made = self.function(*args)
            return _gradients(args, made if isinstance(made, tuple) else (made,), cotangents, wanted, again)
        finally:
            state.grad_enabled = again


def _gradients(
    args: Sequence[Any],
    results: Sequence[Tensor],
    cotangents: Sequence[Tensor | None],
    wanted: Sequence[int],
    create_graph: bool,
) -> list[Tensor | None]:
    """The gradients of the arguments at the positions `wanted`, back over the tape from results to them."""
    from graphtorch.autograd.engine import grad

    pairs = [(r, c) for r, c in zip(results, cotangents, strict=True) if c is not None and r.requires_grad]
    outputs, seeds = [r for r, _ in pairs], [c for _, c in pairs]
    inputs = [args[i] for i in wanted]
    return list(grad(outputs, inputs, seeds, retain_graph=True, create_graph=create_graph, allow_unused=True))
