"""Forward-mode differentiation by dual numbers: what `autograd.forward_ad` is made of.

A dual tensor is an ordinary tensor that has a tangent while its level is active. The level stands where operator calls
go, runs each call as it is, and gives the results the tangents that follow by the records' derivatives (a jvp is the
vjp of the vjp, see `func.transforms`). Views of a dual tensor have views of its tangent, so that writes reach both."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from graphtorch.autograd.engine import _run, _start, accumulate
from graphtorch.autograd.function import Function, FunctionContext
from graphtorch.autograd.views import replay
from graphtorch.frontend.errors import refuse
from graphtorch.func.levels import Level
from graphtorch.func.transforms import jvp
from graphtorch.ops import dispatch
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.record import Operator
from graphtorch.tensor.tensor import Tensor


class DualLevel(Level):
    """One `dual_level()`."""

    active: DualLevel | None = None

    def __init__(self) -> None:
        super().__init__()
        self._duals: list[weakref.ref[Tensor]] = []
        self._results: dict[int, weakref.ref[Tensor]] = {}  # id of a storage -> what has a tangent there

    def __enter__(self) -> Any:
        if DualLevel.active is not None:
            raise RuntimeError("Nested forward mode AD is not supported at the moment")
        DualLevel.active = self
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        DualLevel.active = None
        for reference in self._duals:
            tensor = reference()
            if tensor is not None:
                vars(tensor).pop("_tangent", None)
        self._duals.clear()

    # -- tangents ----------------------------------------------------------------------------------------------------

    def tangent(self, tensor: Any) -> Tensor | None:
        """The tangent of a tensor; None where it has none."""
        if not isinstance(tensor, Tensor):
            return None
        found: Tensor | None = vars(tensor).get("_tangent")
        if found is not None:
            return found
        if tensor._base is not None:
            held = vars(tensor._base).get("_tangent")
            if held is not None and all(op.derivative for op, _ in tensor._steps):
                # A view that is older than its base's tangent.
                with self.below():
                    found = replay(held, tensor._steps)
                self.set_tangent(tensor, found)
        elif tensor._storage is not None:
            # What the tape saved of a result is another tensor over the same memory.
            reference = self._results.get(id(tensor._storage))
            result = None if reference is None else reference()
            if result is not None and result._storage is tensor._storage and result.shape == tensor.shape:
                found = vars(result).get("_tangent")
        return found

    def set_tangent(self, tensor: Tensor, tangent: Tensor) -> None:
        """Make a tensor dual."""
        vars(tensor)["_tangent"] = tangent
        reference = weakref.ref(tensor)
        self._duals.append(reference)
        if tensor._base is None and not self.captures:  # views of a capture name no base, and share the storage
            self._results[id(tensor._shared_storage())] = reference

    def _pushed(self, op: Operator, args: tuple[Any, ...]) -> tuple[Any, Any]:
        """The results of a call and their tangents; to be called one level further out."""
        places: list[tuple[int, int | None]] = []
        primals: list[Tensor] = []
        tangents: list[Tensor] = []
        for i, arg in enumerate(args):
            for j, item in enumerate(arg) if type(arg) is tuple else ((None, arg),):
                tangent = self.tangent(item)
                if tangent is not None and item._dtype.is_differentiable:
                    places.append((i, j))
                    primals.append(item)
                    tangents.append(tangent)

        def run(*given: Tensor) -> Any:
            filled = [list(a) if type(a) is tuple else a for a in args]
            for (i, j), tensor in zip(places, given, strict=True):
                if j is None:
                    filled[i] = tensor
                else:
                    filled[i][j] = tensor
            return dispatch.call(op, tuple(tuple(a) if type(a) is list else a for a in filled))

        found, pushed = jvp(run, tuple(primals), tuple(tangents))
        return found, pushed

    # -- calls -------------------------------------------------------------------------------------------------------

    def _is_dual(self, args: tuple[Any, ...]) -> bool:
        return any(self.tangent(t) is not None for t in dispatch.tensors_of(args))

    def call(self, op: Operator, args: tuple[Any, ...]) -> Any:
        dual = bool(op.derivative) and self._is_dual(args)
        with self.below():
            if op.name == "detach":
                return args[0].detach()  # of all levels
            if not dual:
                return dispatch.call(op, args)
            if op.is_view:
                result = dispatch.call(op, args)
                self.set_tangent(result, dispatch.call(op, (self.tangent(args[0]), *args[1:])))
                return result
            found, pushed = self._pushed(op, args)
            several = isinstance(found, tuple)
            # Memory of its own: a derivative may be an operand's tangent itself, and either may be written.
            pushed = tuple(t.clone() for t in pushed) if several else pushed.clone()
        pairs: Any = zip(found, pushed, strict=True) if several else ((found, pushed),)
        for result, tangent in pairs:
            if result._dtype.is_differentiable:
                self.set_tangent(result, tangent)
        return op.result_class(*found) if several and op.result_class is not None else found

    def call_inplace(self, op: Operator, args: tuple[Any, ...]) -> Any:
        target: Tensor = args[0]
        with self.below():
            if not self._is_dual(args) or not target._dtype.is_differentiable:
                return dispatch.call_inplace(op, args)
            if self.tangent(target) is None:
                base = target if target._base is None else target._base
                self.set_tangent(base, FUNCTIONS["zeros_like"](base.detach()))
            held = self.tangent(target)
            assert held is not None
            if op.random or not op.derivative:
                fresh = FUNCTIONS["zeros_like"](held)
            else:
                fresh = self._pushed(op, args)[1]
            result = dispatch.call_inplace(op, args)
            held.copy_(fresh)
        return result

    def grad(
        self,
        roots: tuple[Tensor, ...],
        inputs: tuple[Tensor, ...],
        gradients: tuple[Tensor | None, ...],
        keep: bool,
        create_graph: bool,
    ) -> Sequence[Tensor | None]:
        if self.outer is not None:
            self._check_no_tangent(roots)
            with self.below():
                found: Sequence[Tensor | None] = self.outer.grad(roots, inputs, gradients, keep, create_graph)
                return found
        # The formulas run on dual tensors, so that gradients have tangents: forward over reverse.
        return _run(roots, _start(roots, gradients), keep, create_graph, inputs)

    def backward(self, *args: Any) -> None:
        """An ordinary backward pass."""
        roots, gradients, retain_graph, create_graph, inputs = args
        if self.outer is not None:
            self._check_no_tangent(roots)
            with self.below():
                self.outer.backward(*args)
            return
        keep = create_graph if retain_graph is None else retain_graph
        found = _run(roots, _start(roots, gradients), keep, create_graph, inputs)
        for tensor, gradient in zip(inputs or (), found, strict=False):
            if gradient is not None:
                accumulate(tensor, gradient, create_graph, fresh=False)

    def _check_no_tangent(self, roots: Sequence[Tensor]) -> None:
        if self._is_dual(tuple(roots)):
            raise refuse(
                "a backward pass through dual tensors inside a compiled function",
                "take the gradient with func.grad, or outside the compiled function",
            )

    def apply_function(self, function: type[Function], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Tangents by the function's own `jvp`; an argument that has none counts as one of zeros.

        Raises NotImplementedError for a function without one, RuntimeError for another number of tangents than
        results."""
        if not self._is_dual(args):
            with self.below():
                return function.apply(*args, **kwargs)
        made: list[FunctionContext] = []
        with self.below():
            FunctionContext.watchers.append(made)
            try:
                returned = function.apply(*args, **kwargs)
            finally:
                FunctionContext.watchers.remove(made)
            context = made[0]  # those of functions that forward applies follow
            given = [self._tangent_or_zeros(a, context) for a in args]
            context.pushing = True
            pushed = function.jvp(context, *given)
            context.pushing = False
        outputs = returned if isinstance(returned, tuple) else (returned,)
        tangents = pushed if isinstance(pushed, tuple) else (pushed,)
        if len(tangents) != len(outputs):
            raise RuntimeError(
                f"Function's jvp returned an invalid number of forward gradients (expected {len(outputs)} but got "
                f"{len(tangents)})"
            )
        for output, tangent in zip(outputs, tangents, strict=True):
            if isinstance(output, Tensor) and tangent is not None and output._dtype.is_differentiable:
                self.set_tangent(output, tangent)
        return returned

    def _tangent_or_zeros(self, value: Any, context: FunctionContext) -> Tensor | None:
        found = self.tangent(value)
        if found is None and context._materialize and isinstance(value, Tensor) and value._dtype.is_differentiable:
            found = FUNCTIONS["zeros_like"](value.detach())
        return found


