"""The public spellings of view operators: varargs forms, `reshape` and what is made of it, splitting, transposition."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.autograd.graph import renamed
from graphtorch.autograd.state import state
from graphtorch.ops import view as views
from graphtorch.ops.arguments import also_by_name
from graphtorch.ops.build import function, method, operator
from graphtorch.ops.dispatch import _scalar_name
from graphtorch.ops.record import VIEW, sample
from graphtorch.ops.shapes import wrap_dim
from graphtorch.ops.strides import channels_innermost, concrete, infer_size, layout_of, product, view_strides
from graphtorch.ops.view import select, transpose
from graphtorch.tensor import dtypes
from graphtorch.tensor.formats import channels_last, channels_last_3d
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of


def sizes_of(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The sizes that a caller spelled as `f(2, 3)`, `f((2, 3))` or `f(torch.Size([2, 3]))`."""
    if len(given) == 1 and isinstance(given[0], tuple | list):
        return tuple(given[0])
    return given


def _named(given: tuple[Any, ...], named: Any, operator: str, name: str) -> tuple[Any, ...]:
    """Varargs that may also be passed by their PyTorch name."""
    if named is not None:
        return tuple(named) if isinstance(named, tuple | list) else (named,)
    if not given:
        raise TypeError(f'{operator}() missing 1 required positional arguments: "{name}"')
    return sizes_of(given)


# -- reinterpreting memory --------------------------------------------------------------------------------------------


