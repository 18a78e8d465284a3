"""The modes of a thread that a function may leave changed: grad mode, inference mode, default dtype, autocast.

A capture puts them back. What the function changed for good (not just for a block inside of it) is a side effect, which
a graph can't repeat."""

from __future__ import annotations

from graphtorch.autograd.state import state
from graphtorch.ops.autocast import settings
from graphtorch.tensor import dtypes


class Modes:
    """The modes as they are now."""

    def __init__(self) -> None:
        self.grad_enabled = state.grad_enabled
        self.inference = state.inference
        self.anomaly = state.anomaly
        self.dtype = dtypes.get_default_dtype()
        self.autocast = settings.snapshot()

    def restore(self) -> list[str]:
        """Put the modes back; returns what had changed, in words."""
        changed: list[str] = []
        if state.grad_enabled is not self.grad_enabled:
            changed.append("the grad mode")
        if state.inference is not self.inference:
            changed.append("the inference mode")
        if state.anomaly is not self.anomaly:
            changed.append("the anomaly mode")
        if dtypes.get_default_dtype() is not self.dtype:
            changed.append("the default dtype")
            dtypes.set_default_dtype(self.dtype)
        if settings.snapshot() != self.autocast:
            changed.append("the autocast settings")
        settings.restore(self.autocast)
        state.grad_enabled, state.inference, state.anomaly = self.grad_enabled, self.inference, self.anomaly
        return changed