def make_dual(tensor: Tensor, tangent: Tensor) -> Tensor:
    """A view of a tensor that has this tangent.

    Raises RuntimeError without a level, ValueError for types without derivatives, RuntimeError for another shape."""
    level = DualLevel.active
    if level is None:
        raise RuntimeError(
            "Trying to create a dual Tensor for forward AD but no level exists, make sure to enter_dual_level() first."
        )
    for value, name in ((tensor, "primal"), (tangent, "tangent")):
        if not value._dtype.is_differentiable:
            raise ValueError(f"Expected {name} to be floating point or complex, but got: {value._dtype!r}")
    if tuple(tensor.shape) != tuple(tangent.shape):
        raise RuntimeError(
            f"Trying to set a forward gradient that has a different size than that of the original Tensor, this is not "
            f"supported. Tensor is of size {list(tensor.shape)} while the given forward gradient is of size "
            f"{list(tangent.shape)}."
        )
    with level.below():
        made: Tensor = tensor.view_as(tensor)
    level.set_tangent(made, tangent)
    return made


def unpack_dual(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
    """The tensor without its tangent, and the tangent; None for one that has none, or without a level."""
    level = DualLevel.active
    if level is None:
        return tensor, None
    found = level.tangent(tensor)
    if found is None:
        return tensor, None
    with level.below():
        primal: Tensor = tensor.view_as(tensor)
    return primal, found


__all__ = ["DualLevel", "make_dual", "unpack_dual"]
