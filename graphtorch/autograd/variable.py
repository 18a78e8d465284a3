"""`Variable`, which was the differentiable tensor before tensors were.

See https://docs.pytorch.org/docs/stable/autograd.html#variable-deprecated."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from graphtorch.autograd.engine import when_done
from graphtorch.tensor.tensor import Tensor

__all__ = ["Variable", "VariableMeta"]


class VariableMeta(type):
    """Makes every tensor an instance of `Variable`."""

    def __instancecheck__(cls, other: Any) -> bool:
        return isinstance(other, Tensor)

    def __call__(cls, data: Any = None, requires_grad: bool | None = None, volatile: bool | None = None) -> Tensor:
        if volatile:
            warnings.warn(
                "volatile was removed and now has no effect. Use `with torch.no_grad():` instead.",
                UserWarning,
                stacklevel=2,
            )
        if data is None:
            data = Tensor()
        if not isinstance(data, Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {type(data).__name__}")
        if requires_grad and not data.dtype.is_differentiable:
            raise RuntimeError("Only Tensors of floating point and complex dtype can require gradients")
        made: Tensor = data.detach()
        if requires_grad:
            made.requires_grad_()
        return made


class _Engine:
    """What programs call of PyTorch's engine."""

    def queue_callback(self, callback: Callable[[], Any]) -> None:
        """Call a function once the backward pass that is running is done. Raises RuntimeError if none is."""
        when_done(callback)


class Variable(metaclass=VariableMeta):
    """`Variable(tensor)` is that tensor, detached; every tensor is an instance."""

    _execution_engine = _Engine()
