"""Parameter and Buffer: tensors that a Module registers when they are assigned to an attribute."""

from __future__ import annotations

from typing import Any

from graphtorch import ops
from graphtorch.tensor.tensor import Tensor

__all__ = ["Buffer", "Parameter"]


class Parameter(Tensor):
    """A tensor that is a parameter of a module.

    Assigning one to an attribute of a :class:`~graphtorch.nn.Module` registers it there.

    Args:
        data: the values; shared, not copied. Default: an empty tensor.
        requires_grad: whether gradients are computed for it.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.parameter.Parameter.html
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = ops.empty(0)
        parameter: Parameter = object.__new__(cls)
        parameter._data = data._data
        parameter._dtype = data._dtype
        parameter._device = data._device
        parameter._storage = data._shared_storage()
        parameter.requires_grad = requires_grad
        return parameter

    def __repr__(self, *, tensor_contents: str | None = None) -> str:  # type: ignore[override]
        return "Parameter containing:\n" + super().__repr__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        if id(self) in memo:
            found: Parameter = memo[id(self)]
            return found
        result = type(self)(self.detach().clone(), self.requires_grad)
        memo[id(self)] = result
        return result


class _BufferMeta(type(Tensor)):  # type: ignore[misc]
    """Makes ``isinstance(t, Buffer)`` true for the plain tensors that ``Buffer(...)`` returns."""

    def __instancecheck__(self, instance: Any) -> bool:
        if self is Buffer:
            return isinstance(instance, Tensor) and getattr(instance, "_is_buffer", False)
        return super().__instancecheck__(instance)


class Buffer(Tensor, metaclass=_BufferMeta):
    """A tensor that becomes a buffer of the module it is assigned to.

    Args:
        data: the values. Default: an empty tensor.
        persistent: whether it is part of the module's ``state_dict``.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.parameter.Buffer.html
    """

    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        if data is None:
            data = ops.empty(0)
        result = data.detach().requires_grad_(data.requires_grad)
        result.persistent = persistent
        result._is_buffer = True
        return result
