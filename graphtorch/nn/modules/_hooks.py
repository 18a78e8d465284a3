"""Calling a module through its hooks, and the autograd nodes that backward hooks hang on.

Full backward hooks see the gradients of a module's outputs and inputs as two tuples. Two identity nodes mark the
boundary: one around the outputs, whose backward receives every output gradient at once, and one around the inputs.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from graphtorch.autograd.function import Function
from graphtorch.autograd.hooks import ALL_MODULES
from graphtorch.autograd.state import state
from graphtorch.tensor.tensor import Tensor

if TYPE_CHECKING:
    from graphtorch.nn.modules.module import Module

Grads = tuple[Any, ...]
BOTH_KINDS = (
    "Cannot use both regular backward hooks and full backward hooks on a {}. Please use only one of them."
)


def on_all(kind: str) -> list[Callable[..., Any]]:
    """The hooks of one kind on all modules."""
    return [each.hook for each in ALL_MODULES.values() if each.kind == kind]


class _Boundary(Function):
    """Identity on some tensors whose backward hands the tuple of gradients to a callback."""

    @staticmethod
    def forward(ctx: Any, on_backward: Callable[[Grads], Grads], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.on_backward = on_backward
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return None, *ctx.on_backward(grads)


class BackwardHook:
    """The full backward hooks of one call of a module. See torch.utils.hooks.BackwardHook."""

    def __init__(self, module: Module, user_hooks: Iterable[Any], user_pre_hooks: Iterable[Any]) -> None:
        self.module = module
        self.hooks = list(user_hooks)
        self.pre_hooks = list(user_pre_hooks)
        self.grad_outputs: Grads | None = None
        self.input_count = 0
        self.inputs_seen = False

    def setup_input_hook(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.input_count = len(args)
        args, self.inputs_seen = self._wrap(args, self._on_inputs)
        return args

    def setup_output_hook(self, result: Any) -> Any:
        single = not isinstance(result, tuple)
        outputs = (result,) if single else result
        outputs, _ = self._wrap(outputs, self._on_outputs)
        return outputs[0] if single else outputs

    @staticmethod
    def _wrap(values: tuple[Any, ...], callback: Callable[[Grads], Grads]) -> tuple[tuple[Any, ...], bool]:
        """Pass the tensors among ``values`` through a boundary node; the flag says whether one was made."""
        places = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
        if not state.grad_enabled or not any(values[i].requires_grad for i in places):
            return values, False

        def on_backward(grads: Grads) -> Grads:
            spread: list[Any] = [None] * len(values)
            for place, grad in zip(places, grads, strict=True):
                spread[place] = grad
            changed = callback(tuple(spread))
            return tuple(changed[place] for place in places)

        wrapped = _Boundary.apply(on_backward, *(values[i] for i in places))
        new_values = list(values)
        for place, tensor in zip(places, wrapped, strict=True):
            new_values[place] = tensor
        # A named tuple keeps its type.
        make = getattr(type(values), "_make", tuple)
        return make(new_values), True

    def _on_outputs(self, grads: Grads) -> Grads:
        for hook in self.pre_hooks:
            grads = self._checked(hook(self.module, grads), grads, "backward pre hook", "grad_output")
        self.grad_outputs = grads
        if not self.inputs_seen:
            # No input needs a gradient: this is the only place where the hooks can fire.
            empty = (None,) * self.input_count
            for hook in self.hooks:
                new = hook(self.module, empty, grads)
                if new is not None and not (isinstance(new, tuple) and all(g is None for g in new)):
                    raise RuntimeError(
                        "Backward hook for Modules where no input requires "
                        "gradient should always return None or None for all gradients."
                    )
        return grads

    def _on_inputs(self, grads: Grads) -> Grads:
        grad_outputs = self.grad_outputs
        if grad_outputs is None:
            raise RuntimeError(
                "Module backward hook for grad_input is called before the grad_output one. This happens because the "
                "gradient in your nn.Module flows to the Module's input without passing through the Module's output. "
                "Make sure that the output depends on the input and that the loss is computed based on the output."
            )
        for hook in self.hooks:
            grads = self._checked(hook(self.module, grads, grad_outputs), grads, "backward hook", "grad_input")
        self.grad_outputs = None
        return grads

    @staticmethod
    def _checked(new: Any, old: Grads, kind: str, name: str) -> Grads:
        if new is None:
            return old
        result = new if isinstance(new, tuple) else (new,)
        if len(result) != len(old):
            raise RuntimeError(
                f"Backward hook returned an invalid number of {name}, got {len(result)}, but expected {len(old)}"
            )
        return result


def call_with_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run ``module.forward`` with all hooks of the module around it."""
    called: set[int] = set()
    result: Any = None
    try:
        args, kwargs = _run_pre_hooks(module, args, kwargs)
        full = module._is_full_backward_hook is not False
        made = BackwardHook(
            module,
            [*on_all("backward"), *(module._backward_hooks.values() if full else ())],
            [*on_all("backward_pre"), *module._backward_pre_hooks.values()],
        )
        backward = made if made.hooks or made.pre_hooks else None
        if backward is not None:
            args = backward.setup_input_hook(args)
        result = module.forward(*args, **kwargs)
        for key, hook, with_kwargs, _ in _forward_hooks(module):
            called.add(key)
            replaced = hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
            if replaced is not None:
                result = replaced
        if backward is not None:
            if not isinstance(result, Tensor | tuple):
                warnings.warn(
                    "For backward hooks to be called, module output should be a Tensor or a tuple of Tensors but "
                    f"received {type(result)}",
                    stacklevel=4,
                )
            else:
                result = backward.setup_output_hook(result)
        of_last = [*on_all("backward_of_last"), *(() if full else module._backward_hooks.values())]
        if of_last:
            _hang_on_last_node(module, of_last, args, result)
        return result
    except Exception:
        _run_always_called(module, called, args, kwargs, result)
        raise


