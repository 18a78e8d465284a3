"""Activation checkpointing: what a function computes on the way is not kept for the backward pass but computed again.

Eagerly, the values that the tape would save are replaced by their number (`saved_tensors_hooks`); the first that a
backward pass asks for runs the function again and keeps them all. Under `@compile`, the operators of the function are
marked, and the backward graph gets copies of them instead of their values (`autodiff.partition`)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from graphtorch.autodiff.checkpointing import region_origin
from graphtorch.autodiff.partition import CHECKPOINT
from graphtorch.autograd.graph import saved_tensors_hooks
from graphtorch.autograd.state import state
from graphtorch.tensor.cuda_generator import States
from graphtorch.tensor.tensor import Tensor
from graphtorch.utils.selective_checkpoint import (
    SAC_IGNORED_OPS,
    CheckpointPolicy,
    SavingMode,
    SelectiveCheckpointContext,
    create_selective_checkpoint_contexts,
)

ContextFunction = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]


_early_stop: bool | None = None  # what `set_checkpoint_early_stop` says; None: each call's own argument


@contextmanager
def set_checkpoint_early_stop(enable: bool) -> Iterator[None]:
    """A block in which `checkpoint` is called with this `early_stop`, whatever it is given: whether a second run ends
    as soon as it has saved what the backward pass needs. See torch.utils.checkpoint.set_checkpoint_early_stop."""
    global _early_stop
    outer, _early_stop = _early_stop, enable
    try:
        yield
    finally:
        _early_stop = outer


def detach_variable(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The tensors of a tuple outside of their history, with their `requires_grad`. Raises RuntimeError for anything but
    a tuple."""
    if not isinstance(inputs, tuple):
        raise RuntimeError(f"Only tuple of tensors is supported. Got Unsupported input type: {type(inputs).__name__}")
    return tuple(map(_detached, inputs))


def check_backward_validity(inputs: Iterable[Any]) -> None:
    """Warn if no tensor among the inputs requires grad."""
    if not any(inp.requires_grad for inp in inputs if isinstance(inp, Tensor)):
        warnings.warn("None of the inputs have requires_grad=True. Gradients will be None", stacklevel=2)


def get_device_states(*args: Any) -> tuple[list[int], list[Tensor]]:
    """The numbers of the devices that tensors among the arguments lie on, and the states of their generators."""
    from graphtorch.cuda.random import get_rng_state

    found = [arg.get_device() for arg in args if isinstance(arg, Tensor) and arg.device.type not in ("cpu", "meta")]
    return found, [get_rng_state(number) for number in found]


def set_device_states(devices: Sequence[int], states: Sequence[Tensor], *, device_type: str | None = None) -> None:
    """Set the states of devices' generators."""
    from graphtorch.cuda.random import set_rng_state

    for number, held in zip(devices, states, strict=False):
        set_rng_state(held, number)


@contextmanager
def set_checkpoint_debug_enabled(enabled: bool | None) -> Iterator[None]:
    """A block in which `checkpoint` is called with this `debug`, which has no effect here: errors name the values that
    differ in any case."""
    yield


class _Enough(Exception):
    """Ends a second run that has saved everything."""


class CheckpointError(RuntimeError):
    """The second run of a checkpointed function saved something else than the first."""


def noop_context_fn() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """The contexts of the first and the second run when none are given."""
    return nullcontext(), nullcontext()


class _Frame:
    """One call of a checkpointed function: what is needed to run it again, and what that run saves."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        preserve: bool,
        again: Any,
        early_stop: bool,
    ) -> None:
        self.function = function
        self.early_stop = early_stop
        self.args = args
        self.kwargs = kwargs
        self.state = States() if preserve else None
        self.again = again
        self.described: list[tuple[Any, ...]] = []  # (shape, dtype) of what the first run saved
        self.values: dict[int, Tensor] = {}  # what the second run saved, until it has been used
        self.recomputed = False

    def pack(self, tensor: Tensor) -> int:
        """Note that the first run saves a value; returns its number."""
        self.described.append((tuple(tensor.shape), tensor.dtype))
        return len(self.described) - 1

    def unpack(self, number: int) -> Tensor:
        """The value of that number. The function runs again for the first one, and whenever one is asked for twice."""
        if number not in self.values:
            self._run()
        return self.values.pop(number)

    def _run(self) -> None:
        found: list[Tensor] = []

        def keep(tensor: Tensor) -> int:
            found.append(tensor)
            if len(found) > len(self.described):
                raise CheckpointError(
                    "torch.utils.checkpoint: trying to save more tensors during recomputation than during the original "
                    "forward pass."
                )
            if self.early_stop and len(found) == len(self.described):
                raise _Enough
            return len(found) - 1

        held = States() if self.state is not None else None
        grad, state.grad_enabled = state.grad_enabled, True
        try:
            if self.state is not None:
                self.state.restore()
            with self.again, saved_tensors_hooks(keep, found.__getitem__):
                self.function(*map(_detached, self.args), **{k: _detached(v) for k, v in self.kwargs.items()})
        except _Enough:
            pass
        finally:
            state.grad_enabled = grad
            if held is not None:
                held.restore()
        if len(found) != len(self.described):
            raise CheckpointError(
                "torch.utils.checkpoint: A different number of tensors was saved during the original forward and "
                f"recomputation.\nNumber of tensors saved during forward: {len(self.described)}\nNumber of tensors "
                f"saved during recomputation: {len(found)}."
            )
        for number, (tensor, described) in enumerate(zip(found, self.described, strict=True)):
            if (tuple(tensor.shape), tensor.dtype) != described:
                raise CheckpointError(
                    "torch.utils.checkpoint: Recomputed values for the following tensors have different metadata "
                    f"than during the forward pass.\ntensor at position {number}:\nsaved metadata: {described}\n"
                    f"recomputed metadata: {(tuple(tensor.shape), tensor.dtype)}"
                )
        self.values = dict(enumerate(found))


def _detached(value: Any) -> Any:
    """An argument of the second run: the same data, outside of the first run's history."""
    return value.detach().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value


