"""Matrix products. `mm` and `bmm` are primitives; everything else reaches them by views, or has them in its
decomposition.

Half-precision products accumulate in float32 and round once, as PyTorch's do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.autograd.graph import composes, renamed
from graphtorch.autograd.state import modes_entered, state
from graphtorch.ops.arithmetic import conjugate
from graphtorch.ops.build import function, method, operator
from graphtorch.ops.dispatch import _scalar_name
from graphtorch.ops.pointwise import broadcast_shapes
from graphtorch.ops.record import OPAQUE, sample
from graphtorch.ops.shapes import wrap_dim
from graphtorch.ops.shaping import reshape
from graphtorch.ops.strides import product
from graphtorch.ops.view import check_expand, expand, needing, permute, squeeze, transpose, unsqueeze
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

# The C++ type names that PyTorch's messages call dtypes by.
C_NAMES = {
    dtypes.float32: "float",
    dtypes.float64: "double",
    dtypes.float16: "c10::Half",
    dtypes.bfloat16: "c10::BFloat16",
    dtypes.int64: "long",
    dtypes.int32: "int",
    dtypes.int16: "short",
    dtypes.int8: "signed char",
    dtypes.uint8: "unsigned char",
    dtypes.bool_: "bool",
    dtypes.complex64: "c10::complex<float>",
    dtypes.complex128: "c10::complex<double>",
}


def _differs(a: Any, b: Any) -> bool:
    return a is not b and bool(a != b)


def _check_dtypes(a: Any, b: Any, kernel: str = "addmm_impl_cpu_") -> None:
    if a.dtype is not b.dtype:
        raise RuntimeError(
            f"expected m1 and m2 to have the same dtype, but got: {C_NAMES[a.dtype]} != {C_NAMES[b.dtype]}"
        )
    if a.dtype is dtypes.bool_:
        raise NotImplementedError(f"\"{kernel}\" not implemented for 'Bool'")


def array_product(a: Any, b: Any) -> Any:
    """`a @ b` of arrays of one dtype, rounded once."""
    if a.dtype.itemsize == 2 and a.dtype.kind not in "iu":
        return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
    return np.matmul(a, b)


def _adjoint(value: Any) -> Any:
    """The conjugate transpose, by which every product's cotangents are multiplied."""
    return conjugate(transpose(value, -2, -1))


# -- mm, bmm, dot, mv -------------------------------------------------------------------------------------------------


def _mm_type(input: Any, mat2: Any) -> TensorType:
    if len(input.shape) != 2:
        raise RuntimeError("self must be a matrix")
    if len(mat2.shape) != 2:
        raise RuntimeError("mat2 must be a matrix")
    if _differs(input.shape[1], mat2.shape[0]):
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({input.shape[0]}x{input.shape[1]} and "
            f"{mat2.shape[0]}x{mat2.shape[1]})"
        )
    _check_dtypes(input, mat2)
    return type_of(input).with_shape((input.shape[0], mat2.shape[1]))


mm: Callable[..., Tensor] = operator(
    "mm(Tensor input, Tensor mat2)",
    type=_mm_type,
    numpy=array_product,
    kind=OPAQUE,
    derivative={
        "input": lambda g, mat2: mm(g, _adjoint(mat2)),
        "mat2": lambda g, input: mm(_adjoint(input), g),
    },
    samples=lambda make: [
        sample(make(2, 3), make(3, 4)),
        sample(make(1, 5), make(5, 1)),
        sample(make(2, 0), make(0, 3)),
    ],
    categories="ifc",
    out=True,
    doc="The product of two matrices.",
)


def _bmm_type(input: Any, mat2: Any) -> TensorType:
    if len(input.shape) != 3:
        raise RuntimeError("batch1 must be a 3D tensor")
    if len(mat2.shape) != 3:
        raise RuntimeError("batch2 must be a 3D tensor")
    if _differs(input.shape[0], mat2.shape[0]) or _differs(input.shape[2], mat2.shape[1]):
        raise RuntimeError(
            f"Expected size for first two dimensions of batch2 tensor to be: [{input.shape[0]}, {input.shape[2]}] but "
            f"got: [{mat2.shape[0]}, {mat2.shape[1]}]."
        )
    _check_dtypes(input, mat2, "baddbmm")
    return type_of(input).with_shape((input.shape[0], input.shape[1], mat2.shape[2]))


