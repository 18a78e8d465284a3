"""Sparse matrices as operands of this package's ordinary functions: `torch.mm(adjacency, features)`.

Operators ask what is no tensor for `__torch_function__` (see :mod:`graphtorch.overrides`); here are its answers. What
maps 0 to 0 works on the elements that are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphtorch import Tensor
from graphtorch.ops import FUNCTIONS
from graphtorch.sparse import coo
from graphtorch.sparse.coo import SparseTensor

ZERO_TO_ZERO = (
    *("abs", "neg", "sign", "sgn", "square", "sqrt", "relu", "ceil", "floor", "round", "trunc", "sin", "tan", "sinh"),
    *("tanh", "asin", "atan", "asinh", "atanh", "expm1", "log1p", "erf", "erfinv", "deg2rad", "rad2deg"),
)


def _elementwise(name: str) -> Callable[[SparseTensor], SparseTensor]:
    def apply(input: SparseTensor) -> SparseTensor:
        given = input.coalesce()
        return given._with_values(FUNCTIONS[name](given._values_))

    apply.__name__ = name
    apply.__doc__ = f"`{name}` of the elements that are there. See torch.{name}."
    return apply


def pow(input: SparseTensor, exponent: Any) -> SparseTensor:
    """A positive power of the elements. Raises RuntimeError for others, which 0 does not stay 0 under."""
    if isinstance(exponent, Tensor) or exponent <= 0:
        raise RuntimeError("pow: a sparse tensor takes a positive number as exponent")
    given = input.coalesce()
    return given._with_values(given._values_**exponent)


def cat(tensors: Sequence[SparseTensor], dim: int = 0) -> SparseTensor:
    """Sparse tensors one after the other along a sparse dimension.

    Raises RuntimeError for shapes that do not fit, TypeError where one is dense. See torch.cat."""
    first = tensors[0]
    if not all(isinstance(t, SparseTensor) for t in tensors):
        raise TypeError("cat: expected all tensors to be sparse")
    dim %= first.ndim
    if dim >= first.sparse_dim():
        raise RuntimeError(f"cat: dimension {dim} is no sparse dimension")
    indices, length = [], 0
    for t in tensors:
        if any(a != b for d, (a, b) in enumerate(zip(t.shape, first.shape, strict=True)) if d != dim):
            raise RuntimeError(f"cat: sizes {list(first.shape)} and {list(t.shape)} differ outside of dimension {dim}")
        shift = FUNCTIONS["zeros_like"](t._index)
        shift[dim] = length
        indices.append(t._index + shift)
        length += t.shape[dim]
    shape = (*first.shape[:dim], length, *first.shape[dim + 1 :])
    values = FUNCTIONS["cat"]([t._values_ for t in tensors])
    made = SparseTensor(FUNCTIONS["cat"](indices, 1), values, shape)
    return made.coalesce() if all(t.is_coalesced() for t in tensors) else made


def index_select(input: SparseTensor, dim: int, index: Tensor) -> SparseTensor:
    """The slices at these places of a sparse dimension. See torch.index_select."""
    dim %= input.ndim
    given = input.coalesce()
    found, place = (given._index[dim].unsqueeze(0) == index.unsqueeze(1)).nonzero(as_tuple=True)
    where = given._index.index_select(1, place)
    where[dim] = found
    shape = (*input.shape[:dim], index.shape[0], *input.shape[dim + 1 :])
    return SparseTensor(where, given._values_.index_select(0, place), shape).coalesce()


def _product(input: Any, other: Any) -> Any:
    return input @ other


def _add(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    return input + (other if type(alpha) is int and alpha == 1 else other * alpha)


def _sub(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    return _add(input, other, alpha=-alpha)


def _linear(input: Tensor, weight: SparseTensor, bias: Tensor | None = None) -> Tensor:
    found: Tensor = input @ weight.t()
    return found if bias is None else found + bias


def _sum(input: SparseTensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    if keepdim:
        raise NotImplementedError("sum: keepdim is not implemented for sparse tensors")
    return coo.sum(input, dim if dim != () else None, dtype)


HANDLERS: dict[str, Callable[..., Any]] = {
    **{name: _elementwise(name) for name in ZERO_TO_ZERO},
    "add": _add,
    "addmm": coo.addmm,
    "cat": cat,
    "div": lambda input, other, **unused: input / other,
    "index_select": index_select,
    "linear": _linear,
    "mm": _product,
    "mul": lambda input, other: input * other,
    "mv": _product,
    "pow": pow,
    "sub": _sub,
    "sum": _sum,
    "transpose": lambda input, dim0, dim1: input.transpose(dim0, dim1),
}


def answer(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any] | None) -> Any:
    """The result of an operator with sparse operands. Raises NotImplementedError for one that has none."""
    handler = HANDLERS.get(function.__name__)
    if handler is None:
        raise NotImplementedError(
            f"{function.__name__}: not implemented for sparse tensors; to_dense() gives a dense one"
        )
    return handler(*args, **(kwargs or {}))


for _name in (*ZERO_TO_ZERO, "index_select", "pow"):
    setattr(SparseTensor, _name, HANDLERS[_name])