def _view_dtype_type(input: Any, dtype: dtypes.dtype) -> TensorType:
    own, shape = type_of(input), tuple(input.shape)
    if own.dtype.itemsize == dtype.itemsize:
        return own.with_dtype(dtype)
    if not shape:
        raise RuntimeError(
            "self.dim() cannot be 0 to view " + _as_names(own.dtype, dtype) + " (different element sizes)"
        )
    if dtype.itemsize < own.dtype.itemsize:
        last = shape[-1] * (own.dtype.itemsize // dtype.itemsize)
    else:
        ratio = dtype.itemsize // own.dtype.itemsize
        if shape[-1] % ratio != 0:
            raise RuntimeError(
                f"self.size(-1) must be divisible by {ratio} to view {_as_names(own.dtype, dtype)} (different element "
                f"sizes), but got {shape[-1]}"
            )
        last = shape[-1] // ratio
    return TensorType(dtype, (*shape[:-1], last), own.device)


def _as_names(old: dtypes.dtype, new: dtypes.dtype) -> str:
    return f"{old.name} as {new.name}"


def _view_dtype_numpy(input: Any, dtype: dtypes.dtype) -> Any:
    if input.ndim and input.dtype.itemsize != dtype.itemsize and input.strides[-1] != input.itemsize:
        raise RuntimeError("self.stride(-1) must be 1 to view a tensor under a dtype of another element size")
    return input.view(dtype.numpy)


view_dtype: Callable[..., Tensor] = operator(
    "view_dtype(Tensor input, dtype dtype)",
    type=_view_dtype_type,
    numpy=_view_dtype_numpy,
    kind=VIEW,
    scatter=lambda base, new, dtype: view_dtype(new.contiguous(), base.dtype),
    samples=lambda make: [sample(make(2, 4), dtypes.uint8)],
    categories="f",
    doc="The same bytes as elements of another type.",
    public=False,
    method=False,
)


def _view_as_real_type(input: Any) -> TensorType:
    if not input.dtype.is_complex:
        raise RuntimeError("view_as_real is only supported for complex tensors")
    return TensorType(input.dtype.to_real(), (*input.shape, 2), input.device)


def _view_as_real_numpy(input: Any) -> Any:
    parts = input.real
    return np.lib.stride_tricks.as_strided(parts, (*parts.shape, 2), (*parts.strides, parts.itemsize))


view_as_real: Callable[..., Tensor] = operator(
    "view_as_real(Tensor input)",
    type=_view_as_real_type,
    numpy=_view_as_real_numpy,
    kind=VIEW,
    derivative={"input": lambda g: view_as_complex(g.contiguous())},
    scatter=lambda base, new: view_as_complex(new.contiguous()),
    samples=lambda make: [sample(make(2, 3)), sample(make())],
    categories="c",
    method=False,
    doc="The real and imaginary parts as a new last dimension of size 2.",
)


def _view_as_complex_type(input: Any) -> TensorType:
    if not input.dtype.is_floating_point or input.dtype.itemsize == 2:  # no complex half precision here
        raise RuntimeError(
            "view_as_complex is only supported for half, float and double tensors, but got a tensor of scalar type: "
            + _scalar_name(input.dtype)
        )
    if not len(input.shape):
        raise RuntimeError("Input tensor must have one or more dimensions")
    if input.shape[-1] != 2:
        raise RuntimeError("Tensor must have a last dimension of size 2")
    if isinstance(input, Tensor) and type(input._data) is np.ndarray and input.storage_offset() % 2:
        raise RuntimeError("Tensor must have a storage_offset divisible by 2")
    return TensorType(input.dtype.to_complex(), tuple(input.shape[:-1]), input.device)


def _view_as_complex_numpy(input: Any) -> Any:
    if input.size and input.strides[-1] != input.itemsize:
        raise RuntimeError("Tensor must have a last dimension with stride 1")
    odd = [i for i, s in enumerate(input.strides[:-1]) if s % (2 * input.itemsize) and input.shape[i] > 1]
    if input.size and odd:
        at = odd[0]
        raise RuntimeError(f"Tensor must have a stride divisible by 2 for all but last dimension (dimension {at})")
    return input.view(np.result_type(input.dtype, np.complex64))[..., 0]


view_as_complex: Callable[..., Tensor] = operator(
    "view_as_complex(Tensor input)",
    type=_view_as_complex_type,
    numpy=_view_as_complex_numpy,
    kind=VIEW,
    derivative={"input": lambda g: view_as_real(g)},
    scatter=lambda base, new: view_as_real(new),
    samples=lambda make: [sample(make(3, 2)), sample(make(2, 3, 2))] if make.dtype.itemsize >= 4 else [],
    categories="f",
    method=False,
    doc="Pairs along the last dimension as complex numbers.",
)


@function(method=True)
def permute(input: Tensor, *dims: Any, **named: Any) -> Tensor:
    """`input` with its dimensions in the order `dims`. See torch.permute."""
    if not dims and not named:
        dims = ((),)
    return views.permute(input, _named(dims, named.get("dims"), "permute", "dims"))


@method("expand")
def expand(input: Tensor, *size: Any, **named: Any) -> Tensor:
    """`input` with dimensions of size 1 repeated, without copying; -1 keeps a size. See torch.Tensor.expand."""
    return views.expand(input, _named(size, named.get("size"), "expand", "size"))


@method("view")
def view(input: Tensor, *shape: Any, **named: Any) -> Tensor:
    """The same memory under another shape, or (given a dtype) as elements of another type. See torch.Tensor.view.

    Raises RuntimeError where only a copy could have that shape.
    """
    if not named and shape and type(shape[0]) is int:
        return views.view(input, shape)
    given = named.get("dtype", shape[0] if len(shape) == 1 else None)
    if isinstance(given, dtypes.dtype):
        return input if given is input.dtype else view_dtype(input, given)
    return views.view(input, _named(shape, named.get("size"), "view", "size"))


@function(method=True)
def reshape(input: Tensor, *shape: Any, **named: Any) -> Tensor:
    """`input` under another shape: a view where one exists, else a copy. See torch.reshape."""
    given = _named(shape, named.get("shape"), "reshape", "shape")
    layout = input._layout()
    if type(input._data) is np.ndarray and layout.flags.c_contiguous:
        return views.view(input, given)
    size = infer_size(input.shape, given)
    if layout.flags.c_contiguous or (
        view_strides(layout.shape, layout.strides, [concrete(n) for n in size]) is not None
    ):
        return views.view(input, size)
    return renamed(views.view(input.contiguous(), size), "UnsafeViewBackward0")


def channels_as(result: Tensor, source: Tensor) -> Tensor:
    """The result of a composition channels last, if its source is, as the kernels that PyTorch has there leave it."""
    layout = source._layout()
    if layout.flags.c_contiguous or result.ndim not in (4, 5) or layout.ndim != result.ndim:
        return result
    if not channels_innermost(*layout_of(layout)):
        return result
    made: Tensor = result.to(memory_format=channels_last if result.ndim == 4 else channels_last_3d)
    return made


@function(method=True)
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merge the dimensions from `start_dim` to `end_dim` into one. See torch.flatten."""
    shape = tuple(input.shape)
    rank = len(shape)
    start, end = wrap_dim(start_dim, rank), wrap_dim(end_dim, rank)
    if start > end:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if not rank:
        return reshape(input, (1,))
    if start == end:
        return input
    return reshape(input, (*shape[:start], product(shape[start : end + 1]), *shape[end + 1 :]))


@function(method=True)
def ravel(input: Tensor) -> Tensor:
    """One dimension, in row-major order. See torch.ravel."""
    rows = input.contiguous()  # a view of other strides would not do
    return reshape(rows, (-1,)) if input.ndim != 1 else rows


@function(method=True)
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Split one dimension into several. See torch.unflatten."""
    shape = tuple(input.shape)
    dim = wrap_dim(dim, len(shape))
    if not sizes:
        raise RuntimeError("unflatten: sizes must be non-empty")
    try:
        inner = infer_size(shape[dim : dim + 1], tuple(sizes))
    except RuntimeError:
        raise RuntimeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {dim} ({shape[dim]}) in "
            "the input tensor"
        ) from None
    return views.view(input, (*shape[:dim], *inner, *shape[dim + 1 :]))


