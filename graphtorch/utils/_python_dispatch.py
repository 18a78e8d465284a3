"""Modes that see operator calls, under the name of PyTorch's module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphtorch.autograd.state import state
from graphtorch.ops.modes import TorchDispatchMode

__all__ = ["TorchDispatchMode"]


def _get_current_dispatch_mode() -> TorchDispatchMode | None:
    """The innermost mode of this thread."""
    return state.modes[-1] if state.modes else None


def _get_current_dispatch_mode_stack() -> list[TorchDispatchMode]:
    """The modes of this thread, innermost last."""
    return list(state.modes)


@contextmanager
def _disable_current_modes() -> Iterator[list[TorchDispatchMode]]:
    """A block without them."""
    held, state.modes = state.modes, ()
    try:
        yield list(held)
    finally:
        state.modes = held