bmm: Callable[..., Tensor] = operator(
    "bmm(Tensor input, Tensor mat2)",
    type=_bmm_type,
    numpy=array_product,
    kind=OPAQUE,
    derivative={
        "input": lambda g, mat2: bmm(g, _adjoint(mat2)),
        "mat2": lambda g, input: bmm(_adjoint(input), g),
    },
    samples=lambda make: [sample(make(2, 3, 4), make(2, 4, 2)), sample(make(1, 2, 3), make(1, 3, 1))],
    categories="ifc",
    out=True,
    doc="The products of two batches of matrices.",
)


def _dot_type(input: Any, tensor: Any) -> TensorType:
    if len(input.shape) != 1 or len(tensor.shape) != 1:
        raise RuntimeError(f"1D tensors expected, but got {len(input.shape)}D and {len(tensor.shape)}D tensors")
    if input.dtype is not tensor.dtype:
        raise RuntimeError(
            f"dot : expected both vectors to have same dtype, but found {_scalar_name(input.dtype)} and "
            f"{_scalar_name(tensor.dtype)}"
        )
    a, b = input.shape[0], tensor.shape[0]
    if _differs(a, b):
        raise RuntimeError(
            f"inconsistent tensor size, expected tensor [{a}] and src [{b}] to have the same number of elements, but "
            f"got {a} and {b} elements respectively"
        )
    if input.dtype is dtypes.bool_:
        raise NotImplementedError("\"dot\" not implemented for 'Bool'")
    return type_of(input).with_shape(())


dot: Callable[..., Tensor] = operator(
    "dot(Tensor input, Tensor tensor)",
    type=_dot_type,
    numpy=lambda input, tensor: np.asarray(array_product(input, tensor)),
    kind=OPAQUE,
    derivative={"input": lambda g, tensor: g * conjugate(tensor), "tensor": lambda g, input: g * conjugate(input)},
    decompose=lambda input, tensor: (input * tensor).sum(dtype=input.dtype),
    samples=lambda make: [sample(make(4), make(4)), sample(make(1), make(1))],
    categories="ifc",
    out=True,
    doc="The inner product of two vectors.",
)


@function(method=True)
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """`dot` with the first vector conjugated. See torch.vdot."""
    return dot(conjugate(input), other)


def _mv_type(input: Any, vec: Any) -> TensorType:
    if len(input.shape) != 2 or len(vec.shape) != 1:
        raise RuntimeError(f"vector + matrix @ vector expected, got 1, {len(input.shape)}, {len(vec.shape)}")
    if _differs(input.shape[1], vec.shape[0]):
        raise RuntimeError(
            f"size mismatch, got input ({input.shape[0]}), mat ({input.shape[0]}x{input.shape[1]}), vec "
            f"({vec.shape[0]})"
        )
    _check_dtypes(input, vec, "addmv_impl_cpu")
    return type_of(input).with_shape((input.shape[0],))


mv: Callable[..., Tensor] = operator(
    "mv(Tensor input, Tensor vec)",
    type=_mv_type,
    numpy=array_product,
    kind=OPAQUE,
    derivative={
        "input": lambda g, vec: unsqueeze(g, 1) * conjugate(vec),
        "vec": lambda g, input: mv(_adjoint(input), g),
    },
    decompose=lambda input, vec: squeeze(mm(input, unsqueeze(vec, 1)), 1),
    samples=lambda make: [sample(make(3, 4), make(4)), sample(make(1, 2), make(2))],
    categories="ifc",
    out=True,
    doc="The product of a matrix and a vector.",
)


# -- matmul -----------------------------------------------------------------------------------------------------------


