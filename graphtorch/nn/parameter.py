"""Parameter and Buffer: tensors that a Module registers when they are assigned to an attribute."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch import ops
from graphtorch.tensor.tensor import Tensor

__all__ = ["Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter", "is_lazy"]


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


_NO_SHAPE = (
    "Can't access the shape of an uninitialized parameter or buffer. This error usually happens in `load_state_dict` "
    "when trying to load an uninitialized parameter into an initialized one. Call `forward` to initialize the "
    "parameters before accessing their attributes."
)


class _NoValues(np.ndarray):
    """The array of what has no shape: operators that look at arrays before shapes are refused as well."""

    def __array_ufunc__(self, *args: Any, **named: Any) -> Any:
        raise RuntimeError(_NO_SHAPE)

    def __array_function__(self, *args: Any, **named: Any) -> Any:
        raise RuntimeError(_NO_SHAPE)


class _Uninitialized:
    """What parameters and buffers without a shape share: a dtype, a device, and `materialize`."""

    cls_to_become: Any

    @property
    def shape(self) -> Any:
        raise RuntimeError(_NO_SHAPE)

    def materialize(self: Any, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Give this very object a shape and memory, of undefined values; from then on it is an ordinary one."""
        made = ops.empty(tuple(shape), device=device or self.device, dtype=dtype or self.dtype)
        self.__class__ = self.cls_to_become
        self._data = made._data
        self._dtype = made._dtype
        self._device = made._device
        self._storage = made._shared_storage()

    def convert(self: Any, function: Any) -> None:
        """Take over the dtype and device that `function` gives to a tensor like this one."""
        made = function(ops.empty(0, device=self.device, dtype=self.dtype))
        self._data = made._data.view(_NoValues)
        self._dtype = made._dtype
        self._device = made._device

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.requires_grad, self.device, self.dtype)
        return memo[id(self)]

    def __repr__(self, **unused: Any) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(_Uninitialized, Parameter):  # type: ignore[misc]
    """A parameter whose shape is not known yet; operators refuse it.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.parameter.UninitializedParameter.html
    """

    cls_to_become = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> UninitializedParameter:
        made: Any = super().__new__(cls, ops.empty(0, device=device, dtype=dtype), requires_grad)
        made._data = made._data.view(_NoValues)
        return made

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        pass


class UninitializedBuffer(_Uninitialized, Tensor):  # type: ignore[misc]
    """A buffer whose shape is not known yet; operators refuse it."""

    cls_to_become = Tensor

    def __new__(cls, requires_grad: bool = False, device: Any = None, dtype: Any = None) -> UninitializedBuffer:
        empty = ops.empty(0, device=device, dtype=dtype)
        buffer: UninitializedBuffer = object.__new__(cls)
        buffer._data = empty._data.view(_NoValues)
        buffer._dtype = empty._dtype
        buffer._device = empty._device
        buffer.requires_grad = requires_grad
        return buffer

    def __init__(self, requires_grad: bool = False, device: Any = None, dtype: Any = None) -> None:
        pass


def is_lazy(param: object) -> bool:
    """Whether it is a parameter or buffer that has no shape yet."""
    return isinstance(param, _Uninitialized)


def factory_kwargs(kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """What a layer hands to `empty` and its like, of the keyword arguments that it got: `device`, `dtype`,
    `memory_format`, and those in a dictionary `factory_kwargs`, for names that the layer uses itself.

    Raises TypeError for another argument, and for one that is given in both places. See torch.nn.factory_kwargs.
    """
    names = {"device", "dtype", "memory_format"}
    given = dict(kwargs or {})
    inner = dict(given.pop("factory_kwargs", {}))
    if not given.keys() <= names:
        raise TypeError(f"unexpected kwargs {given.keys() - names}")
    for name in given.keys() & inner.keys():
        raise TypeError(f"{name} specified twice, in **kwargs and in factory_kwargs")
    return inner | given
