"""Trailing-underscore forms that no record generates: those of view operators, which change a tensor's geometry, and
those of operators that are compositions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.autograd.graph import OperatorNode
from graphtorch.autograd.state import state
from graphtorch.ops.arguments import also_by_name
from graphtorch.ops.build import FUNCTIONS, function, method
from graphtorch.ops.dispatch import _check_result, _scalar_name, check_inplace, tensors_of
from graphtorch.ops.record import lookup
from graphtorch.tensor import dtypes
from graphtorch.tensor.devices import CPU
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import type_of

# -- geometry in place ------------------------------------------------------------------------------------------------


def _become(target: Tensor, name: str, viewed: Callable[[Tensor], Tensor], overload: int = 1) -> Tensor:
    """Give `target` the geometry, and the history, of a view of it. `overload` is the number in the history's name.

    Raises RuntimeError for a leaf that requires grad, as every in-place operator does.
    """
    recorder = state.recorder
    if recorder is not None:
        does = f"{name}() changes the geometry of a tensor in place"
        note_effect = getattr(recorder, "note_effect", None)
        if note_effect is None:
            raise RuntimeError(f"{does}, which can't be recorded")
        note_effect(does)
    check_inplace(target, target.requires_grad, overlapping=True)
    found = viewed(target)
    target._data = found._data
    if target._base is not None:
        target._steps = found._steps
    if found._requires_grad:
        if isinstance(found._node, OperatorNode):
            found._node.overload = overload
        target._node, target._output_index, target._requires_grad = found._node, found._output_index, True
    target._bump_version()
    if target._base is not None:
        target._node_version = target._version if target._node_version >= 0 else -1 - target._version
    return target


@method("t_")
def _t(self: Tensor) -> Tensor:
    """`t` in place. See torch.Tensor.t_."""
    return _become(self, "t_", lambda x: FUNCTIONS["t"](x))


@method("transpose_")
def _transpose(self: Tensor, dim0: int, dim1: int) -> Tensor:
    """`transpose` in place. See torch.Tensor.transpose_."""
    return _become(self, "transpose_", lambda x: FUNCTIONS["transpose"](x, dim0, dim1))


def _swapaxes(self: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose_` under NumPy's name. See torch.Tensor.swapaxes_."""
    return _transpose(self, axis0, axis1)


method("swapaxes_")(_swapaxes)
method("swapdims_")(also_by_name(_swapaxes, "dim0", "dim1"))


@method("squeeze_")
def _squeeze(self: Tensor, dim: Any = None) -> Tensor:
    """`squeeze` in place. See torch.Tensor.squeeze_."""
    overload = 3 if dim is None else 5 if isinstance(dim, tuple | list) else 4
    return _become(self, "squeeze_", lambda x: FUNCTIONS["squeeze"](x, dim), overload)


@method("unsqueeze_")
def _unsqueeze(self: Tensor, dim: int) -> Tensor:
    """`unsqueeze` in place. See torch.Tensor.unsqueeze_."""
    return _become(self, "unsqueeze_", lambda x: FUNCTIONS["unsqueeze"](x, dim))


@function(method=True)
def as_strided_(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """`as_strided` in place. See torch.Tensor.as_strided_."""
    return _become(input, "as_strided_", lambda x: FUNCTIONS["as_strided"](x, size, stride, storage_offset))


# -- compositions in place --------------------------------------------------------------------------------------------


def _in_place(name: str, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The in-place form of a composition: computed as a value, then written."""

    def changing(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        tracked = any(t.requires_grad for t in (input, *tensors_of((*args, *kwargs.values()))))
        check_inplace(input, tracked)
        # What the backward pass reads is the operand as it was.
        value = compute(input.clone() if tracked and state.grad_enabled else input, *args, **kwargs)
        if name == "float_power_" and input.dtype not in (dtypes.float64, dtypes.complex128):
            raise RuntimeError(
                f"the base given to float_power_ has dtype {_scalar_name(input.dtype)} but the operation's result "
                "requires dtype Double"
            )
        _check_result(lookup("clone"), input, type_of(value))
        return input.copy_(value)  # type: ignore[no-any-return]

    changing.__name__ = changing.__qualname__ = name
    changing.__doc__ = f"`{name[:-1]}` in place. See torch.Tensor.{name}."
    return changing


for _name in ("addbmm", "addmv", "addr", "deg2rad", "rad2deg", "float_power", "ldexp", "mvlgamma", "renorm"):
    method(_name + "_")(_in_place(_name + "_", FUNCTIONS[_name]))
for _name in ("addmv", "deg2rad", "rad2deg", "ldexp"):
    FUNCTIONS[_name + "_"] = getattr(Tensor, _name + "_")
method("polygamma_")(_in_place("polygamma_", lambda input, n: FUNCTIONS["polygamma"](n, input)))
setattr(Tensor, "arctan2_", getattr(Tensor, "atan2_"))  # noqa: B009, B010


@function(method=True)
def fill_diagonal_(input: Tensor, fill_value: float, wrap: bool = False) -> Tensor:
    """Set the main diagonal, which starts again below a tall matrix with `wrap`. See torch.Tensor.fill_diagonal_.

    Raises RuntimeError for fewer than two dimensions, and for more than two that are not all of one size.
    """
    if input.ndim < 2:
        raise RuntimeError("dimensions must larger than 1")
    if input.ndim > 2 and len(set(input.shape)) > 1:
        raise RuntimeError("all dimensions of input must be of equal length")
    step, count = sum(input.stride()), min(input.shape)
    input.as_strided((count,), (step,)).fill_(fill_value)
    if wrap and input.ndim == 2 and input.shape[0] > input.shape[1] + 1:
        rows, columns = input.shape
        for first in range(columns + 1, rows, columns + 1):
            length = min(rows - first, columns)
            input[first:].as_strided((length,), (step,)).fill_(fill_value)
    return input


# -- Python functions on every element --------------------------------------------------------------------------------


def _apply_python(name: str, target: Tensor, others: tuple[Tensor, ...], function: Callable[..., Any]) -> Tensor:
    if target._device is not CPU:
        raise TypeError(f"{name} is only implemented on CPU tensors")
    if target.requires_grad or any(t.requires_grad for t in others):
        raise RuntimeError(f"Can't call {name}() on Variable that requires grad. Use var.detach().{name}() instead.")
    check_inplace(target, False)
    array = target._host(name)
    operands = [np.broadcast_to(t._host(name), array.shape) for t in others]
    new = [function(*(x.item() for x in xs)) for xs in zip(array.flat, *(o.flat for o in operands), strict=True)]
    wrong = next((x for x in new if not isinstance(x, int | float | complex | np.generic)), None)
    if wrong is not None:
        raise TypeError(f"must be real number, not {type(wrong).__name__}")
    array[...] = np.array(new).astype(array.dtype).reshape(array.shape)
    target._bump_version()
    return target


@method("apply_")
def _apply(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replace each element by what a Python function makes of it. See torch.Tensor.apply_.

    Raises RuntimeError for a tensor that requires grad, TypeError for one that is not on the CPU. If the function
    raises, nothing is written.
    """
    return _apply_python("apply_", self, (), callable)


@method("map_")
def _map(self: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Replace each element by `callable(own, tensor's)`. See torch.Tensor.map_."""
    return _apply_python("map_", self, (tensor,), callable)


@method("map2_")
def _map2(self: Tensor, x: Tensor, y: Tensor, callable: Callable[[Any, Any, Any], Any]) -> Tensor:
    """Replace each element by `callable(own, x's, y's)`. See torch.Tensor.map2_."""
    return _apply_python("map2_", self, (x, y), callable)