@function(method=True)
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The product of vectors, matrices or (broadcast) batches of matrices. See torch.matmul.

    Raises RuntimeError for zero-dimensional operands and shapes that don't fit.
    """
    if state.autocast is not None:
        input, other = state.autocast.lower((input, other))
    m, n = input.ndim, other.ndim
    if m == 2 and n == 2:
        return mm(input, other)
    if m == 0 or n == 0:
        raise RuntimeError(f"both arguments to matmul need to be at least 1D, but they are {m}D and {n}D")
    if m == 1 and n == 1:
        return dot(input, other)
    if m == 2 and n == 1:
        return mv(input, other)
    if m == 1 and n == 2:
        return squeeze(mm(unsqueeze(input, 0), other), 0)
    if m >= 3 and n <= 2:
        # One matrix for every batch: the batches are rows of one product.
        lead = tuple(input.shape[:-1])
        rows = reshape(input, (product(lead), input.shape[-1]))
        if n == 1:
            return reshape(mv(rows, other), lead)
        return renamed(reshape(mm(rows, other), (*lead, other.shape[-1])), "UnsafeViewBackward0")
    if m <= 2:
        if m == 1:
            return matmul(transpose(other, -2, -1), input)
        return transpose(matmul(transpose(other, -2, -1), transpose(input, 0, 1)), -2, -1)
    history = state.grad_enabled and (input.requires_grad or other.requires_grad)
    recorded = state.recorder is not None
    if m == n == 3 and input.shape[0] == other.shape[0] and not (recorded or history or modes_entered):
        return bmm(input, other)  # what follows is how PyTorch's history shows it
    batch = broadcast_shapes(input.shape[:-2], other.shape[:-2])
    count = product(batch)
    a = reshape(expand(input, (*batch, *input.shape[-2:])), (count, *input.shape[-2:]))
    b = reshape(expand(other, (*batch, *other.shape[-2:])), (count, *other.shape[-2:]))
    return renamed(reshape(bmm(a, b), (*batch, input.shape[-2], other.shape[-1])), "UnsafeViewBackward0")


@method("__matmul__")
def _dunder_matmul(self: Tensor, other: Any) -> Any:
    return matmul(self, other) if isinstance(other, Tensor) else NotImplemented


@method("__rmatmul__")
def _dunder_rmatmul(self: Tensor, other: Any) -> Any:
    return matmul(other, self) if isinstance(other, Tensor) else NotImplemented


@method("__imatmul__")
def _dunder_imatmul(self: Tensor, other: Any) -> Any:
    return matmul(self, other) if isinstance(other, Tensor) else NotImplemented


# -- a product added to something -------------------------------------------------------------------------------------


def _check_scales(d: dtypes.dtype, *scales: Any) -> None:
    for name, scale in zip(("beta", "alpha"), scales, strict=True):
        if isinstance(scale, float) and d.category < dtypes.FLOATING:
            raise RuntimeError(f"For integral input tensors, argument {name} must not be a floating point number.")


def _scaled(value: Any, scale: Any) -> Any:
    """The multiple in the value's own dtype: of integers, by the number without its fraction."""
    if isinstance(scale, int) and scale == 1:
        return value
    if isinstance(scale, float) and value.dtype.category < dtypes.FLOATING:
        scale = int(scale)
    return value * scale


def _added_type(product_type: Callable[[Any, Any], TensorType]) -> Callable[..., TensorType]:
    def type_rule(input: Any, a: Any, b: Any, beta: Any, alpha: Any) -> TensorType:
        if product_type is _bmm_type:
            # PyTorch asks for the sizes of the result before it checks the operands' ranks.
            for operand, dim in ((a, 0), (a, 1), (b, 2)):
                wrap_dim(dim, len(operand.shape))
        result = product_type(a, b)
        if input.dtype is not result.dtype:
            raise RuntimeError(
                f"self and mat2 must have the same dtype, but got {_scalar_name(input.dtype)} and "
                f"{_scalar_name(b.dtype)}"
            )
        check_expand(input, result.shape)
        return result

    return type_rule


