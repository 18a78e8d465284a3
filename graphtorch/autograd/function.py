"""Custom differentiable functions. See https://docs.pytorch.org/docs/stable/autograd.html#torch.autograd.Function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from graphtorch.autograd.graph import FREED, Node, SavedTensor, edge_of
from graphtorch.autograd.rules import fit
from graphtorch.autograd.state import state
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import type_of


class FunctionContext:
    """The `ctx` of a Function: what forward leaves for backward, and for jvp."""

    watchers: ClassVar[list[list[FunctionContext]]] = []  # each gets what is made meanwhile

    def __init__(self) -> None:
        for watcher in self.watchers:
            watcher.append(self)
        self.to_push: tuple[Any, ...] | None = None
        self.pushing = False  # whether it is jvp that asks
        self.to_save: tuple[Any, ...] = ()
        self.needs_input_grad: tuple[bool, ...] = ()
        self._saved: tuple[Any, ...] | None = ()
        self._node: FunctionNode | None = None
        self._non_differentiable: tuple[Tensor, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors; an in-place change before backward is an error."""
        self.to_save = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for jvp."""
        self.to_push = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `save_for_backward` kept; for jvp what `save_for_forward` did, if it was called."""
        if self.pushing and self.to_push is not None:
            return self.to_push
        if self._saved is None or self._node is None:
            if self._saved is None:
                raise RuntimeError(FREED)
            return self.to_save
        node = self._node
        return tuple(s.unpack(node, node.name()) if isinstance(s, SavedTensor) else s for s in self._saved)

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Name results that carry no gradient."""
        self._non_differentiable = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Name inputs that forward changed in place."""
        self._dirty = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether absent cotangents reach backward as zeros (the default) or as None."""
        self._materialize = value


FunctionCtx = FunctionContext  # PyTorch's name


class FunctionNode(Node):
    """The tape's node of one `Function.apply`."""

    __slots__ = ("context", "function", "inputs", "results")

    def __init__(self, function: type[Function], context: FunctionContext, args: Sequence[Any]) -> None:
        super().__init__([edge_of(a) if isinstance(a, Tensor) else None for a in args])
        self.function = function
        self.context = context
        self.inputs = [type_of(a) if isinstance(a, Tensor) else None for a in args]
        self.results: list[Any] = []

    def name(self) -> str:
        return self.function.__name__ + "Backward"

    def __repr__(self) -> str:
        return f"<torch.autograd.function.{self.name()} object at {hex(id(self))}>"

    def result_count(self) -> int:
        return len(self.results)

    def release(self) -> None:
        if self.context._saved:
            self.context._saved = None

    def apply(self, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        given: list[Any] = list(cotangents)
        if self.context._materialize:
            from graphtorch.ops import FUNCTIONS

            given = [
                FUNCTIONS["zeros"](tuple(t.shape), dtype=t.dtype, device=t.device) if g is None else g
                for g, t in zip(given, self.results, strict=True)
            ]
        returned = self.function.backward(self.context, *given)
        values = list(returned) if isinstance(returned, tuple) else [returned]
        while len(values) > len(self.edges) and values[-1] is None:
            values.pop()
        if len(values) != len(self.edges):
            raise RuntimeError(
                f"function {self.name()} returned an incorrect number of gradients (expected {len(self.edges)}, "
                f"got {len(values)})"
            )
        fitted: list[Tensor | None] = []
        for value, edge, operand in zip(values, self.edges, self.inputs, strict=True):
            fitted.append(None if edge is None or value is None or operand is None else fit(value, operand))
        return fitted


class Function:
    """Base class of custom differentiable functions: define static `forward(ctx, ...)` and `backward(ctx, *grads)`,
    call `apply`.

    `setup_context(ctx, inputs, output)` may take over saving, with a `forward` that has no ctx.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with "
            "backward "
            "mode AD."
        )

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        raise NotImplementedError(
            "You must implement the jvp function for custom autograd.Function to use it with forward mode AD."
        )

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run forward outside the tape and put this function on it as one node."""
        if state.recorder is not None:
            return state.recorder.apply_function(cls, args, kwargs)
        context = FunctionContext()
        context.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        wanted = state.grad_enabled and any(context.needs_input_grad)
        previous = state.grad_enabled
        state.grad_enabled = False
        try:
            returned = cls.run_forward(context, args, kwargs)
        finally:
            state.grad_enabled = previous
        if not wanted:
            return returned
        node = FunctionNode(cls, context, args)
        outputs = returned if isinstance(returned, tuple) else (returned,)
        marked: list[Any] = []
        for index, output in enumerate(outputs):
            node.results.append(output if not isinstance(output, Tensor) else type_of(output))
            if isinstance(output, Tensor):
                frozen = any(output is t for t in context._non_differentiable)
                if not frozen and output._dtype.is_differentiable:
                    if any(output is a for a in args) and not any(output is t for t in context._dirty):
                        output = output._alias()
                    output._node = node
                    output._output_index = index
                    output._requires_grad = True
            marked.append(output)
        context._saved = tuple(
            SavedTensor(t, next((i for i, o in enumerate(marked) if o is t), -1)) if isinstance(t, Tensor) else t
            for t in context.to_save
        )
        context._node = node
        return tuple(marked) if isinstance(returned, tuple) else marked[0]

    @classmethod
    def run_forward(cls, context: FunctionContext, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Call forward in either of its two styles."""
        if "setup_context" in cls.__dict__:
            output = cls.forward(*args, **kwargs)
            cls.__dict__["setup_context"].__func__(context, tuple(args), output)
            return output
        return cls.forward(context, *args, **kwargs)


class InplaceFunction(Function):
    """A Function that notes whether it was asked to work in place. See torch.autograd.function.InplaceFunction."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace


class _Undifferentiable(Function):
    """The identity, whose derivative is an error."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tensors

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the backward of a Function that can't be differentiated itself: it runs without a history, and a
    derivative of its results is a RuntimeError. See torch.autograd.function.once_differentiable."""

    @functools.wraps(fn)
    def wrapper(ctx: Any, *args: Any) -> Any:
        previous = state.grad_enabled
        state.grad_enabled = False
        try:
            outputs = fn(ctx, *args)
        finally:
            state.grad_enabled = previous
        if not state.grad_enabled or not any(isinstance(a, Tensor) and a.requires_grad for a in args):
            return outputs
        found = list(outputs) if isinstance(outputs, tuple) else [outputs]
        places = [i for i, each in enumerate(found) if isinstance(each, Tensor)]
        marked = _Undifferentiable.apply(*(found[i].detach().requires_grad_() for i in places))
        for place, tensor in zip(places, marked, strict=True):
            found[place] = tensor
        return tuple(found)

    return wrapper
