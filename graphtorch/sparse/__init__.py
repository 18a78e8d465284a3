"""Sparse matrices in coordinate form: enough for graph networks and fixed sparse operators.

A :class:`SparseTensor` is a pair of dense tensors, indices and values. It is no Tensor; the functions and methods here
take it, and those of the package that `graphtorch.sparse.operators` lists. Gradients flow to the values and to dense
operands. See https://docs.pytorch.org/docs/stable/sparse.html
"""

from graphtorch.sparse import operators as _operators  # gives SparseTensor more methods
from graphtorch.sparse.coo import (
    DoubleTensor,
    FloatTensor,
    LongTensor,
    SparseTensor,
    addmm,
    log_softmax,
    mm,
    softmax,
    sparse_coo_tensor,
    sum,
)

__all__ = [
    *("DoubleTensor", "FloatTensor", "LongTensor", "SparseTensor"),
    *("addmm", "log_softmax", "mm", "softmax", "sparse_coo_tensor", "sum"),
]
