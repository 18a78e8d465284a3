"""Per-thread interpreter state: the gradient mode and the active recorder.

A recorder (the capture of `@compile`, or a pass that builds IR by calling operators) intercepts every operator call of
its thread. Lower layers know of it only through the `Recorder` protocol here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from graphtorch.ops.record import Operator


class Recorder(Protocol):
    """What an operator call, a Tensor or a Module may ask of the active recorder."""

    def call(self, op: Operator, args: tuple[Any, ...]) -> Any:
        """Record one operator call; `args` are normalised, in the order of the operator's parameters."""

    def call_inplace(self, op: Operator, args: tuple[Any, ...]) -> Any:
        """Record `args[0] <- op(*args)`; returns `args[0]`."""


class State(threading.local):
    """Attributes are per thread; the class attributes are each new thread's initial values."""

    grad_enabled: bool = True
    inference: bool = False
    anomaly: bool = False
    recorder: Any = None
    autocast: Any = None  # what operators are cast to inside `autocast` regions (ops/autocast.py)
    multithreading: bool = True
    saved_copies: Any = None  # of the `allow_mutation_on_saved_tensors` around
    saved_hooks_disabled: str | None = None  # the error of who enters `saved_tensors_hooks`
    saved_hooks: Any = None  # (pack, unpack) of the innermost `saved_tensors_hooks`
    passes: int = 0  # backward passes that are running, one inside of another
    after_pass: tuple[Any, ...] = ()  # what is called when the outermost is done
    modes: tuple[Any, ...] = ()  # dispatch modes, innermost last (ops/modes.py)


state = State()
modes_entered: list[Any] = []  # by all threads; nearly always empty, which is quicker to see than `state.modes`


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Send every operator call of this thread to `recorder`."""
    previous = state.recorder
    state.recorder = recorder
    try:
        yield
    finally:
        state.recorder = previous


@contextmanager
def recorder_paused() -> Iterator[None]:
    """Run eagerly inside a capture, without gradients: what is computed here becomes an input of the captured graph."""
    recorder, grad = state.recorder, state.grad_enabled
    state.recorder, state.grad_enabled = None, False
    try:
        yield
    finally:
        state.recorder, state.grad_enabled = recorder, grad