def _added_numpy(input: Any, a: Any, b: Any, beta: Any, alpha: Any) -> Any:
    half = a.dtype.itemsize == 2 and a.dtype.kind not in "iu"
    wide = np.float32 if half else a.dtype
    found = np.matmul(a.astype(wide, copy=False), b.astype(wide, copy=False))
    if alpha != 1:
        found = found * np.asarray(alpha).astype(wide)  # integers wrap around
    if beta != 0:  # a zero beta ignores even NaN
        term = input.astype(wide, copy=False)
        found = found + (term if beta == 1 else term * np.asarray(beta).astype(wide))
    return found.astype(a.dtype, copy=False)


def _added_samples(*shapes: tuple[int, ...]) -> Callable[..., Any]:
    """Samples of an `input + a @ b` operator: shapes of input, a, b."""
    first, a, b = shapes

    def samples(make: Any) -> Any:
        yield sample(make(*first), make(*a), make(*b))
        yield sample(make(b[-1]), make(*a), make(*b), beta=2, alpha=3)
        yield sample(make(), make(*a), make(*b), beta=0)

    return samples


def _added(name: str, a: str, b: str, operand: Callable[..., Tensor], **fields: Any) -> Callable[..., Tensor]:
    """`beta * input + alpha * (a @ b)`; `operand` is the record of the product."""

    def decompose(input: Any, a: Any, b: Any, beta: Any, alpha: Any) -> Any:
        found = _scaled(operand(a, b), alpha)
        if isinstance(beta, int) and beta == 0:
            return found
        return _scaled(input, beta) + found

    def to_a(g: Any, b: Any, alpha: Any) -> Any:
        return _scaled(operand(g, _adjoint(b)), conjugate(alpha))

    def to_b(g: Any, a: Any, alpha: Any) -> Any:
        return _scaled(operand(_adjoint(a), g), conjugate(alpha))

    return operator(
        f"{name}(Tensor input, Tensor {a}, Tensor {b}, *, Number beta=1, Number alpha=1)",
        numpy=_added_numpy,
        kind=OPAQUE,
        derivative={
            "input": lambda g, beta: _scaled(g, conjugate(beta)),
            a: needing(to_a, "g", b, "alpha"),
            b: needing(to_b, "g", a, "alpha"),
        },
        decompose=decompose,
        categories="ifc",
        inplace=True,
        out=True,
        **fields,
    )


addmm = _added(
    "addmm",
    "mat1",
    "mat2",
    mm,
    type=_added_type(_mm_type),
    samples=_added_samples((2, 4), (2, 3), (3, 4)),
    doc="`beta * input + alpha * (mat1 @ mat2)`.",
)
baddbmm = _added(
    "baddbmm",
    "batch1",
    "batch2",
    bmm,
    type=_added_type(_bmm_type),
    samples=_added_samples((2, 3, 2), (2, 3, 4), (2, 4, 2)),
    doc="`beta * input + alpha * (batch1 @ batch2)`, a matrix product a batch.",
)


def _plus(input: Tensor, found: Tensor, beta: Any, alpha: Any) -> Tensor:
    found = _scaled(found, alpha)
    result: Tensor = found if isinstance(beta, int) and beta == 0 else _scaled(input, beta) + found
    return result


@function(method=True)
@composes("AddmvBackward0")
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`beta * input + alpha * (mat @ vec)`. See torch.addmv."""
    return _plus(input, mv(mat, vec), beta, alpha)


@function(method=True)
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`beta * input + alpha * sum_i (batch1[i] @ batch2[i])`. See torch.addbmm."""
    return _plus(input, bmm(batch1, batch2).sum(0, dtype=batch1.dtype), beta, alpha)


