"""Tensors in coordinate form, composed of indices and values, and the products and sums of them."""

from __future__ import annotations

import math
from typing import Any

import graphtorch as torch
from graphtorch import Tensor

__all__ = [
    *("DoubleTensor", "FloatTensor", "LongTensor", "SparseTensor"),
    *("addmm", "log_softmax", "mm", "softmax", "sparse_coo_tensor", "sum"),
]


class SparseTensor:
    """Elements at `indices` (sparse dimensions, count), each a number or, with dense dimensions, a slice of `values`.

    One place may occur several times, and then counts with the sum; :meth:`coalesce` adds such elements up.
    """

    is_sparse = True
    is_leaf = False
    grad = None
    layout = torch.sparse_coo

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from graphtorch.sparse.operators import answer

        return answer(function, args, kwargs)

    def __init__(self, indices: Tensor, values: Tensor, size: Any, coalesced: bool = False) -> None:
        self._index, self._values_, self.shape = indices, values, torch.Size(size)
        self._coalesced = coalesced

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def dtype(self) -> Any:
        """The values'."""
        return self._values_.dtype

    @property
    def device(self) -> Any:
        """The values'."""
        return self._values_.device

    @property
    def requires_grad(self) -> bool:
        """Whether the values do."""
        return self._values_.requires_grad

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def dim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one size of it."""
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        """How many elements there are, zeros included."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def sparse_dim(self) -> int:
        """How many dimensions have indices."""
        return int(self._index.shape[0])

    def dense_dim(self) -> int:
        """How many dimensions an element has."""
        return self.ndim - self.sparse_dim()

    def _nnz(self) -> int:
        return int(self._index.shape[1])

    def is_coalesced(self) -> bool:
        """Whether places are known to be different and in order."""
        return self._coalesced

    def indices(self) -> Tensor:
        """The places. Raises RuntimeError unless coalesced."""
        self._require_coalesced("indices")
        return self._index

    def values(self) -> Tensor:
        """The elements. Raises RuntimeError unless coalesced."""
        self._require_coalesced("values")
        return self._values_

    def _indices(self) -> Tensor:
        return self._index

    def _values(self) -> Tensor:
        return self._values_

    def _require_coalesced(self, name: str) -> None:
        if not self._coalesced:
            raise RuntimeError(f"Cannot get {name} on an uncoalesced tensor, please call .coalesce() first")

    def __repr__(self) -> str:
        texts = (repr(t).removesuffix(")").removeprefix("tensor(") for t in (self._index, self._values_))
        # Further lines of each begin below its first.
        index, values = (text.replace("\n", "\n" + " " * n) for text, n in zip(texts, (15, 14), strict=True))
        return (
            f"tensor(indices=tensor({index}),\n       values=tensor({values}),\n       size={tuple(self.shape)}, "
            f"nnz={self._nnz()}, layout=torch.sparse_coo)"
        )

    # -- other forms --------------------------------------------------------------------------------------------------

    def _flat(self) -> Tensor:
        """Each place as one number, row by row."""
        found = torch.zeros_like(self._index[0])
        for place, size in zip(self._index, self.shape, strict=False):
            found = found * size + place
        return found

    def coalesce(self) -> SparseTensor:
        """The same with every place once, in the order of rows."""
        if self._coalesced:
            return self
        places, where = torch.unique(self._flat(), return_inverse=True)
        values = self._values_.new_zeros((places.shape[0], *self._values_.shape[1:])).index_add(0, where, self._values_)
        index = []
        for size in reversed(self.shape[: self.sparse_dim()]):
            index.append(places % size)
            places = places.div(size, rounding_mode="floor")
        return SparseTensor(torch.stack(index[::-1]), values, self.shape, True)

    def to_dense(self) -> Tensor:
        """The dense tensor."""
        count = math.prod(self.shape[: self.sparse_dim()])
        flat = self._values_.new_zeros((count, *self._values_.shape[1:]))
        return flat.index_add(0, self._flat(), self._values_).reshape(self.shape)

    def to_sparse(self) -> SparseTensor:
        """The tensor itself."""
        return self

    def _with_values(self, values: Tensor) -> SparseTensor:
        return SparseTensor(self._index, values, self.shape, self._coalesced)

    def detach(self) -> SparseTensor:
        """The same without a gradient."""
        return self._with_values(self._values_.detach())

    def clone(self) -> SparseTensor:
        """A copy."""
        return SparseTensor(self._index.clone(), self._values_.clone(), self.shape, self._coalesced)

    def to(self, *args: Any, **kwargs: Any) -> SparseTensor:
        """The same with values of another dtype."""
        return self._with_values(self._values_.to(*args, **kwargs))

    def float(self) -> SparseTensor:
        """The same in float32."""
        return self._with_values(self._values_.float())

    def double(self) -> SparseTensor:
        """The same in float64."""
        return self._with_values(self._values_.double())

    def cpu(self) -> SparseTensor:
        """The same with values on the CPU."""
        return SparseTensor(self._index.cpu(), self._values_.cpu(), self.shape, self._coalesced)

    def cuda(self, *args: Any, **kwargs: Any) -> SparseTensor:
        """The same on a CUDA device."""
        index, values = self._index.cuda(*args, **kwargs), self._values_.cuda(*args, **kwargs)
        return SparseTensor(index, values, self.shape, self._coalesced)

    def requires_grad_(self, requires_grad: bool = True) -> SparseTensor:
        """Ask for gradients of the values."""
        self._values_.requires_grad_(requires_grad)
        return self

    def transpose(self, dim0: int, dim1: int) -> SparseTensor:
        """Exchange two sparse dimensions."""
        order = list(range(self.sparse_dim()))
        a, b = (d % self.ndim for d in (dim0, dim1))
        order[a], order[b] = order[b], order[a]
        shape = [*(self.shape[d] for d in order), *self.shape[self.sparse_dim() :]]
        return SparseTensor(self._index[torch.tensor(order, device=self._index.device)], self._values_, shape)

    def t(self) -> SparseTensor:
        """The transposed matrix."""
        return self.transpose(0, 1)

    @property
    def T(self) -> SparseTensor:
        """The transposed matrix."""
        return self.t()

    # -- arithmetic ---------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, SparseTensor):
            return self.to_dense() + other
        if other.shape != self.shape:
            raise RuntimeError(
                f"add: expected 'self' and 'other' to have same size, but self has size {list(self.shape)} while other "
                f"has size {list(other.shape)} (FYI: dense-sparse addition does not currently support broadcasting)"
            )
        index = torch.cat([self._index, other._index], 1)
        found = SparseTensor(index, torch.cat([self._values_, other._values_]), self.shape)
        return found.coalesce() if self._coalesced and other._coalesced else found

    __radd__ = __add__
    add = __add__

    def __neg__(self) -> SparseTensor:
        return self._with_values(-self._values_)

    def __sub__(self, other: Any) -> Any:
        return self + (-other)

    def __mul__(self, other: Any) -> SparseTensor:
        if isinstance(other, SparseTensor):
            mine = self.coalesce()
            return mine * other.to_dense()
        if isinstance(other, Tensor) and other.ndim:
            # Only the elements that are there matter.
            places = tuple(self._index)
            return self._with_values(self._values_ * other.expand(self.shape)[places])
        return self._with_values(self._values_ * other)

    __rmul__ = __mul__
    mul = __mul__

    def __truediv__(self, other: Any) -> SparseTensor:
        return self._with_values(self._values_ / other)

    def __matmul__(self, other: Any) -> Any:
        return mm(self, other)

    def __rmatmul__(self, other: Tensor) -> Tensor:
        found: Tensor = mm(self.t(), other.t()).t()
        return found

    def mm(self, other: Any) -> Any:
        """See :func:`mm`."""
        return mm(self, other)

    matmul = mm
    spmm = mm

    def mv(self, vector: Tensor) -> Tensor:
        """The product with a vector."""
        found: Tensor = mm(self, vector.unsqueeze(1)).squeeze(1)
        return found

    def sum(self, dim: Any = None) -> Any:
        """See :func:`sum`."""
        return sum(self, dim)


