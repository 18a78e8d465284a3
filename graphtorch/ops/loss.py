"""`nll_loss`: minus the log-probability of the target class.

Its decomposition and derivative compare every class with the target instead of indexing, so that they fuse with the
softmax before and after them. The other losses are compositions, in `nn.functional`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.autograd.state import state
from graphtorch.ops.build import FUNCTIONS, operator
from graphtorch.ops.checks import check_target
from graphtorch.ops.dispatch import _scalar_name
from graphtorch.ops.pointwise import not_implemented
from graphtorch.ops.record import OPAQUE, sample
from graphtorch.ops.shaping import reshape
from graphtorch.ops.strides import product
from graphtorch.ops.view import unsqueeze
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of


def _class_dim(rank: int) -> int:
    return 0 if rank == 1 else 1


def _nll_type(input: Any, target: Any, weight: Any, reduction: str, ignore_index: int) -> TensorType:
    shape, wanted = list(input.shape), list(target.shape)
    if not shape:
        raise ValueError(f"Expected 1 or more dimensions (got {len(shape)})")
    dim = _class_dim(len(shape))
    if dim == 1 and (not wanted or (shape[0] is not wanted[0] and shape[0] != wanted[0])):
        raise ValueError(
            f"Expected input batch_size ({shape[0]}) to match target batch_size ({wanted[0] if wanted else 1})."
        )
    samples = [*shape[:dim], *shape[dim + 1 :]]
    if len(shape) == 1 and len(wanted) == 1 and wanted[0] != 1:
        raise ValueError(f"For 1D input, 1D target must have size 1, but got target size: {wanted[0]}")
    if samples != wanted:
        raise RuntimeError(f"Expected target size {samples}, got {wanted}")
    if input.dtype.category != dtypes.FLOATING:
        raise not_implemented("nll_loss_out_frame", input.dtype)
    if target.dtype not in (dtypes.int64, dtypes.uint8):
        raise RuntimeError(f"expected target dtype to be Long or Byte, but got {_scalar_name(target.dtype)}")
    flat = weight is None or len(shape) > 2 or len(weight.shape) == 1
    if weight is not None and (not flat or product(weight.shape) != shape[dim]):
        raise RuntimeError(
            f"weight tensor should be defined either for all {shape[dim]} classes or no classes but got weight tensor "
            f"of shape: {list(weight.shape)}"
        )
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return type_of(input).with_shape(tuple(samples) if reduction == "none" else ())


def _nll_numpy(input: Any, target: Any, weight: Any, reduction: str, ignore_index: int) -> Any:
    dim = _class_dim(input.ndim)
    classes = input.shape[dim]
    kept = target != ignore_index
    if not kept.all():
        at = np.where(kept, target, 0)
    else:
        at, kept = target, None
    if at.size and (at.min() < 0 or at.max() >= classes):
        raise IndexError(f"Target {at[(at < 0) | (at >= classes)][0]} is out of bounds.")
    wide = np.float32 if input.dtype.itemsize == 2 else input.dtype
    if input.ndim == 2:
        picked = input[np.arange(len(at)), at].astype(wide, copy=False)
    else:
        picked = np.take_along_axis(input, np.expand_dims(at, dim), dim).squeeze(dim).astype(wide, copy=False)
    loss = -picked
    each = None if weight is None else weight.reshape(-1).astype(wide, copy=False)[at]
    if each is not None:
        loss = loss * each
    if kept is not None:
        loss = np.where(kept, loss, 0).astype(wide, copy=False)
        each = np.where(kept, 1 if each is None else each, 0).astype(wide, copy=False)
    if reduction == "mean":
        total = loss.size if each is None else each.sum(dtype=wide)
        loss = np.asarray(loss.sum(dtype=wide)) / total
    elif reduction == "sum":
        loss = loss.sum(dtype=wide)
    return np.asarray(loss).astype(input.dtype, copy=False)


def _hits(input: Any, target: Any, ignore_index: int, checked: bool = False) -> tuple[Any, int]:
    """For every sample and class whether the class is the sample's target; and the class dimension. `checked`: targets
    that are no class, and not to be ignored, are an error."""
    rank = len(input.shape)
    dim = _class_dim(rank)
    classes = FUNCTIONS["arange"](input.shape[dim], device=input.device)
    if dim < rank - 1:
        classes = reshape(classes, (input.shape[dim], *(1 for _ in range(rank - 1 - dim))))
    wanted = unsqueeze(target, dim)
    if checked:
        kept = FUNCTIONS["where"](target == ignore_index, 0, target).to(dtypes.int64)
        hit = classes == unsqueeze(check_target(kept, input.shape[dim]), dim)
    else:
        hit = classes == wanted
    classes_count = input.shape[dim]
    if checked or not (type(classes_count) is int and not 0 <= ignore_index < classes_count):
        hit = hit.logical_and(wanted != ignore_index)
    return hit, dim


def _by_class(weight: Any, rank: int, dim: int) -> Any:
    return reshape(weight, (product(weight.shape), *(1 for _ in range(rank - 1 - dim))))


def _total(input: Any, target: Any, weight: Any, ignore_index: int) -> Any:
    """What a mean divides by: the number, or the sum of the weights, of the samples that count."""
    if weight is None:
        return (target != ignore_index).sum(dtype=input.dtype)
    hit, dim = _hits(input, target, ignore_index)
    return FUNCTIONS["where"](hit, _by_class(weight, len(input.shape), dim), 0).to(input.dtype).sum()


def _nll_decompose(input: Any, target: Any, weight: Any, reduction: str, ignore_index: int) -> Any:
    hit, dim = _hits(input, target, ignore_index, checked=True)
    scored = -input if weight is None else -input * _by_class(weight, len(input.shape), dim)
    loss = FUNCTIONS["where"](hit, scored, 0).sum(dim)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.sum() / _total(input, target, weight, ignore_index)


def _nll_derivative(g: Any, input: Any, target: Any, weight: Any, reduction: str, ignore_index: int) -> Any:
    # In a graph, the loss itself may be of no use to anybody, and so not look at the targets.
    checked = state.recorder is not None and not getattr(state.recorder, "after_forward", False)
    hit, dim = _hits(input, target, ignore_index, checked=checked)
    if reduction == "none":
        g = unsqueeze(g, dim)
    elif reduction == "mean":
        g = g / _total(input, target, weight, ignore_index)
    slope = -g if weight is None else -g * _by_class(weight, len(input.shape), dim)
    return FUNCTIONS["where"](hit, slope, 0)


def _nll_samples(make: Any) -> Any:
    def weight() -> Any:
        return make(4, low=0.5, requires_grad=False)

    yield sample(make(5, 4), make.ints(5))
    yield sample(make(5, 4), make.ints(5), weight())
    yield sample(make(5, 4), make.ints(5), reduction="none")
    yield sample(make(2, 4, 3), make.ints(2, 3), weight(), reduction="sum", ignore_index=1)
    yield sample(make(2, 4, 3), make.ints(2, 3), weight(), ignore_index=2)
    yield sample(make(4), make.ints(), reduction="none")


nll_loss: Callable[..., Tensor] = operator(
    'nll_loss(Tensor input, Tensor target, Tensor? weight=None, str reduction="mean", int ignore_index=-100)',
    type=_nll_type,
    numpy=_nll_numpy,
    kind=OPAQUE,
    derivative={"input": _nll_derivative},
    decompose=_nll_decompose,
    samples=_nll_samples,
    categories="f",
    method=False,
    doc="Minus the entry of `input` at the target class, times the class weight.",
)