@function(method=True)
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`beta * input + alpha * outer(vec1, vec2)`. See torch.addr."""
    product = outer(vec1, vec2)
    if product.dtype is dtypes.bool_ and input.dtype is dtypes.bool_:
        beta, alpha = bool(beta), bool(alpha)
    else:
        _check_scales(product.dtype, beta, alpha)
    return _plus(input, product, beta, alpha)


# -- linear -----------------------------------------------------------------------------------------------------------


def _linear_type(input: Any, weight: Any, bias: Any) -> TensorType:
    shape = tuple(input.shape)
    if not shape or not len(weight.shape):
        raise RuntimeError(
            f"both arguments to linear need to be at least 1D, but they are {len(shape)}D and {len(weight.shape)}D"
        )
    inside, outside = weight.shape[-1], tuple(weight.shape[:-1])
    if len(weight.shape) not in (1, 2):
        raise RuntimeError(f"linear(): weight must be 1D or 2D, but it is {len(weight.shape)}D")
    if _differs(shape[-1], inside):
        rows = product(shape[:-1])
        columns = outside[0] if outside else 1
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({rows}x{shape[-1]} and {inside}x{columns})")
    if bias is not None and input.dtype is not weight.dtype:
        raise RuntimeError(
            f"mat1 and mat2 must have the same dtype, but got {_scalar_name(input.dtype)} and "
            f"{_scalar_name(weight.dtype)}"
        )
    _check_dtypes(input, weight)
    made = (*shape[:-1], *outside)
    if bias is not None:
        if bias.dtype is not input.dtype:
            raise RuntimeError(
                f"self and mat2 must have the same dtype, but got {_scalar_name(bias.dtype)} and "
                f"{_scalar_name(weight.dtype)}"
            )
        check_expand(bias, made)
    return type_of(input).with_shape(made)


def _linear_numpy(input: Any, weight: Any, bias: Any) -> Any:
    d = input.dtype
    if input.ndim == 2 and weight.ndim == 2 and d.char in "fd" and weight.dtype == d:
        found = np.matmul(input, weight.T)
        if bias is not None:
            np.add(found, bias if bias.dtype == d else bias.astype(d), out=found)
        return found
    half = d.itemsize == 2 and d.kind not in "iu"
    wide = np.dtype(np.float32) if half else d
    # One product of all rows: NumPy would loop over the batches of a product of more dimensions.
    rows = input if input.ndim <= 2 else input.reshape(math.prod(input.shape[:-1]), input.shape[-1])
    found = np.asarray(np.matmul(rows.astype(wide, copy=False), weight.astype(wide, copy=False).T))
    if bias is not None:
        np.add(found, bias.astype(wide, copy=False), out=found)
    return found.reshape((*input.shape[:-1], *weight.shape[:-1])).astype(d, copy=False)


def _rows(value: Any) -> Any:
    """All but the last dimension merged."""
    return value if len(value.shape) == 2 else reshape(value, (product(value.shape[:-1]), value.shape[-1]))


def _linear_to_input(g: Any, weight: Any, input_type: TensorType) -> Any:
    if len(weight.shape) == 1:
        return unsqueeze(g, len(g.shape)) * conjugate(weight)
    found = mm(_rows(g), conjugate(weight))
    return found if len(input_type.shape) == 2 else reshape(found, input_type.shape)


def _linear_to_weight(g: Any, input: Any, weight_type: TensorType) -> Any:
    flat = conjugate(_rows(input))
    if len(weight_type.shape) == 1:
        return mv(transpose(flat, 0, 1), reshape(g, (product(g.shape),)))
    return mm(transpose(_rows(g), 0, 1), flat)


def _linear_decompose(input: Any, weight: Any, bias: Any) -> Any:
    lead = tuple(input.shape[:-1])
    if len(weight.shape) == 1:
        found = reshape(mm(_rows(input), unsqueeze(weight, 1)), lead)
    else:
        found = reshape(mm(_rows(input), permute(weight, (1, 0))), (*lead, weight.shape[0]))
    return found if bias is None else found + bias


def _linear_name(input: Any, weight: Any, bias: Any) -> int | str:
    """PyTorch's node depends on the shapes."""
    rank = len(input.shape)
    if bias is not None:
        return 0 if rank == 2 else "ViewBackward0"
    return "SqueezeBackward4" if rank == 1 else "MmBackward0" if rank == 2 else "UnsafeViewBackward0"