def sparse_coo_tensor(
    indices: Any,
    values: Any = None,
    size: Any = None,
    *,
    dtype: Any = None,
    device: Any = None,
    pin_memory: bool = False,
    requires_grad: bool = False,
    check_invariants: bool | None = None,
    is_coalesced: bool | None = None,
) -> SparseTensor:
    """A sparse tensor of elements at indices (sparse dimensions, count); with a size alone, one without elements.

    Raises RuntimeError for indices that are negative or beyond the size, or shapes that do not fit. See
    torch.sparse_coo_tensor.
    """
    if values is None:
        shape = tuple(indices if size is None else size)
        made = torch.zeros(0, dtype=dtype, device=device, requires_grad=requires_grad)
        return SparseTensor(torch.zeros((len(shape), 0), dtype=torch.int64, device=made.device), made, shape, True)
    given = torch.as_tensor(values, dtype=dtype, device=device)
    index = torch.as_tensor(indices, dtype=torch.int64, device=given.device)
    if requires_grad:
        given = given.detach().requires_grad_()
    if index.ndim == 1:
        index = index.unsqueeze(0)
    if given.ndim == 0:
        given = given.expand(index.shape[1])
    if index.ndim != 2 or given.shape[0] != index.shape[1]:
        raise RuntimeError(
            f"indices and values must have same nnz, but got nnz from indices: {index.shape[-1]}, nnz from values: "
            f"{given.shape[0]}"
        )
    if index.numel() and index.min() < 0:
        raise RuntimeError(f"found negative index {index.min().item()} for dim {index.min(1)[0].argmin().item()}")
    largest = [int(row.max()) + 1 for row in index] if index.shape[1] else [0] * index.shape[0]
    shape = (*largest, *given.shape[1:]) if size is None else tuple(size)
    if len(shape) != index.shape[0] + given.ndim - 1:
        raise RuntimeError(
            f"number of dimensions must be sparse_dim ({index.shape[0]}) + dense_dim ({given.ndim - 1}), but got "
            f"{len(shape)}"
        )
    for dim, (needed, has) in enumerate(zip(largest, shape, strict=False)):
        if needed > has:
            raise RuntimeError(
                f"size is inconsistent with indices: for dim {dim}, size is {has} but found index {needed - 1}"
            )
    return SparseTensor(index, given, shape, bool(is_coalesced))