@method("view_as")
def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`input.view(other.size())`. See torch.Tensor.view_as."""
    return views.view(input, tuple(other.shape))


@method("reshape_as")
def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`input.reshape(other.size())`. See torch.Tensor.reshape_as."""
    return reshape(input, tuple(other.shape))


@method("expand_as")
def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`input.expand(other.size())`. See torch.Tensor.expand_as."""
    return views.expand(input, tuple(other.shape))


@function(method=True)
def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """`input.expand(size)`. See torch.broadcast_to."""
    return views.expand(input, tuple(size))


@function(method=True)
def as_strided(input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    """Any size and strides (in elements) over the storage of `input`. See torch.as_strided.

    Raises RuntimeError for elements outside the storage.
    """
    # The record counts from its operand's first element.
    base = _memory(input)
    if base is input:
        offset = 0 if storage_offset is None else storage_offset - input.storage_offset()
    else:
        offset = input._data.place if storage_offset is None else storage_offset - base.storage_offset()
    check = getattr(state.recorder, "check_reach", None)
    if check is not None:
        check(base, tuple(size), tuple(stride), offset)
    return views.as_strided_(base, tuple(size), tuple(stride), offset, tuple(base.stride()))


def _memory(input: Tensor) -> Tensor:
    """The tensor whose elements `as_strided` reaches.

    That is `input` itself, except for a recorded view: a value has no memory around it, so its base takes its place.
    """
    storage = getattr(input._data, "storage", None)
    base: Tensor | None = None if storage is None else storage.base
    return input if base is None or base.dtype is not input.dtype else base


@function(method=True)
def as_strided_scatter(
    input: Tensor, src: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Tensor:
    """`input` with the elements of its `as_strided` replaced by `src`. See torch.as_strided_scatter."""
    base = input.contiguous()
    return views.as_strided_scatter(base, src, tuple(size), tuple(stride), storage_offset or 0, None)


# -- transposition ----------------------------------------------------------------------------------------------------


@function(method=True)
def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Move dimensions to other positions; the rest keep their order. See torch.movedim."""
    rank = input.ndim
    given = (source,) if isinstance(source, int) else tuple(source)
    wanted = (destination,) if isinstance(destination, int) else tuple(destination)
    if len(given) != len(wanted):
        raise RuntimeError(
            "movedim: Invalid source or destination dims: source ("
            f"{list(given)} dims) should contain the same number of dims as destination ({list(wanted)} dims)"
        )
    old, new = [wrap_dim(d, rank) for d in given], [wrap_dim(d, rank) for d in wanted]
    for name, dims, spelled in (("source", old, given), ("destination", new, wanted)):
        if len(set(dims)) != len(dims):
            raise RuntimeError(f"movedim: repeated dim in `{name}` ({list(spelled)})")
    if not rank:
        return views.permute(input, ())
    order = [d for d in range(rank) if d not in old]
    for at, d in sorted(zip(new, old, strict=True)):
        order.insert(at, d)
    return views.permute(input, tuple(order))