linear: Callable[..., Tensor] = operator(
    "linear(Tensor input, Tensor weight, Tensor? bias=None)",
    type=_linear_type,
    numpy=_linear_numpy,
    kind=OPAQUE,
    derivative={
        "input": _linear_to_input,
        "weight": _linear_to_weight,
        "bias": lambda g: g,  # summed over the rows by the fit of every cotangent
    },
    decompose=_linear_decompose,
    samples=lambda make: [
        sample(make(5, 3), make(4, 3), make(4)),
        sample(make(2, 5, 3), make(4, 3), make(4)),
        sample(make(2, 3), make(4, 3)),
        sample(make(3), make(4, 3), make(4)),
        sample(make(2, 3), make(3)),
        sample(make(3), make(3)),
    ],
    categories="ifc",
    method=False,
    grad_name="AddmmBackward0",
    overload=_linear_name,
    edge_order=("bias", "input", "weight"),
    doc="`input @ weight.T + bias`, for `input` of (*, in) and `weight` of (out, in).",
)


# -- compositions -----------------------------------------------------------------------------------------------------


@function(method=True)
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of an element of one vector and one of another. See torch.outer."""
    for name, given in (("self", input), ("vec2", vec2)):
        if given.ndim != 1:
            raise RuntimeError(f"outer: Expected 1-D argument {name}, but got {given.ndim}-D")
    found: Tensor = unsqueeze(input, 1) * vec2
    return found


function(method=True, name="ger")(outer)


@function()
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """The product of two tensors summed over pairs of dimensions. See torch.tensordot.

    `dims` is a count (the last of `a` with the first of `b`) or a list of dims for each.
    """
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(a.ndim, b.ndim):
            raise RuntimeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}")
        first, second = list(range(-dims, 0)), list(range(dims))
    else:
        first, second = ([d] if isinstance(d, int) else list(d) for d in dims)
        if len(first) != len(second):
            raise RuntimeError("both dimension lists should have same length")
    left, right = [wrap_dim(d, a.ndim) for d in first], [wrap_dim(d, b.ndim) for d in second]
    for i, j, shown_i, shown_j in zip(left, right, first, second, strict=True):
        if not _differs(a.shape[i], b.shape[j]):
            continue
        # A size of 1 broadcasts: what it meets is summed.
        if a.shape[i] == 1:
            b = b.sum(j, keepdim=True, dtype=b.dtype)
        elif b.shape[j] == 1:
            a = a.sum(i, keepdim=True, dtype=a.dtype)
        else:
            raise RuntimeError(
                f"contracted dimensions need to match, but first has size {a.shape[i]} in dim {shown_i} and second has "
                f"size {b.shape[j]} in dim {shown_j}"
            )
    rest_a = [d for d in range(a.ndim) if d not in left]
    rest_b = [d for d in range(b.ndim) if d not in right]
    shape_a, shape_b = [a.shape[d] for d in rest_a], [b.shape[d] for d in rest_b]
    summed = product(a.shape[d] for d in left)
    rows = reshape(permute(a, tuple(rest_a + left)), (product(shape_a), summed))
    columns = reshape(permute(b, tuple(right + rest_b)), (summed, product(shape_b)))
    return reshape(mm(rows, columns), (*shape_a, *shape_b))


@function(method=True)
def inner(input: Tensor, other: Tensor) -> Tensor:
    """The product summed over the last dimensions. See torch.inner."""
    if not input.ndim or not other.ndim:
        scaled: Tensor = input * other
        return scaled
    if _differs(input.shape[-1], other.shape[-1]):
        raise RuntimeError(
            f"inner() the last dimension must match on both input tensors but got shapes {list(input.shape)} and "
            f"{list(other.shape)}"
        )
    return tensordot(input, other, ([-1], [-1]))


@function(method=True)
def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product. See torch.kron."""
    rank = max(input.ndim, other.ndim)

    def padded(tensor: Tensor) -> list[Any]:
        return [1] * (rank - tensor.ndim) + list(tensor.shape)

    a, b = padded(input), padded(other)
    left = reshape(input, tuple(n for size in a for n in (size, 1)))
    right = reshape(other, tuple(n for size in b for n in (1, size)))
    return renamed(reshape(left * right, tuple(m * n for m, n in zip(a, b, strict=True))), "UnsafeViewBackward0")