def _constructor(dtype: Any) -> Any:
    def make(indices: Any, values: Any = None, size: Any = None) -> SparseTensor:
        return sparse_coo_tensor(indices, values, size, dtype=dtype)

    make.__doc__ = f"`sparse_coo_tensor` of {dtype}, as older programs write it. See torch.sparse_coo_tensor."
    return make


FloatTensor, DoubleTensor, LongTensor = map(_constructor, (torch.float32, torch.float64, torch.int64))


def _from_dense(dense: Tensor, sparse_dim: int | None = None) -> SparseTensor:
    """The elements of a dense tensor that are not 0; with fewer sparse dimensions, the slices that are not all 0."""
    count = dense.ndim if sparse_dim is None else sparse_dim
    present = dense.detach() != 0
    for _ in range(dense.ndim - count):
        present = present.any(-1)
    index = present.nonzero().T
    return SparseTensor(index, dense[tuple(index)], dense.shape, True)


def _check_product(a: Any, b: Any) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise RuntimeError(f"mm: mat1 and mat2 shapes cannot be multiplied: {tuple(a.shape)} and {tuple(b.shape)}")


def mm(sparse: SparseTensor, dense: Any) -> Any:
    """The product of a sparse (n, m) and a dense (m, p) matrix, dense; or of two sparse ones, sparse.

    Raises RuntimeError for shapes that do not fit. See torch.sparse.mm.
    """
    if isinstance(dense, SparseTensor):
        _check_product(sparse, dense)
        return _from_dense(mm(sparse, dense.to_dense()))
    if isinstance(dense, Tensor) and dense.ndim == 1:
        return sparse.mv(dense)
    _check_product(sparse, dense)
    rows, columns = sparse._index
    terms = sparse._values_.unsqueeze(1) * dense.index_select(0, columns)
    return terms.new_zeros((sparse.shape[0], dense.shape[1])).index_add(0, rows, terms)


def addmm(mat: Tensor, mat1: SparseTensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`beta * mat + alpha * (mat1 @ mat2)`. See torch.sparse.addmm."""
    return beta * mat + alpha * mm(mat1, mat2)


def sum(input: SparseTensor, dim: Any = None, dtype: Any = None) -> Any:
    """The sum of all elements, a dense number, or over dimensions: sparse if sparse dimensions stay, else dense."""
    values = input._values_ if dtype is None else input._values_.to(dtype)
    if dim is None:
        return values.sum()
    dims = {d % input.ndim for d in (dim if isinstance(dim, tuple | list) else (dim,))}
    own = input.sparse_dim()
    inner = [d - own + 1 for d in dims if d >= own]
    if inner:
        values = values.sum(inner)
    left = [d for d in range(own) if d not in dims]
    shape = [s for d, s in enumerate(input.shape) if d not in dims]
    if not left:
        return values.sum(0)
    kept = torch.tensor(left, device=values.device)
    return SparseTensor(input._index.index_select(0, kept), values, shape).coalesce()


def log_softmax(input: SparseTensor, dim: int, *, dtype: Any = None) -> SparseTensor:
    """The logarithm of :func:`softmax`. See torch.sparse.log_softmax."""
    given = softmax(input, dim, dtype=dtype)
    return given._with_values(given._values_.log())


def softmax(input: SparseTensor, dim: int, *, dtype: Any = None) -> SparseTensor:
    """The softmax along a sparse dimension over the elements that are there, as if the others were -inf.

    See torch.sparse.softmax.
    """
    given = input.coalesce()
    values = given._values_ if dtype is None else given._values_.to(dtype)
    others = [d for d in range(given.sparse_dim()) if d != dim % given.ndim]
    group = torch.zeros_like(given._index[0])
    for d in others:
        group = group * given.shape[d] + given._index[d]
    _, group = torch.unique(group, return_inverse=True)
    shape = (int(group.max()) + 1 if group.numel() else 0, *values.shape[1:])
    index = group.reshape((-1, *(1,) * (values.ndim - 1))).expand_as(values)
    top = values.new_full(shape, -math.inf, requires_grad=False).scatter_reduce(0, index, values.detach(), "amax")
    powers = (values - top.index_select(0, group)).exp()
    totals = values.new_zeros(shape).index_add(0, group, powers)
    return given._with_values(powers / totals.index_select(0, group))