@function(method=True)
def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose` under NumPy's name. See torch.swapaxes."""
    return transpose(input, axis0, axis1)


function(method=True, name="moveaxis")(movedim)
function(method=True, name="swapdims")(also_by_name(swapaxes, "dim0", "dim1"))


def _matrix_transpose(input: Tensor, name: str) -> Tensor:
    if input.ndim < 2:
        raise RuntimeError(
            f"tensor.{name} is only supported on matrices or batches of matrices. Got {input.ndim}-D tensor."
        )
    return transpose(input, -2, -1)


def _reversed_dims(input: Tensor) -> Tensor:
    if input.ndim not in (0, 2):
        warnings.warn(
            "The use of `x.T` on tensors of dimension other than 2 to reverse their shape is deprecated and it will "
            "throw an error in a future release. Consider `x.mT` to transpose batches of matrices or "
            "`x.permute(*torch.arange(x.ndim - 1, -1, -1))` to reverse the dimensions of a tensor.",
            stacklevel=3,
        )
    if input.ndim == 2:
        return renamed(views.t(input), "PermuteBackward0")
    return views.permute(input, tuple(reversed(range(input.ndim))))


def _conjugate(input: Tensor) -> Tensor:
    return input.conj() if input.dtype.is_complex else input


@function(method=True)
def adjoint(input: Tensor) -> Tensor:
    """The conjugate of the last two dimensions' transpose. See torch.adjoint."""
    return _conjugate(_matrix_transpose(input, "adjoint()"))


def _conjugate_transpose(input: Tensor) -> Tensor:
    if input.ndim not in (0, 2):
        raise RuntimeError(f"tensor.H is only supported on matrices (2-D tensors). Got {input.ndim}-D tensor.")
    return _conjugate(transpose(input, 0, 1) if input.ndim else input)


for _name, _getter in {
    "T": _reversed_dims,
    "mT": lambda input: _matrix_transpose(input, "mT"),
    "H": _conjugate_transpose,
    "mH": lambda input: _conjugate(_matrix_transpose(input, "mH")),
}.items():
    setattr(Tensor, _name, property(_getter))


# -- splitting --------------------------------------------------------------------------------------------------------


@function(method=True)
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`length` elements of a dimension from `start` on. See torch.narrow."""
    if not input.ndim:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    if isinstance(start, Tensor):
        if start.ndim or start.dtype.category != dtypes.INTEGRAL:
            raise RuntimeError("start must be an 0-dim integral Tensor.")
        start = start.item()
    dim = wrap_dim(dim, input.ndim)
    size = input.shape[dim]
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if not -size <= start <= size:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-size}, {size}], but got {start})")
    if start < 0:
        start = start + size
    if start > size - length:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({size}).")
    return views.slice_(input, dim, start, start + length, 1)


def _is_size(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or hasattr(value, "__index__")


@function()
def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of one size (the last may be smaller), or of the sizes listed. See torch.split."""
    if not isinstance(split_size_or_sections, int) and not getattr(split_size_or_sections, "is_symbolic_int", False):
        return split_with_sizes(tensor, split_size_or_sections, dim)
    step = split_size_or_sections
    if isinstance(step, bool):
        raise TypeError("split(): argument 'split_size' must be int, not bool")
    if not tensor.ndim:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    if step < 0:
        raise RuntimeError(f"split expects split_size be non-negative, but got split_size={step}")
    dim = wrap_dim(dim, tensor.ndim)
    size = tensor.shape[dim]
    if step == 0:
        if size != 0:
            raise RuntimeError(f"split_size can only be 0 if dimension size is 0, but got dimension size of {size}")
        return (views.slice_(tensor, dim, 0, 0, 1),)
    starts = list(range(0, size, step)) or [0]
    return tuple(renamed(views.slice_(tensor, dim, s, min(s + step, size), 1), "SplitBackward0") for s in starts)


@function(method=True)
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of the sizes listed. See torch.split_with_sizes."""
    if not input.ndim:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    dim = wrap_dim(dim, input.ndim)
    if not isinstance(split_sizes, list | tuple) or not all(_is_size(n) for n in split_sizes):
        raise TypeError(
            f"split_with_sizes(): argument 'split_sizes' (position 2) must be tuple of ints, not "
            f"{type(split_sizes).__name__}"
        )
    sizes = list(split_sizes)
    if any(n < 0 for n in sizes):
        raise RuntimeError(
            f"split_with_sizes expects split_sizes have only non-negative entries, but got split_sizes={sizes}"
        )
    if sum(sizes) != input.shape[dim]:
        raise RuntimeError(
            f"split_with_sizes expects split_sizes to sum exactly to {input.shape[dim]} (input tensor's size at "
            f"dimension {dim}), but got split_sizes={sizes}"
        )
    pieces: list[Tensor] = []
    start: Any = 0
    for n in sizes:
        pieces.append(renamed(views.slice_(input, dim, start, start + n, 1), "SplitWithSizesBackward0"))
        start = start + n
    return tuple(pieces)


@method("split")
def _split_method(self: Tensor, split_size: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """See torch.Tensor.split."""
    return split(self, split_size, dim)


@function(method=True)
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of one size, the last maybe smaller. See torch.chunk."""
    if not input.ndim:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    size = input.shape[wrap_dim(dim, input.ndim)]
    step = (size + chunks - 1) // chunks
    if step == 0:
        return tuple(views.slice_(input, dim, 0, 0, 1) for _ in range(chunks))
    return split(input, step, dim)


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of nearly equal sizes, or between the indices listed. See torch.tensor_split."""
    if not input.ndim:
        raise RuntimeError("tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims")
    dim = wrap_dim(dim, input.ndim)
    size = input.shape[dim]
    given = indices_or_sections
    if isinstance(given, Tensor):
        given = given.tolist()
    if isinstance(given, int):
        if given <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {given}")
        small, larger = size // given, size % given
        stops = [(i + 1) * small + min(i + 1, larger) for i in range(given - 1)]
    else:
        stops = list(given)
    bounds = [0, *stops, size]
    return tuple(views.slice_(input, dim, a, b, 1) for a, b in itertools.pairwise(bounds))


function(method=True)(also_by_name(tensor_split, "indices", "sections", "tensor_indices_or_sections"))


@function(method=True)
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices of a dimension, which they lack. See torch.unbind."""
    if not input.ndim:
        raise IndexError("Dimension specified as 0 but tensor has no dimensions")
    dim = wrap_dim(dim, input.ndim)
    return tuple(renamed(select(input, dim, i), "UnbindBackward0") for i in range(input.shape[dim]))


def _pieces(name: str, dim_of: Any) -> None:
    def pieces(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
        rank = input.ndim
        if rank < (3 if name == "dsplit" else 2 if name == "vsplit" else 1):
            need = {"hsplit": 1, "vsplit": 2, "dsplit": 3}[name]
            raise RuntimeError(
                f"torch.{name} requires a tensor with at least {need} dimension{'s' * (need > 1)}, but got a tensor "
                f"with {rank} dimensions!"
            )
        dim = dim_of(rank)
        if isinstance(indices_or_sections, int) and (
            indices_or_sections == 0 or input.shape[dim] % indices_or_sections != 0
        ):
            raise RuntimeError(
                f"torch.{name} attempted to split along dimension {dim}, but the size of the dimension "
                f"{input.shape[dim]} is not divisible by the split_size {indices_or_sections}!"
            )
        return tensor_split(input, indices_or_sections, dim)

    pieces.__name__ = name
    pieces.__doc__ = f"Split along NumPy's `{name}` dimension. See torch.{name}."
    function(method=True, name=name)(also_by_name(pieces, "indices", "sections"))


_pieces("hsplit", lambda rank: 0 if rank == 1 else 1)
_pieces("vsplit", lambda rank: 0)
_pieces("dsplit", lambda rank: 2)
