"""Padding of the last dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch import ops
from graphtorch.autograd.state import state
from graphtorch.tensor.tensor import Tensor

__all__ = ["pad"]


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Extend the last dimensions by ``pad``: (before, after) of the last one, then of the one before it, and so on.

    Modes are "constant", "reflect", "replicate" and "circular"; negative amounts cut off.

    Raises:
        RuntimeError: the amounts do not fit the shape.
        ValueError: ``value`` is given to another mode than "constant".
        NotImplementedError: the mode is unknown.
    """
    if len(pad) % 2:
        raise RuntimeError("Padding length must be divisible by 2")
    if mode in ("reflect", "replicate") and state.autocast is not None:
        return state.autocast.run(ops.pad, "float32", (input, pad, mode, value), {})
    return ops.pad(input, pad, mode, value)