def _hang_on_last_node(module: Module, hooks: list[Callable[..., Any]], args: tuple[Any, ...], result: Any) -> None:
    """The deprecated hooks, which see the gradients of the node that made the (first) result."""
    note = getattr(state.recorder, "note_effect", None)
    if note is not None:
        note("calls a module with a backward hook that is not a full one")
    last = result
    while not isinstance(last, Tensor):
        last = next(v for v in last.values() if isinstance(v, Tensor)) if isinstance(last, dict) else last[0]
    node = last.grad_fn
    if node is None:
        return
    for hook in hooks:
        bound = functools.partial(hook, module)
        node.register_hook(_in_order_of_addmm(bound) if _is_linear(node) else bound)
    what = _missing(args, result, node)
    if what:
        warnings.warn(f"Using {what}", FutureWarning, stacklevel=5)


def _is_linear(node: Any) -> bool:
    """Whether a node is a matrix product with a bias, which has its operands in another order in PyTorch."""
    return node.name() == "AddmmBackward0" and node.op.name == "linear"


def _in_order_of_addmm(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, shown the gradients of (bias, input, weight.T) in place of (input, weight, bias)."""

    def ordered(grad_inputs: Grads, grad_outputs: Grads) -> Any:
        of_input, of_weight, of_bias = grad_inputs
        changed = hook((of_bias, of_input, None if of_weight is None else of_weight.t()), grad_outputs)
        if not isinstance(changed, tuple) or len(changed) != 3:
            return changed
        return changed[1], None if changed[2] is None else changed[2].t(), changed[0]

    return ordered


def _missing(args: tuple[Any, ...], result: Any, node: Any) -> str:
    """What the deprecated hooks of a call will not see, in PyTorch's words."""
    instead = "Please use register_full_backward_hook to get the documented behavior."
    results = (result,) if isinstance(result, Tensor) else result
    if not (isinstance(results, tuple) and all(isinstance(r, Tensor) for r in results)):
        return (
            "non-full backward hooks on a Module that does not return a single Tensor or a tuple of Tensors is "
            "deprecated and will be removed in future versions. This hook will be missing some of the grad_output. "
            + instead
        )
    if not all(isinstance(a, Tensor) for a in args):
        return (
            "non-full backward hooks on a Module that does not take as input a single Tensor or a tuple of Tensors is "
            "deprecated and will be removed in future versions. This hook will be missing some of the grad_input. "
            + instead
        )
    nodes = {r.grad_fn for r in results if r.grad_fn is not None}
    removed = "is deprecated and will be removed in future versions. This hook will be missing some"
    if not nodes or (len(nodes) == 1 and node not in nodes):
        return f"a non-full backward hook when outputs are nested in python data structure {removed} grad_output."
    if len(nodes) > 1:
        return (
            f"a non-full backward hook when outputs are generated by different autograd Nodes {removed} grad_output. "
            + instead
        )
    if {a.grad_fn for a in args if a.grad_fn is not None} != {following for following, _ in node.next_functions}:
        return (
            f"a non-full backward hook when the forward contains multiple autograd Nodes {removed} grad_input. "
            + instead
        )
    return ""


def _run_pre_hooks(
    module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    for hook, with_kwargs in [
        *((each.hook, each.with_kwargs) for each in ALL_MODULES.values() if each.kind == "forward_pre"),
        *((hook, key in module._forward_pre_hooks_with_kwargs) for key, hook in module._forward_pre_hooks.items()),
    ]:
        if with_kwargs:
            changed = hook(module, args, kwargs)
            if changed is None:
                continue
            if not (isinstance(changed, tuple) and len(changed) == 2):
                raise RuntimeError(
                    f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {changed}."
                )
            args, kwargs = changed
        else:
            changed = hook(module, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
    return args, kwargs


def _forward_hooks(module: Module) -> list[tuple[int, Callable[..., Any], bool, bool]]:
    """The forward hooks that a call runs: (key, hook, whether it takes keywords, whether it runs after failures)."""
    return [
        *((key, each.hook, each.with_kwargs, each.always_call) for key, each in ALL_MODULES.items()
          if each.kind == "forward"),
        *((key, hook, key in module._forward_hooks_with_kwargs, key in module._forward_hooks_always_called)
          for key, hook in module._forward_hooks.items()),
    ]  # fmt: skip


def _run_always_called(
    module: Module, called: set[int], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> None:
    """After a failure, run the hooks registered with ``always_call=True`` that did not get their turn."""
    for key, hook, with_kwargs, always in _forward_hooks(module):
        if not always or key in called:
            continue
        try:
            replaced = hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
            if replaced is not None:
                result = replaced
        except Exception as error:
            warnings.warn(
                f"{'global ' if key in ALL_MODULES else ''}module forward hook with ``always_call=True`` raised an "
                "exception that was silenced as another "
                f"error was raised in forward: {error}",
                stacklevel=5,
            )