@contextmanager
def _marked(recorder: Any, saving: SavingMode | None = None) -> Any:
    held, start = recorder.origin, len(recorder.graph.nodes)
    if not held.startswith(CHECKPOINT):  # one inside another is a part of that
        recorder.origin = region_origin(sum(n.origin.startswith(CHECKPOINT) for n in recorder.graph.nodes))
    mine = recorder.origin
    try:
        yield
    finally:
        recorder.origin = held
    if saving is not None:
        for node in recorder.graph.nodes[start:]:
            if node.origin == mine and saving.keeps_node(node):
                node.origin = held


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: ContextFunction = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """`function(*args, **kwargs)`, whose intermediate values are computed again in the backward pass.

    The result, its gradients (of any order) and the default generator are those of a plain call; `preserve_rng_state`
    makes the second run draw the same numbers; with `early_stop`, it ends where the last value is saved. There is one
    implementation: `use_reentrant` is accepted and has no effect. Raises CheckpointError in the backward pass if the
    second run saves other tensors than the first.
    See https://docs.pytorch.org/docs/stable/checkpoint.html and Chen et al., "Training Deep Nets with Sublinear Memory
    Cost" (2016)."""
    if determinism_check not in ("default", "none"):
        raise ValueError(f"determinism_check should be one of ['default', 'none'], but got {determinism_check}")
    if use_reentrant and (context_fn is not noop_context_fn or debug):
        raise ValueError("Passing `context_fn` or `debug` is only supported when use_reentrant=False.")
    if state.recorder is not None:
        if not hasattr(state.recorder, "graph"):
            return function(*args, **kwargs)  # a functional transform: its own tape keeps what it needs
        contexts = (None,) if context_fn is noop_context_fn else context_fn()
        saving = contexts[0] if isinstance(contexts[0], SavingMode) else None
        with _marked(state.recorder, saving):
            return function(*args, **kwargs)
    first, second = context_fn()
    if not state.grad_enabled:
        with first:
            return function(*args, **kwargs)
    stops = early_stop if _early_stop is None else _early_stop
    frame = _Frame(function, args, kwargs, preserve_rng_state, second, stops)
    with first, saved_tensors_hooks(frame.pack, frame.unpack):
        return function(*args, **kwargs)


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """Run a sequence of functions (or an nn.Sequential) in `segments` checkpointed parts; the last one is not
    checkpointed. See torch.utils.checkpoint.checkpoint_sequential."""
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    if hasattr(functions, "children"):
        functions = list(functions.children())
    if not 0 < segments <= len(functions):
        warnings.warn(f"{segments} segments of {len(functions)} functions: as many as there are", stacklevel=2)
        segments = max(1, min(segments, len(functions)))
    size = len(functions) // segments
    for start in range(0, size * (segments - 1), size):
        input = checkpoint(
            _chain(functions[start : start + size]), input, use_reentrant=use_reentrant, preserve_rng_state=preserve
        )
    return _chain(functions[size * (segments - 1) :])(input)


__all__ = [
    "SAC_IGNORED_OPS",
    "CheckpointError",
    "CheckpointPolicy",
    "SelectiveCheckpointContext",
    "check_backward_validity",
    "checkpoint",
    "checkpoint_sequential",
    "create_selective_checkpoint_contexts",
    "detach_variable",
    "get_device_states",
    "noop_context_fn",
    "set_checkpoint_debug_enabled",
    "set_checkpoint_early_stop",
    "set_device_states",
]


def _chain(functions: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def run(value: Any) -> Any:
        for function in functions:
            value = function(value)
        return value

    return run
